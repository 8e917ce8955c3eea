"""The event log: positions without gaps, and each event once."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from bson import ObjectId
from pymongo.errors import BulkWriteError

from conversation_service import clock
from conversation_service.http import rendering
from conversation_service.observability.context import NO_REQUEST
from conversations.events import log


def event(id_, number, kind=log.UPDATED, **fields):
    return {
        "_id": f"{id_}_v{number}",
        "type": kind,
        "at": clock.now(),
        "conversation_id": id_,
        "user_id": "alice",
        "version": number,
        "fields": ["title"],
        "by": "user",
        "client": None,
        "request_id": "r-1",
        **fields,
    }


def test_an_empty_log_has_no_positions(mongo):
    assert log.newest_seq() == 0
    assert log.oldest_seq() == 1
    assert log.read(0, limit=10) == []
    assert log.append([]) == 0


def test_events_are_read_in_the_order_in_which_they_were_appended(mongo):
    id_ = ObjectId()
    events = [event(id_, 1, log.CREATED), event(id_, 2), event(id_, 3, log.ARCHIVED)]

    assert log.append(events) == 3

    assert [(found["_id"], found["seq"]) for found in log.read(0, limit=10)] == [
        (f"{id_}_v1", 1),
        (f"{id_}_v2", 2),
        (f"{id_}_v3", 3),
    ]
    assert [found["seq"] for found in log.read(1, limit=1)] == [2]
    assert [found["seq"] for found in log.read(0, types=[log.ARCHIVED], limit=10)] == [3]
    assert log.newest_seq() == 3


def test_an_appended_event_is_never_appended_again_or_changed(mongo):
    id_ = ObjectId()
    log.append([event(id_, 1), event(id_, 2)])

    assert log.append([event(id_, 2, by="staff:ana"), event(id_, 3)]) == 1

    assert [(e["_id"], e["seq"], e["by"]) for e in log.read(1, limit=10)] == [
        (f"{id_}_v2", 2, "user"),
        (f"{id_}_v3", 3, "user"),
    ]


def test_positions_continue_after_all_events_have_expired(mongo):
    log.append([event(ObjectId(), 1), event(ObjectId(), 1)])
    log.event_log().delete_many({})

    assert log.newest_seq() == 2
    assert log.oldest_seq() == 3
    log.append([event(ObjectId(), 1)])
    assert [found["seq"] for found in log.read(0, limit=10)] == [3]


def test_positions_continue_after_the_counter_was_deleted(mongo):
    log.append([event(ObjectId(), 1), event(ObjectId(), 1)])
    log.event_state().delete_many({})

    for _ in range(2):
        log.append([event(ObjectId(), 1), event(ObjectId(), 1)])

    assert [each["seq"] for each in log.read(0, limit=10)] == [1, 2, 3, 4, 5, 6]
    assert log.newest_seq() == 6


def test_positions_have_no_gaps_if_several_processes_append_the_same_events(mongo):
    ids = [ObjectId() for _ in range(20)]
    batches = [[event(id_, version) for id_ in ids] for version in range(1, 11)]

    with ThreadPoolExecutor(4) as pool:
        counts = [pool.submit(lambda: sum(map(log.append, batches))) for _ in range(4)]
        appended = sum(count.result() for count in counts)

    found = log.read(0, limit=1_000)
    assert appended == len(found) == 200
    assert [each["seq"] for each in found] == [*range(1, 201)]
    assert len({each["_id"] for each in found}) == 200
    times = [each["published_at"] for each in found]
    assert times == sorted(times)


def test_a_reader_after_an_event_never_misses_an_earlier_one(mongo):
    batches = [[event(ObjectId(), 1)] for _ in range(60)]
    seen = []

    with ThreadPoolExecutor(3) as pool:
        tasks = [pool.submit(log.append, batch) for batch in batches]
        while len(seen) < len(batches):
            after = seen[-1] if seen else 0
            seen += [found["seq"] for found in log.read(after, limit=100)]
            assert seen == [*range(1, len(seen) + 1)]
        assert sum(task.result() for task in tasks) == len(batches)


def test_a_payload_is_what_consumers_see(mongo):
    id_ = ObjectId()
    at = clock.now().replace(microsecond=5_000)
    log.append([event(id_, 9, log.RESYNC, at=at, first_missed=2, last_missed=9, fields=[])])

    [found] = log.read(0, limit=1)

    assert json.loads(rendering.dumps(log.payload(found))) == {
        "id": f"{id_}_v9",
        "type": "conversation.resync",
        "timestamp": f"{at:%Y-%m-%dT%H:%M:%S}.005Z",
        "sequence": 1,
        "data": {
            "conversation_id": str(id_),
            "user_id": "alice",
            "version": 9,
            "fields": [],
            "by": "user",
            "client": None,
            "request_id": "r-1",
            "first_missed_version": 2,
            "last_missed_version": 9,
        },
    }


def test_an_event_of_an_endpoint_has_no_conversation(mongo):
    without = {"conversation_id": None, "user_id": None, "version": None, "fields": []}
    log.append([event("we_1", 1, log.WEBHOOK_DISABLED, **without)])

    [found] = log.read(0, limit=1)

    assert log.payload(found)["data"]["conversation_id"] is None


@pytest.mark.parametrize(
    ("types", "found"), [([log.PURGED], [1, 302]), ([log.PURGED, log.CREATED], [1, 2, 302])]
)
def test_events_of_rare_types_are_found_without_reading_the_others(mongo, types, found):
    id_ = ObjectId()
    kinds = [log.PURGED, log.CREATED, *[log.UPDATED] * 299, log.PURGED]
    log.append([event(id_, version, kind) for version, kind in enumerate(kinds, 1)])

    mongo.command("profile", 2)
    try:
        rows = log.read(0, types=types, limit=100)
    finally:
        mongo.command("profile", 0)
    [read] = mongo["system.profile"].find({"ns": f"{mongo.name}.event_log", "op": "query"})
    mongo.drop_collection("system.profile")

    assert [row["seq"] for row in rows] == found
    assert read["docsExamined"] == len(found)
    assert "hasSortStage" not in read


@pytest.mark.parametrize("name", ["conversation_id", "user_id", "version", "fields", "by"])
def test_the_database_rejects_an_event_that_lacks_a_field(mongo, name):
    faulty = event(ObjectId(), 1)
    del faulty[name]

    with pytest.raises(BulkWriteError):
        log.append([faulty])


def test_an_event_without_a_request_has_an_empty_request_id(mongo):
    log.append([event(ObjectId(), 1, request_id=NO_REQUEST)])

    [found] = log.read(0, limit=1)

    assert log.payload(found)["data"]["request_id"] == ""


@pytest.mark.parametrize("fault", [{"fields": "title"}, {"version": 0}, {"type": "created"}])
def test_the_database_rejects_a_faulty_event(mongo, fault):
    with pytest.raises(BulkWriteError):
        log.append([event(ObjectId(), 1, **fault)])

    assert log.newest_seq() == 0
