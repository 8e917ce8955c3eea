"""A 409 names the states that would allow the request, alone and in bulk."""

import pytest

from conversations import states
from conversations.writes import bulk as actions
from conversations.writes import edits, updates
from tests.factories import PATH, conversation

EDIT = ["active", "archived"]
PURGE = ["deleted"]
RESTORE_FIRST = (
    "The conversation is in the trash. Only an active or archived conversation allows this: "
    "restore it first."
)
REFUSED = [
    ("PATCH", "", {"title": "x"}, "deleted", EDIT),
    ("PATCH", "", {"status": "active"}, "deleted", EDIT),
    ("POST", "/archive", {}, "deleted", EDIT),
    ("POST", "/pin", {}, "deleted", EDIT),
    ("POST", "/unpin", {}, "deleted", EDIT),
    ("POST", "/revert", {"version": 1, "fields": ["title"]}, "deleted", EDIT),
    ("POST", "/duplicate", {}, "deleted", EDIT),
    ("DELETE", "?mode=purge", {}, "active", PURGE),
    ("DELETE", "?mode=purge", {}, "archived", PURGE),
]


def in_state(client, state):
    return conversation(client, *[name for name in (state,) if name != "active"])


@pytest.mark.parametrize(("method", "path", "body", "state", "allowed"), REFUSED)
def test_a_conflict_names_the_present_and_the_allowed_states(
    alice, method, path, body, state, allowed
):
    created = in_state(alice, state)

    response = getattr(alice, method.lower())(f"{PATH}/{created['id']}{path}", body)

    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (409, "CONVERSATION_STATE_CONFLICT")
    assert error["details"] == {"status": state, "allowed_from": allowed}
    word = {"active": "active", "archived": "archived", "deleted": "in the trash"}[state]
    assert error["message"].startswith(f"The conversation is {word}. Only ")
    if allowed == EDIT:
        assert error["message"] == RESTORE_FIRST


@pytest.mark.parametrize(
    ("action", "more", "state", "allowed"),
    [
        *((name, {}, "deleted", EDIT) for name in ("archive", "pin", "unpin")),
        *((name, {"tags": ["x"]}, "deleted", EDIT) for name in ("tag", "untag")),
        *(("purge", {}, state, PURGE) for state in EDIT),
    ],
)
@pytest.mark.parametrize("dry_run", [False, True])
def test_a_bulk_result_says_the_same(alice, action, more, state, allowed, dry_run):
    created = in_state(alice, state)
    body = {"action": action, "ids": [created["id"]], "dry_run": dry_run} | more

    [result] = alice.post(f"{PATH}/bulk", body).json()["results"]

    assert (result["status"], result["code"]) == (409, "CONVERSATION_STATE_CONFLICT")
    assert result["details"] == {"status": state, "allowed_from": allowed}
    assert result["message"].endswith("first.")


def test_a_bulk_result_names_an_exceeded_limit_and_an_absent_conversation(alice):
    full = conversation(alice, tags=[str(number) for number in range(10)])
    body = {"action": "tag", "tags": ["x"], "ids": [full["id"], "0" * 24]}

    exceeded, absent = alice.post(f"{PATH}/bulk", body).json()["results"]

    assert exceeded["details"]["errors"] == [
        {"pointer": "/tags_add", "code": "max_length", "message": "Use at most 10 tags."}
    ]
    assert (absent["message"], absent["details"]) == ("Conversation not found", {})


def test_a_conflict_is_explained_in_spanish(alice):
    created = conversation(alice)

    response = alice.delete(f"{PATH}/{created['id']}?mode=purge", headers={"Accept-Language": "es"})

    assert response.json()["detail"] == (
        "La conversación está activa. Solo una conversación en la papelera se puede borrar "
        "definitivamente: hay que moverla antes a la papelera (DELETE)."
    )


def test_each_update_has_a_message_for_each_state_that_it_rejects():
    every = [edits.edit({}), updates.UNARCHIVE]
    every += map(actions.update_for, ("archive", "restore", "trash", "purge", "pin", "tag"))
    rejected = [
        (state, tuple(updates.merged(update.templates).states))
        for update in every
        for state in states.ANY_STATE
        if state not in updates.merged(update.templates).states
    ]

    assert len(rejected) > 3
    assert all(str(states.conflict_message(*each)) for each in rejected)
