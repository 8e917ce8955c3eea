"""Staff act on many conversations at once, after a confirmation."""

import re

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, User
from django.contrib.messages import get_messages

from tests.conversations.admin.browser import (
    LIST,
    confirm,
    report,
    select,
    staff,
    statuses,
    store,
    text,
)
from tests.factories import PATH, client_of, conversation
from tests.failpoints import failing

MAX_TIME_EXPIRED = 50


@pytest.mark.parametrize(
    ("action", "before", "status", "said"),
    [
        ("archive", [], "archived", "Archived: 2 conversations."),
        ("restore", ["archived"], "active", "Restored: 2 conversations."),
        ("restore", ["archived", "deleted"], "archived", "Restored: 2 conversations."),
        ("trash", ["archived"], "deleted", "Moved to the trash: 2 conversations."),
    ],
)
def test_an_action_has_the_effect_of_the_api(ops, action, before, status, said):
    owners = [client_of("alice"), client_of("bob")]
    chosen = [(owner, conversation(owner, *before)) for owner in owners]

    response = confirm(ops, action, *(created["id"] for _, created in chosen))

    assert report(response) == said
    for owner, created in chosen:
        after = owner.get(f"{PATH}/{created['id']}").json()
        assert (after["status"], after["version"]) == (status, created["version"] + 1)
        assert after["metadata"]["last_activity"] == created["metadata"]["last_activity"]


def test_the_report_counts_skipped_conversations_with_reasons(ops, alice):
    active = conversation(alice)
    archived = conversation(alice, "archived")
    trashed = conversation(alice, "deleted")
    purged = conversation(alice, "deleted")
    alice.delete(f"{PATH}/{purged['id']}?mode=purge")

    response = confirm(ops, "archive", *(c["id"] for c in (active, archived, trashed, purged)))

    assert report(response) == (
        "Archived: 1 conversation. "
        "Unchanged: 1 (no longer in this list). "
        "Unchanged: 1 (The state of the conversation does not allow this). "
        "Unchanged: 1 (there was nothing to change)."
    )
    assert alice.get(f"{PATH}/{archived['id']}").json() == archived


def test_an_action_applies_the_filter_of_the_list(ops, alice):
    archived = conversation(alice, "archived")

    response = confirm(ops, "trash", archived["id"], query="?status__exact=active")

    assert "Unchanged: 1 (no longer in this list)." in report(response)
    assert alice.get(f"{PATH}/{archived['id']}").json() == archived


def test_an_action_is_logged_without_texts_of_the_user(ops, alice):
    changed = conversation(alice, title="Secret")
    untouched = conversation(alice, "archived", title="Secret too")

    confirm(ops, "archive", changed["id"], untouched["id"])

    [entry] = LogEntry.objects.all()
    assert (entry.user.username, entry.object_id) == ("ops", changed["id"])
    assert (entry.get_change_message(), entry.object_repr) == ("Archived.", changed["id"])


def test_staff_with_read_permission_cannot_act(viewer, mongo):
    [stored] = store(mongo, 1)

    page = viewer.get(LIST)
    confirm(viewer, "archive", stored["_id"])

    assert page.context["action_form"] is None
    assert statuses(mongo) == ["active"]


def test_all_matches_can_be_selected_across_pages(ops, mongo):
    stored = store(mongo, 60)
    store(mongo, 1, user_id="bob")

    response = confirm(ops, "archive", stored[0]["_id"], query="?q=alice", select_across="1")

    assert report(response) == "Archived: 60 conversations."
    assert statuses(mongo) == ["active"] + ["archived"] * 60


def test_more_than_a_thousand_conversations_are_rejected(ops, mongo):
    stored = store(mongo, 1001)

    response = confirm(ops, "trash", stored[0]["_id"], select_across="1")

    assert report(response).startswith("More than 1,000 conversations match")
    assert set(statuses(mongo)) == {"active"}


def test_a_write_that_times_out_is_not_reported_as_a_slow_search(ops, mongo):
    [stored] = store(mongo, 1)

    with failing(commands=["update"], errorCode=MAX_TIME_EXPIRED):
        response = confirm(ops, "archive", stored["_id"])

    assert response.status_code == 503
    assert "check its effect first" in text(response)


def test_an_invalid_selection_is_rejected(ops):
    assert select(ops, "archive", "nonsense").status_code == 400


# Undo


def undo(client, response):
    """Press the button in the message about an action."""
    return client.post(f"{LIST}undo/", {"token": undo_token(response)})


def undo_token(response):
    """Return the token of the button, or None if the message has no button."""
    *_, message = get_messages(response.wsgi_request)
    found = re.search(r'name="token" value="(\w+)"', str(message))
    return found and found[1]


@pytest.mark.parametrize(
    ("action", "before", "data"),
    [
        ("archive", [[], []], {}),
        ("trash", [[], ["archived"]], {}),
        ("restore", [["archived"], ["archived", "deleted"], ["deleted"]], {}),
        ("hold", [[], ["deleted"]], {"reason": "Case 12"}),
    ],
)
def test_an_undo_restores_the_former_states(ops, mongo, action, before, data):
    owners = ["alice", "bob", "carol"]
    chosen = [conversation(client_of(o), *s) for o, s in zip(owners, before, strict=False)]
    untouched = store(mongo, 1, status="archived")
    former = statuses(mongo)

    done = confirm(ops, action, *(created["id"] for created in chosen), query="?pinned=no", **data)
    undone = undo(ops, done)

    assert report(undone) == f"Undone: {len(chosen)} conversations."
    assert undone.headers["Location"] == f"{LIST}?pinned=no"
    assert statuses(mongo) == former
    assert mongo["conversations"].count_documents({"hold": {"$ne": None}}) == 0
    assert mongo["conversations"].find_one({"_id": untouched[0]["_id"]})["version"] == 1


def test_an_undo_has_only_the_conversations_that_the_action_changed(ops, alice):
    active, archived = conversation(alice), conversation(alice, "archived")

    done = confirm(ops, "archive", active["id"], archived["id"])
    undo(ops, done)

    assert alice.get(f"{PATH}/{active['id']}").json()["status"] == "active"
    assert alice.get(f"{PATH}/{archived['id']}").json() == archived


def test_an_undo_leaves_conversations_that_changed_since(ops, alice):
    kept, changed = conversation(alice), conversation(alice)
    done = confirm(ops, "archive", kept["id"], changed["id"])
    alice.delete(f"{PATH}/{changed['id']}")

    undone = undo(ops, done)

    assert report(undone).startswith("Undone: 1 conversation. Unchanged: 1")
    assert alice.get(f"{PATH}/{changed['id']}").json()["status"] == "deleted"


def test_an_undo_leaves_the_hold_of_another_account(ops, alice, mongo):
    created = conversation(alice)
    done = confirm(ops, "hold", created["id"], reason="Case 12")
    mongo["conversations"].update_one({}, {"$set": {"hold.by": "root"}})

    undo(ops, done)

    assert mongo["conversations"].find_one()["hold"]["by"] == "root"


def test_an_undo_works_once_and_only_for_the_last_action(ops, alice):
    first = confirm(ops, "archive", conversation(alice)["id"])
    second = confirm(ops, "archive", conversation(alice)["id"])

    answers = [report(undo(ops, response)) for response in (first, second, second)]

    refused = "This can no longer be undone."
    assert answers == [refused, "Undone: 1 conversation.", refused]


def test_a_release_offers_no_undo(ops, alice):
    created = conversation(alice)
    confirm(ops, "hold", created["id"], reason="Case 12")

    done = confirm(ops, "release", created["id"], reason="Closed")

    assert report(done) == "Legal hold released: 1 conversation."
    assert undo_token(done) is None


def test_an_undo_is_offered_only_if_the_roles_allow_each_step(alice):
    """A restore from the trash is undone by a move to the trash."""
    permissions = ["view_conversation", "archive_conversation", "bulk_conversation"]
    helper = staff(*permissions, name="helper")
    trashed, archived = conversation(alice, "deleted"), conversation(alice, "archived")

    both = confirm(helper, "restore", trashed["id"], archived["id"])
    alice.post(f"{PATH}/{archived['id']}/archive")
    only_archived = confirm(helper, "restore", archived["id"])

    assert report(both) == "Restored: 2 conversations."
    assert undo_token(both) is None
    assert report(undo(helper, only_archived)) == "Undone: 1 conversation."


def test_an_undo_without_the_role_for_one_step_changes_nothing(ops, alice, mongo):
    trashed, archived = conversation(alice, "deleted"), conversation(alice, "archived")
    done = confirm(ops, "restore", archived["id"], trashed["id"])
    user = User.objects.get(username="ops")
    operator = user.groups.get()
    user.groups.set([Group.objects.get(name="support")])
    user.user_permissions.add(operator.permissions.get(codename="bulk_conversation"))

    refused = undo(ops, done)
    unchanged = statuses(mongo)
    user.groups.set([operator])

    assert (refused.status_code, unchanged) == (403, ["active", "active"])
    assert report(undo(ops, done)) == "Undone: 2 conversations."


def test_an_undo_requires_the_role(ops, mongo):
    [stored] = store(mongo, 1)
    done = confirm(ops, "archive", stored["_id"])
    User.objects.get(username="ops").groups.clear()

    assert undo(ops, done).status_code == 403
    assert ops.get(f"{LIST}undo/").status_code == 404
    assert statuses(mongo) == ["archived"]
