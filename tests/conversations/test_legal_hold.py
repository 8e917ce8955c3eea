"""A legal hold: staff prevent a purge, and the user sees only the error of the purge."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.contrib.admin.models import LogEntry
from django.core.management import call_command

from conversations import collection
from conversations.exceptions import ConversationNotFound
from conversations.writes import holds
from tests.conversations.admin.browser import LIST, report, staff, text
from tests.factories import PATH, client_of, conversation


@pytest.fixture
def ops():
    return staff(role="operator")


def act(ops, action, *created, reason="Case 12"):
    chosen = [c["id"] for c in created]
    response = ops.post(
        LIST,
        {
            "action": action,
            "index": "0",
            "_selected_action": chosen,
            "reason": reason,
            "confirmed": "yes",
        },
    )
    return text(response) if response.status_code == 200 else report(response)


def held(ops, client, *states):
    created = conversation(client, *states)
    assert act(ops, "hold", created) == "Legal hold placed: 1 conversation."
    return created


def purge(client, created, **headers):
    return client.delete(f"{PATH}/{created['id']}?mode=purge", headers=headers)


def read(client, created):
    return client.get(f"{PATH}/{created['id']}").json()


def test_a_held_conversation_cannot_be_purged_until_released(ops, alice):
    created = held(ops, alice, "deleted")

    refused = purge(alice, created)
    assert act(ops, "release", created) == "Legal hold released: 1 conversation."
    done = purge(alice, created)

    assert (refused.status_code, done.status_code) == (409, 204)
    assert refused.json()["error"]["code"] == "LEGAL_HOLD"


def test_a_bulk_purge_skips_held_conversations(ops, alice):
    kept, free = held(ops, alice, "deleted"), conversation(alice, "deleted")

    response = alice.post(f"{PATH}/bulk", {"action": "purge", "ids": [kept["id"], free["id"]]})

    results = response.json()["results"]
    assert [(r["status"], r["code"]) for r in results] == [(409, "LEGAL_HOLD"), (200, None)]
    assert read(alice, kept) == kept


def test_every_change_except_purge_is_allowed(ops, alice):
    created = held(ops, alice)
    path = f"{PATH}/{created['id']}"

    statuses = [
        alice.patch(path, {"title": "New"}).status_code,
        alice.delete(path).status_code,
        alice.post(f"{path}/restore").status_code,
        alice.delete(path).status_code,
        purge(alice, created).status_code,
    ]

    assert statuses == [200, 200, 200, 200, 409]


def test_only_the_purge_error_reveals_the_hold(ops, alice):
    created = conversation(alice, "deleted")
    changed_at = collection.conversations().distinct("changed_at")
    path = f"{PATH}/{created['id']}"
    before = [
        alice.get(address).content
        for address in (path, f"{path}/history", f"{PATH}?status=deleted")
    ]
    exported = alice.get(f"{PATH}/export").getvalue()

    act(ops, "hold", created)

    after = [alice.get(a).content for a in (path, f"{path}/history", f"{PATH}?status=deleted")]
    assert after == before
    assert alice.get(f"{PATH}/export").getvalue() == exported
    assert b"Case" not in purge(alice, created).content
    assert collection.conversations().distinct("changed_at") == changed_at


def test_a_wrong_state_or_version_is_reported_before_the_hold(ops, alice, bob):
    active, trashed = held(ops, alice), held(ops, alice, "deleted")

    assert purge(alice, active).json()["error"]["code"] == "CONVERSATION_STATE_CONFLICT"
    assert purge(alice, trashed, **{"If-Match": '"v1"'}).status_code == 412
    assert purge(bob, trashed).status_code == 404


def test_the_console_shows_and_logs_the_hold(ops, alice):
    created = held(ops, alice)
    page = ops.get(f"{LIST}{created['id']}/change/").content.decode()
    act(ops, "release", created, reason="Case closed")

    assert "c-badge c-held" in page
    assert "Legal hold placed: Case 12" in page
    after = ops.get(f"{LIST}{created['id']}/change/").content.decode()
    assert "c-badge c-held" not in after
    assert "Legal hold placed: Case 12" in after  # past holds stay on the page
    logged = [entry.get_change_message() for entry in LogEntry.objects.order_by("pk")]
    assert logged == [
        "Legal hold placed: Case 12",
        "Viewed.",
        "Legal hold released: Case closed",
        "Viewed.",
    ]


@pytest.mark.parametrize("action", ["hold", "release"])
def test_a_reason_is_required(ops, alice, action, mongo):
    created = conversation(alice)

    page = act(ops, action, created, reason="  ")

    assert "A reason is required. Nothing was changed." in page
    assert mongo["conversations"].find_one()["hold"] is None


def test_a_second_hold_does_not_replace_the_first(ops, alice, mongo):
    created = held(ops, alice)

    page = act(ops, "hold", created, reason="Another")

    assert "Unchanged: 1 (there was nothing to change)." in page
    assert mongo["conversations"].find_one({"title": created["title"]})["hold"]["reason"] == (
        "Case 12"
    )


def test_reasons_are_stored_literally(ops, alice, mongo):
    created = conversation(alice)

    act(ops, "hold", created, reason="$$ROOT")

    assert mongo["conversations"].find_one()["hold"]["reason"] == "$$ROOT"


def test_staff_with_read_permission_cannot_hold(alice, mongo):
    created = conversation(alice)

    act(staff("view_conversation"), "hold", created)

    assert mongo["conversations"].find_one()["hold"] is None


def test_a_document_without_the_hold_field_can_be_held_and_purged(ops, alice, mongo):
    one, other = conversation(alice, "deleted"), conversation(alice, "deleted")
    mongo["conversations"].update_many({}, {"$unset": {"hold": ""}})

    act(ops, "hold", one)

    assert ops.get(f"{LIST}{other['id']}/change/").status_code == 200
    assert [purge(alice, one).status_code, purge(alice, other).status_code] == [409, 204]


def test_a_concurrent_hold_or_purge_wins(alice, mongo):
    ids = [conversation(alice, "deleted")["id"] for _ in range(20)]

    def hold(id_):
        try:
            return holds.hold("alice", id_, by="ops", reason="x")
        except ConversationNotFound:
            return False

    with ThreadPoolExecutor(8) as threads:
        purges = [threads.submit(purge, client_of("alice"), {"id": id_}) for id_ in ids]
        held_ids = [threads.submit(hold, id_) for id_ in ids]

    purged = [future.result().status_code == 204 for future in purges]
    assert [not future.result() for future in held_ids] == purged


def test_commands_skip_held_conversations(ops, alice, mongo, capsys):
    created = held(ops, alice, "deleted")
    mongo["conversations"].update_one(
        {}, {"$set": {"purge_at": mongo["conversations"].find_one()["deleted_at"]}}
    )

    call_command("purge_trash")

    assert capsys.readouterr().out == "Trash: 0 purged, 1 kept by a legal hold.\n"
    assert read(alice, created)["status"] == "deleted"
