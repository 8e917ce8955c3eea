"""The output of `inspect_conversation`."""

import json
import logging

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command

from conversation_service import clock
from conversation_service.observability.context import user_id
from conversation_service.observability.logs import AddRequest
from conversations import documents
from conversations.schema import INDEXES
from conversations.writes import holds
from tests.factories import PATH, conversation


@pytest.fixture
def inspect(capsys):
    def inspect(id_, *options):
        capsys.readouterr()
        call_command("inspect_conversation", str(id_), "--json", *options)
        return json.loads(capsys.readouterr().out)

    return inspect


def by_hand(mongo, **fields):
    """Insert a document that the service cannot have written."""
    document = documents.new(user_id="alice", character_id="luna", now=clock.now(), tags=["a"])
    mongo.command("collMod", "conversations", validationLevel="off")
    try:
        mongo["conversations"].insert_one(document | fields)
    finally:
        call_command("setup_indexes", verbosity=0)
    return document["_id"]


def test_the_stored_document_is_shown(alice, inspect, mongo):
    created = conversation(alice, "archived", "pinned", title="Secret plans", tags=["private"])
    found = inspect(created["id"])

    assert found["exists"] is True
    assert (found["id"], found["user_id"], found["version"]) == (created["id"], "alice", 3)
    assert (found["status"], found["tombstone"]) == ("archived", False)
    assert found["counters"]["message_count"] == 0
    assert found["clocks"]["created_at"] == created["metadata"]["created_at"]
    assert found["hold"] is None
    [size] = mongo["conversations"].aggregate([{"$project": {"size": {"$bsonSize": "$$ROOT"}}}])
    assert found["sizes"]["bytes"] == size["size"]
    assert found["sizes"]["revisions"] == 2
    assert found["drift"] == []
    assert [one["changed"] for one in found["last_revisions"]] == [
        ["pinned_at"],
        ["status", "archived_at"],
    ]


def test_texts_of_users_are_shown_only_on_request(alice, capsys):
    created = conversation(alice, title="Secret plans", tags=["private"], custom={"k": "personal"})
    alice.patch(f"{PATH}/{created['id']}", {"title": "Other plans"})

    for options in ([], ["--json"]):
        call_command("inspect_conversation", created["id"], *options)
        printed = capsys.readouterr().out
        assert not [word for word in ("plans", "private", "personal") if word in printed]
        call_command("inspect_conversation", created["id"], "--words", *options)
        printed = capsys.readouterr().out
        assert [word for word in ("Other plans", "private", "personal") if word in printed]


def test_the_hash_of_the_user_equals_that_in_the_logs(alice, inspect):
    record = logging.makeLogRecord({})
    of_alice = user_id.set("alice")
    AddRequest(settings.LOGGING["filters"]["request"]["key"]).filter(record)
    user_id.reset(of_alice)

    assert inspect(conversation(alice)["id"])["user_hash"] == record.__dict__["user.hash"]


def test_each_index_is_checked_for_the_document(alice, inspect):
    active = inspect(conversation(alice, tags=["a"])["id"])["indexes"]
    deleted = inspect(conversation(alice, "pinned", "deleted")["id"])["indexes"]

    assert active.keys() == {index.document["name"] for index in INDEXES}
    assert active["user_words"] == active["user_characters"] == active["active_idle"] == "indexed"
    assert active["trash_due"] == active["user_status_pinned"] == "left out"
    assert deleted["trash_due"] == "indexed"
    assert deleted["active_idle"] == "left out"


def test_a_missing_index_is_shown(alice, inspect, mongo):
    created = conversation(alice)
    mongo["conversations"].drop_index("user_words")

    found = inspect(created["id"])
    call_command("setup_indexes", verbosity=0)

    assert found["indexes"]["user_words"] == "not built"


def test_a_legal_hold_is_shown_without_its_reason(alice, inspect):
    created = conversation(alice)
    holds.hold("alice", created["id"], by="ops", reason="court")

    assert inspect(created["id"])["hold"].keys() == {"by", "at"}
    assert inspect(created["id"], "--words")["words"]["hold_reason"] == "court"


def test_a_tombstone_is_shown_as_tombstone(alice, inspect):
    created = conversation(alice, "deleted")
    alice.delete(f"{PATH}/{created['id']}?mode=purge")

    found = inspect(created["id"])

    assert (found["tombstone"], found["status"], found["drift"]) == (True, "purged", [])
    assert found["purged_by"] == "user"
    assert found["clocks"]["expires_at"]
    assert found["indexes"]["purged_expiry"] == "indexed"


def test_an_unknown_id_exits_with_1(capsys):
    with pytest.raises(
        CommandError, match="There is neither a conversation nor a tombstone"
    ) as failure:
        call_command("inspect_conversation", "0" * 24, "--json")

    assert failure.value.returncode == 1
    assert json.loads(capsys.readouterr().out) == {"exists": False, "id": "0" * 24}


@pytest.mark.parametrize(
    ("fields", "drift"),
    [
        ({"version": 0}, ["version"]),
        ({"settings": {}, "title_source": "x"}, ["settings", "title_source"]),
        ({"tags": ["a", "b"]}, ["search", "tag_keys", "tag_line"]),
        ({"metadata": None, "keys": None}, ["keys", "metadata"]),
    ],
)
def test_values_that_the_service_cannot_have_written_are_named(mongo, inspect, fields, drift):
    assert inspect(by_hand(mongo, **fields))["drift"] == drift


def test_a_tombstone_with_search_words_is_drift(mongo, inspect):
    drift = inspect(by_hand(mongo, status="purged", expires_at=clock.now()))["drift"]

    assert {"title", "tags", "search"} <= set(drift)


def test_tags_written_by_hand_are_counted_until_repaired(alice, mongo, inspect):
    id_ = by_hand(mongo, tags=["Río", "a"], tag_keys=["a"], tag_line="a\nx")

    overview = alice.get(f"{PATH}/overview")
    assert overview.status_code == 200
    assert overview.json()["tags"] == [{"tag": "a", "count": 1}, {"tag": "x", "count": 1}]
    call_command("reindex_search")
    assert alice.get("/api/v1/tags").json()["tags"][1] == {"tag": "Río", "count": 1}
    assert inspect(id_)["drift"] == []
