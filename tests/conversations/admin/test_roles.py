"""Selections and pages of each role. tests/test_access.py has all routes."""

import pytest

from tests.conversations.admin.browser import LIST, confirm, select, staff, url_of
from tests.factories import PATH, conversation

MAY = {"support": {"restore"}, "operator": {"restore", "bulk", "export"}, "auditor": set()}


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
def test_every_role_reads_conversations_and_their_history(role, alice):
    created = conversation(alice, "archived")
    client = staff(role=role)

    page = client.get(url_of(created["id"])).content.decode()

    assert client.get(LIST).status_code == 200
    assert "Version 2" in page
    assert ("/act/restore/" in page) == ("restore" in MAY[role])


def test_the_menu_shows_permitted_pages(mongo):
    page = staff(role="auditor").get("/admin/").content.decode()

    assert 'href="/admin/admin/logentry/"' in page
    assert 'href="/admin/auth/user/"' not in page
