"""Run the publisher, read the event log, and compare it with the conversations."""

from django.core.management import call_command

from conversation_service.mongodb.connection import collection
from conversations import documents, history
from conversations.events import log


def publish():
    call_command("publish_events", once=True)


def state():
    return log.event_state().find_one({"_id": "publisher"})


def set_state(**values):
    log.event_state().update_one({"_id": "publisher"}, {"$set": values})


def events(conversation_id=None):
    found = log.read(0, limit=100_000)
    return [e for e in found if conversation_id in {None, str(e["conversation_id"])}]


def ids(conversation_id=None):
    return [each["_id"] for each in events(conversation_id)]


def kinds(conversation_id=None):
    return [
        (each["type"].removeprefix("conversation."), each["version"])
        for each in events(conversation_id)
    ]


def check_complete():
    """Compare the log with all stored conversations, which were created during the test."""
    rows = collection("conversations").find({}, documents.WITH_HISTORY)
    expected = set()
    for row in rows:
        versions = [each["version"] for each in history.exported(documents.complete(row))]
        expected |= {f"{row['_id']}_v{version}" for version in (1, *versions)}
    found = events()
    assert {each["_id"] for each in found} == expected
    check_order(found)


def check_order(found):
    """Positions have no gaps, and each conversation's events are in the order of its versions."""
    assert [each["seq"] for each in found] == [*range(1, len(found) + 1)]
    latest = {}
    for each in found:
        id_ = each["conversation_id"]
        assert each["version"] == latest.get(id_, 0) + 1, (id_, each["version"])
        latest[id_] = each["version"]
