"""The permissions of each role."""

import pytest
from django.contrib.admin.models import LogEntry

from tests.conversations.admin.browser import LIST, confirm, select, staff, url_of
from tests.factories import PATH, conversation

ACTIONS = ["archive", "restore", "trash", "hold", "release"]
MAY = {
    "support": {"archive", "restore", "revert"},
    "operator": {*ACTIONS, "revert", "bulk", "export"},
    "auditor": {"log"},
}


@pytest.mark.parametrize("role", MAY)
@pytest.mark.parametrize("name", ACTIONS)
def test_a_role_acts_on_one_conversation_with_permission(role, name, alice):
    created = conversation(alice)

    response = staff(role=role).get(url_of(created["id"], "act", name))

    assert response.status_code == (200 if name in MAY[role] else 403)


@pytest.mark.parametrize("role", MAY)
def test_a_role_reverts_with_permission(role, alice):
    created = conversation(alice)
    alice.patch(f"{PATH}/{created['id']}", {"title": "Other"})

    response = staff(role=role).post(url_of(created["id"], "revert", "1"))

    assert response.status_code == (302 if "revert" in MAY[role] else 403)
    reverted = alice.get(f"{PATH}/{created['id']}").json()["title"] == created["title"]
    assert reverted == ("revert" in MAY[role])


@pytest.mark.parametrize("role", MAY)
def test_a_role_acts_on_many_conversations_with_permission(role, alice):
    created = conversation(alice)

    confirm(staff(role=role), "archive", created["id"])

    archived = alice.get(f"{PATH}/{created['id']}").json()["status"] == "archived"
    assert archived == ("bulk" in MAY[role])


@pytest.mark.parametrize("role", MAY)
def test_a_role_exports_with_permission(role, alice):
    created = conversation(alice)

    response = select(staff(role=role), "export_csv", created["id"])

    assert response.headers["Content-Type"].startswith("text/csv") == ("export" in MAY[role])


@pytest.mark.parametrize("role", MAY)
def test_a_role_reads_the_log_with_permission(role, alice):
    created = conversation(alice)
    client = staff(role=role)

    statuses = [
        client.get("/admin/admin/logentry/").status_code,
        client.get(url_of(created["id"], "history"), follow=True).status_code,
    ]

    assert statuses == ([200, 200] if "log" in MAY[role] else [403, 403])


@pytest.mark.parametrize("role", MAY)
def test_every_role_reads_conversations_and_their_history(role, alice):
    created = conversation(alice, "archived")
    client = staff(role=role)

    page = client.get(url_of(created["id"])).content.decode()

    assert client.get(LIST).status_code == 200
    assert "Version 2" in page
    assert ("/act/restore/" in page) == ("restore" in MAY[role])


@pytest.mark.parametrize("role", MAY)
def test_no_role_manages_accounts(role):
    assert staff(role=role).get("/admin/auth/user/").status_code == 403


def test_the_menu_shows_permitted_pages(mongo):
    page = staff(role="auditor").get("/admin/").content.decode()

    assert 'href="/admin/admin/logentry/"' in page
    assert 'href="/admin/auth/user/"' not in page


def test_no_role_adds_or_deletes_log_entries(alice):
    created = conversation(alice)
    auditor = staff(role="auditor")
    auditor.get(url_of(created["id"]))
    [entry] = LogEntry.objects.all()

    one = f"/admin/admin/logentry/{entry.pk}"
    statuses = [
        auditor.post("/admin/admin/logentry/add/").status_code,
        auditor.post(f"{one}/change/", {"change_message": "x"}).status_code,
        auditor.post(f"{one}/delete/", {"post": "yes"}).status_code,
    ]

    assert statuses == [403, 403, 403]
    assert LogEntry.objects.get().get_change_message() == "Viewed."
