"""The page of one conversation, its history and its actions."""

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.test import Client

from tests.conversations.admin.browser import (
    LIST,
    report,
    select,
    shown,
    staff,
    store,
    text,
    url_of,
)
from tests.factories import PATH, conversation

LOG = "/admin/admin/logentry/"
ACTIONS = ["archive", "restore", "trash", "hold", "release"]


def test_a_conversation_is_shown_in_rows_and_not_as_json(viewer, mongo):
    [stored] = store(
        mongo, 1, title="<b>Café</b>", tags=["casual", "noche"], custom={"origin": "web"}
    )

    page = text(response := viewer.get(f"{LIST}{stored['_id']}/change/"))

    assert "<b>Café</b>" in page
    assert "&lt;b&gt;Café&lt;/b&gt;" in response.content.decode()
    assert "temperature 0.7 max_tokens 2,048" in page
    assert "stop_sequences -" in page
    assert "casual noche" in page
    assert "origin web" in page
    assert "messages 0 tokens 0" in page
    assert "created 2026-11-24 12:00:00" in page
    assert "trashed -" in page


def test_the_list_has_no_action_to_delete(mongo):
    [stored] = store(mongo, 1)
    everything = Client()
    everything.force_login(User.objects.create_superuser("root"))

    select(everything, "delete_selected", stored["_id"], post="yes")

    assert mongo["conversations"].count_documents({}) == 1


# History


def test_the_history_shows_what_each_version_changed(viewer, alice):
    created = conversation(alice, title="Before", tags=["old", "kept"], custom={"a": "1"})
    path = f"{PATH}/{created['id']}"
    alice.patch(path, {"title": "After", "tags": ["kept", "new"], "custom": {"a": "2"}})
    alice.patch(path, {"settings": {"temperature": 0.5}})

    page = text(viewer.get(url_of(created["id"])))

    assert "title Before After" in page
    assert "tags old new" in page
    assert "custom: a 1 2" in page
    assert "LLM settings: temperature 0.7 0.5" in page
    assert page.index("Version 3") < page.index("Version 2") < page.index("as it was created")


def test_the_history_is_in_words(viewer, alice, mongo):
    created = conversation(alice, "pinned")
    path = f"{PATH}/{created['id']}"
    for step in ("unpin", "archive", "trash", "restore", "restore", "trash", "restore"):
        alice.delete(path) if step == "trash" else alice.post(f"{path}/{step}")
    [document] = mongo["conversations"].find()

    page = text(viewer.get(url_of(created["id"])))
    history = page[page.index("History") :]

    events = ["pinned", "unpinned", "moved to the archive", "moved to the trash"]
    events += ["restored from the trash to the archive", "restored from the archive"]
    events += ["moved to the trash", "restored from the trash"]
    for number, (event, revision) in enumerate(
        zip(events, document["revisions_by_version"].values(), strict=True), start=2
    ):
        assert f"Version {number} : {event} · {revision['at']:%Y-%m-%d %H:%M:%S} UTC" in history
        assert f"its user · request id {revision['request_id']}" in history
    for word in ("active", "deleted", "archived ", "state", "before", "purged after"):
        assert word not in history
    created_at = f"{document['metadata']['created_at']:%Y-%m-%d %H:%M:%S}"
    assert f"Version 1 · {created_at} UTC · as it was created" in history


def test_the_oldest_version_has_its_time_after_50_revisions(viewer, alice, mongo):
    created = conversation(alice)
    for number in range(51):
        alice.patch(f"{PATH}/{created['id']}", {"title": str(number)})
    [document] = mongo["conversations"].find()

    page = text(viewer.get(url_of(created["id"])))

    at = f"{document['revisions_by_version']['3']['previous_at']:%Y-%m-%d %H:%M:%S}"
    assert f"Version 2 · {at} UTC · earlier versions are no longer stored" in page


def test_a_version_has_an_address(viewer, alice):
    created = conversation(alice)
    alice.patch(f"{PATH}/{created['id']}", {"title": "After"})

    page = viewer.get(url_of(created["id"])).content.decode()

    for number in (1, 2):
        assert f'id="version-{number}"' in page
        assert f'href="#version-{number}"' in page


def test_ids_can_be_copied(viewer, alice):
    created = conversation(alice)
    alice.patch(f"{PATH}/{created['id']}", {"title": "After"}, headers={"X-Request-ID": "req-1"})

    page = viewer.get(url_of(created["id"])).content.decode()

    for value in (created["id"], "alice", "req-1"):
        assert f'data-copy="{value}"' in page


def test_a_held_conversation_has_no_time_of_a_purge(ops, alice):
    created = conversation(alice, "deleted")
    before = text(ops.get(url_of(created["id"])))
    ops.post(url_of(created["id"], "act", "hold"), {"reason": "Case 12"})

    assert "purged after 20" in before
    assert "purged after" not in text(ops.get(url_of(created["id"])))


def test_the_question_before_the_trash_has_its_days(ops, alice, settings):
    settings.TRASH_DAYS = 7
    created = conversation(alice)

    for page in (
        ops.get(url_of(created["id"], "act", "trash")),
        select(ops, "trash", created["id"]),
        ops.get(f"{LIST}all/trash/?user=alice"),
    ):
        assert "Move to the trash, which is emptied after 7 days?" in text(page)


def test_a_view_of_a_conversation_is_logged(viewer, alice):
    created = conversation(alice, title="Secret")

    viewer.get(url_of(created["id"]))

    [entry] = LogEntry.objects.all()
    assert (entry.user.username, entry.object_id) == ("viewer", created["id"])
    assert entry.get_change_message() == "Viewed."
    assert "Secret" not in entry.object_repr


def test_the_log_is_searched_by_conversation_and_by_staff(alice, mongo):
    looked_at, other = conversation(alice), conversation(alice)
    auditor = staff(role="auditor", name="auditor")
    for created in (looked_at, other):
        auditor.get(url_of(created["id"]))

    of_one = auditor.get(url_of(looked_at["id"], "history"), follow=True)
    by_one = auditor.get(LOG, {"q": "auditor"})
    by_unknown = auditor.get(LOG, {"q": "unknown"})

    assert looked_at["id"] in text(of_one)
    assert other["id"] not in text(of_one)
    assert len(by_one.context["cl"].result_list) == 2
    assert len(by_unknown.context["cl"].result_list) == 0


def test_a_revert_shows_its_changes_first(ops, alice):
    created = conversation(alice, title="Before")
    alice.patch(f"{PATH}/{created['id']}", {"title": "After"})

    page = ops.get(url_of(created["id"], "revert", "1"))

    assert "title After Before" in text(page)
    assert alice.get(f"{PATH}/{created['id']}").json()["title"] == "After"


def test_a_revert_equals_that_of_the_api_with_staff_as_actor(ops, alice):
    created = conversation(alice, "pinned", title="Before", tags=["old"])
    alice.patch(f"{PATH}/{created['id']}", {"title": "After", "tags": ["new"]})

    response = ops.post(url_of(created["id"], "revert", "2"))

    assert report(response) == "Reverted."
    after = alice.get(f"{PATH}/{created['id']}").json()
    assert (after["title"], after["tags"], after["version"]) == ("Before", ["old"], 4)
    [revision] = alice.get(f"{PATH}/{created['id']}/history?limit=1").json()["revisions"]
    assert (revision["by"], revision["client"]) == ("staff:ops", "console")
    found, listed = (alice.get(path).json() for path in (f"{PATH}?search=before", PATH))
    assert found["conversations"] == listed["conversations"]


@pytest.mark.parametrize("version", ["0", "2", "999"])
def test_an_unknown_version_leads_back_with_the_reason(ops, alice, version):
    created = conversation(alice)

    response = ops.get(url_of(created["id"], "revert", version))

    assert report(response)
    assert response.headers["Location"] == url_of(created["id"])


def test_a_revert_in_the_trash_is_rejected_as_in_the_api(ops, alice):
    created = conversation(alice)
    alice.patch(f"{PATH}/{created['id']}", {"title": "After"})
    alice.delete(f"{PATH}/{created['id']}")

    response = ops.post(url_of(created["id"], "revert", "1"))

    assert report(response).startswith("The conversation is in the trash. ")


# Actions


@pytest.mark.parametrize("role", ["support", "operator", "auditor"])
def test_each_role_sees_the_actions_of_staff_and_past_holds(ops, alice, role):
    created, other = conversation(alice), conversation(alice, title="Other")
    for name, reason in (("hold", "Case 12"), ("release", "Case closed"), ("archive", "")):
        ops.post(url_of(created["id"], "act", name), {"reason": reason})
    ops.post(url_of(other["id"], "act", "trash"))
    ops.get(url_of(created["id"]))

    page = text(staff(role=role, name="reader").get(url_of(created["id"])))

    lines = ["Archived.", "Legal hold released: Case closed", "Legal hold placed: Case 12"]
    places = [page.index(f"ops · {line}") for line in lines]
    assert places == sorted(places)
    shown_actions = page[page.index("Actions by staff") : page.index("History")]
    assert "Viewed" not in shown_actions
    assert "trash" not in shown_actions
    assert ("Actions and views by staff" in page) == (role == "auditor")


def test_actions_of_staff_are_shown_after_a_purge(ops, alice):
    created = conversation(alice)
    ops.post(url_of(created["id"], "act", "trash"))
    alice.delete(f"{PATH}/{created['id']}?mode=purge")

    assert "ops · Moved to the trash." in text(ops.get(url_of(created["id"])))


def test_actions_of_staff_are_shown_in_the_language_of_the_reader(ops, alice):
    created = conversation(alice)
    alice.patch(f"{PATH}/{created['id']}", {"title": "After"})
    ops.post(url_of(created["id"], "act", "hold"), {"reason": "Caso 12"})
    ops.post(url_of(created["id"], "revert", "1"))

    page = text(ops.get(url_of(created["id"]), headers={"Accept-Language": "es"}))

    assert "ops · Retención legal iniciada: Caso 12" in page
    assert "ops · Revertida a la versión 1." in page


@pytest.mark.parametrize(
    ("states", "name", "status"),
    [
        ([], "archive", "archived"),
        (["archived"], "restore", "active"),
        (["deleted"], "restore", "active"),
        ([], "trash", "deleted"),
    ],
)
def test_an_action_requires_confirmation(ops, alice, states, name, status):
    created = conversation(alice, *states)
    address = url_of(created["id"], "act", name)

    ops.get(address)
    before = alice.get(f"{PATH}/{created['id']}").json()["status"]
    response = ops.post(address)

    assert before == created["status"]
    assert alice.get(f"{PATH}/{created['id']}").json()["status"] == status
    assert response.headers["Location"] == url_of(created["id"])


def test_only_possible_actions_are_offered(ops, alice):
    page = ops.get(url_of(conversation(alice)["id"])).content.decode()

    assert [name for name in ACTIONS if f"/act/{name}/" in page] == ["archive", "trash", "hold"]


def test_a_hold_needs_a_reason_and_shows_on_the_page(ops, alice):
    created = conversation(alice)
    address = url_of(created["id"], "act", "hold")

    without = ops.post(address, {"reason": " "})
    ops.post(address, {"reason": "Case 12"})
    page = text(ops.get(url_of(created["id"])))

    assert "A reason is required. Nothing was changed." in text(without)
    assert "Legal hold by ops reason Case 12 since" in page
    assert "Release the legal hold" in page


@pytest.mark.parametrize("step", [["act", "purge"], ["act", "nothing"]])
def test_an_unknown_action_is_404(ops, alice, step):
    assert ops.post(url_of(conversation(alice)["id"], *step)).status_code == 404


def test_an_absent_conversation_is_not_shown_or_changed(ops):
    absent = "a" * 24

    assert ops.get(url_of(absent)).status_code == 404
    assert ops.get(url_of("nonsense")).status_code == 404
    assert ops.post(url_of(absent, "act", "archive")).status_code == 404
    assert ops.post(url_of(absent, "revert", "1")).status_code == 404


def test_a_conversation_links_to_all_of_its_user(viewer, mongo):
    [stored, _] = store(mongo, 2, user_id="ana@example.org")
    store(mongo, 1, user_id="bob")

    page = viewer.get(url_of(stored["_id"])).content.decode()

    assert f'href="{LIST}?user=ana%40example.org"' in page
    assert len(shown(viewer.get(LIST, {"q": "ana@example.org"}))) == 2
