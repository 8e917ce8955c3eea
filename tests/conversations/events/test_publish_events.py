"""manage.py publish_events: each change of a conversation becomes an event, once and in order."""

import json
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta

import pytest
import requests
from bson import Int64, ObjectId, Timestamp

from conversation_service import clock
from conversation_service.development.process import free_port
from conversation_service.http import rendering
from conversation_service.mongodb.connection import collection, database
from conversations import metrics
from conversations.events import log
from conversations.events.publisher import Position, Publisher
from tests.config.processes import eventually
from tests.conversations.events.publishing import (
    check_complete,
    events,
    ids,
    kinds,
    publish,
    set_state,
    state,
)
from tests.conversations.test_export import exported
from tests.conversations.test_import import forget_everything, imported, make_older
from tests.conversations.test_internal import report, service_with
from tests.factories import PATH, client_of, conversation
from tests.failpoints import failing
from tests.running import started

DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def _has_started(mongo):
    """The publisher has started before the changes of a test."""
    publish()


def edit(client, id_, times=1):
    for number in range(times):
        response = client.patch(f"{PATH}/{id_}", {"title": f"Edit {number} {time.monotonic()}"})
        assert response.status_code == 200


def repaired():
    return metrics.EVENTS_REPAIRED._value.get()


# Types and content


def test_each_change_of_a_life_is_an_event(alice):
    id_ = conversation(alice)["id"]
    path = f"{PATH}/{id_}"
    alice.patch(path, {"title": "A new title", "settings": {"temperature": 0.3}})
    alice.post(f"{path}/pin")
    alice.post(f"{path}/archive")
    alice.post(f"{path}/restore")
    alice.post(f"{path}/archive")
    alice.delete(path)
    alice.post(f"{path}/restore")
    alice.delete(path)
    publish()
    alice.delete(f"{path}?mode=purge")
    publish()

    assert kinds() == [
        ("created", 1),
        ("updated", 2),
        ("updated", 3),
        ("archived", 4),
        ("restored", 5),
        ("archived", 6),
        ("trashed", 7),
        ("restored", 8),
        ("trashed", 9),
        ("purged", None),
    ]
    assert ids() == [*(f"{id_}_v{version}" for version in range(1, 10)), f"{id_}_purged"]
    assert [each["seq"] for each in events()] == [*range(1, 11)]


def test_an_event_has_the_time_the_actor_and_the_fields_of_its_revision(alice):
    created = conversation(alice)
    path = f"{PATH}/{created['id']}"
    headers = {"X-Request-ID": "r-77"}
    edited = alice.patch(path, {"tags": ["a"]}, headers=headers).json()
    publish()

    first, second = json.loads(rendering.dumps([*map(log.payload, events())]))

    assert first["timestamp"] == created["metadata"]["created_at"]
    assert second["timestamp"] == edited["metadata"]["updated_at"]
    [revision] = alice.get(f"{path}/history").json()["revisions"]
    assert second["data"] == {
        "conversation_id": created["id"],
        "user_id": "alice",
        "version": 2,
        "fields": ["tags"],
        "by": "user",
        "client": revision["client"],
        "request_id": "r-77",
    }


def test_the_log_has_no_titles_and_no_content(alice):
    marker = "zqmarker"
    texts = {
        "title": f"{marker} title",
        "tags": [marker],
        "custom": {marker: marker},
        "settings": {"stop_sequences": [marker], "extra": {marker: marker}},
    }
    id_ = conversation(alice, **texts)["id"]
    again = json.loads(json.dumps(texts).replace(marker, f"{marker}2"))
    assert alice.patch(f"{PATH}/{id_}", again).status_code == 200
    publish()

    assert len(events()) == 2
    assert marker not in str([*log.event_log().find()]) + str([*log.event_state().find()])


def test_activity_holds_and_expired_tombstones_are_no_events(alice):
    id_ = conversation(alice)["id"]
    service = service_with("conversations:activity")
    assert service.put(f"/internal/v1/conversations/{id_}/activity", report(1)).status_code == 200
    other = conversation(alice, "deleted")["id"]
    alice.delete(f"{PATH}/{other}?mode=purge")
    publish()
    forget_everything()
    publish()

    assert kinds(id_) == [("created", 1)]
    assert ids(other) == [f"{other}_purged"]


def test_a_bulk_action_is_an_event_of_each_conversation(alice):
    created = [conversation(alice)["id"] for _ in range(5)]
    alice.post(f"{PATH}/bulk", {"action": "archive", "ids": created})
    alice.post(f"{PATH}/bulk", {"action": "trash", "ids": created})
    publish()

    assert all(kinds(id_) == [("created", 1), ("archived", 2), ("trashed", 3)] for id_ in created)
    check_complete()


# Imports


def test_an_imported_conversation_is_one_event_with_its_version(alice):
    id_ = conversation(alice)["id"]
    edit(alice, id_, 3)
    make_older()
    lines = exported(alice)
    forget_everything()
    publish()
    log.event_log().delete_many({})

    [result] = imported(alice, lines)
    publish()
    edit(alice, result["id"], 2)
    publish()

    assert kinds() == [("created", 4), ("updated", 5), ("updated", 6)]


@pytest.mark.parametrize("is_lost", [False, True])
def test_an_import_and_edits_that_were_missed_are_published_without_the_imported_history(
    alice, is_lost
):
    id_ = conversation(alice)["id"]
    edit(alice, id_, 3)
    make_older()
    lines = exported(alice)
    forget_everything()
    publish()
    log.event_log().delete_many({})

    [result] = imported(alice, lines)
    edit(alice, result["id"], 2)
    if is_lost:
        publish_without_stream()
    else:
        publish()

    assert kinds() == [("created", 4), ("updated", 5), ("updated", 6)]


def test_a_lenient_line_is_a_new_conversation(alice):
    [result] = imported(alice, [{"title": "From elsewhere", "character_id": "luna"}])
    publish()

    assert ids() == [f"{result['id']}_v1"]


# The horizon


def test_conversations_from_before_the_first_start_have_only_later_events(alice):
    created = [conversation(alice)["id"] for _ in range(2)]
    edit(alice, created[0], 2)
    log.event_state().delete_many({})
    publish()

    assert events() == []
    edit(alice, created[0])
    publish()
    assert kinds() == [("updated", 4)]


def test_events_that_have_expired_are_not_published_again(alice):
    id_ = conversation(alice)["id"]
    purged = conversation(alice, "deleted")["id"]
    alice.delete(f"{PATH}/{purged}?mode=purge")
    edit(alice, id_, 3)
    publish()
    expire()

    publish_without_stream()
    assert events() == []
    rewind()
    publish()
    assert events() == []

    edit(alice, id_)
    publish_without_stream()
    assert kinds() == [("updated", 5)]


def expire():
    """Delete all events, as MongoDB does after EVENTS_KEEP_DAYS."""
    log.event_log().delete_many({})
    set_state(horizon=clock.now())


def test_the_horizon_follows_the_time_that_events_are_kept(alice, settings):
    set_state(horizon=clock.now() - 400 * DAY)
    publish()

    kept = clock.now().replace(tzinfo=None) - state()["horizon"]
    assert timedelta(days=settings.EVENTS_KEEP_DAYS - 1) < kept
    assert kept < timedelta(days=settings.EVENTS_KEEP_DAYS)


# Repair


def rewind():
    """Let the stream start at the first change in the oplog."""
    set_state(token=None, start_at=Timestamp(1, 1))


def publish_without_stream(code=286):
    """Publish after the oplog has lost the stored token: MongoDB reports this error."""
    skip()
    with failing(commands=["aggregate"], errorCode=code, times=1):
        publish()


@pytest.mark.parametrize("fault", [286, 280, "another collection"])
def test_a_lost_stream_is_repaired(alice, fault, log_lines):
    id_ = conversation(alice)["id"]
    publish()
    edit(alice, id_, 2)
    other = conversation(alice)["id"]
    before = repaired()

    if fault == "another collection":
        with database()["other"].watch() as stream:
            database()["other"].insert_one({})
            set_state(token=dict(stream.next()["_id"]), collection=None)
        publish()
    else:
        publish_without_stream(fault)

    assert kinds(id_) == [("created", 1), ("updated", 2), ("updated", 3)]
    assert kinds(other) == [("created", 1)]
    assert repaired() == before + 3
    reason = "The change stream cannot continue, OperationFailure (28"
    if fault == "another collection":
        reason = "The collection has been created again: 3 missing events"
    assert reason in log_lines()
    edit(alice, id_)
    publish()
    check_complete()


@pytest.fixture
def log_lines(log):
    return log.getvalue


def test_more_missed_edits_than_revisions_are_one_resync(alice):
    id_ = conversation(alice)["id"]
    edit(alice, id_, 2)
    publish()
    edit(alice, id_, 60)
    publish()

    assert kinds() == [
        *(("created", 1), ("updated", 2), ("updated", 3)),
        ("resync", 13),
        *(("updated", version) for version in range(14, 64)),
    ]
    resync = log.payload(events()[3])
    assert resync["id"] == f"{id_}_v13"
    assert resync["data"]["first_missed_version"] == 4
    assert resync["data"]["last_missed_version"] == 13
    edit(alice, id_)
    publish()
    assert kinds()[-1] == ("updated", 64)


def report_activity(id_, sequence):
    client = service_with("conversations:activity")
    client.put(f"/internal/v1/conversations/{id_}/activity", report(sequence))


@pytest.mark.parametrize("lost", [False, True])
def test_activity_is_published_on_request_and_reports_since_the_last_event_are_one(
    alice, settings, lost
):
    settings.EVENTS_ACTIVITY = True
    id_ = conversation(alice)["id"]
    publish()
    for sequence in (1, 2, 7):
        report_activity(id_, sequence)
    edit(alice, id_)
    publish_without_stream() if lost else publish()
    report_activity(id_, 8)
    edit(alice, id_)
    publish()

    suffixes = [each.removeprefix(id_) for each in ids(id_)]
    assert suffixes == ["_v1", "_v2", "_a7", "_v3", "_a8"]
    activity = log.payload(events()[2])
    assert activity["type"] == "conversation.activity"
    assert (activity["data"]["version"], activity["data"]["fields"]) == (None, [])


def test_activity_of_a_purged_conversation_is_no_event(alice, settings):
    settings.EVENTS_ACTIVITY = True
    id_ = conversation(alice)["id"]
    report_activity(id_, 1)
    alice.delete(f"{PATH}/{id_}")
    alice.delete(f"{PATH}/{id_}?mode=purge")
    publish()

    assert ids(id_) == [f"{id_}_purged"]


def test_a_new_message_that_unarchives_is_an_event_by_its_service(alice):
    id_ = conversation(alice, "archived")["id"]
    client = service_with("conversations:activity")
    client.put(f"/internal/v1/conversations/{id_}/activity?on_message=unarchive", report(1))
    publish()

    assert kinds() == [("created", 1), ("archived", 2), ("restored", 3)]
    restored = events()[2]
    assert (restored["by"], restored["fields"]) == (
        "service:message-service",
        ["status", "archived_at"],
    )


@pytest.mark.parametrize("later_edits", [0, 1])
def test_a_version_without_a_revision_is_a_resync(alice, later_edits):
    """Pods of release 0.1.0 unarchive a conversation without a revision."""
    id_ = conversation(alice)["id"]
    edit(alice, id_)
    collection("conversations").update_one(
        {"_id": ObjectId(id_)},
        {"$inc": {"version": 1}, "$set": {"changed_at": clock.naive_now()}},
    )
    edit(alice, id_, later_edits)
    publish()

    edits = [("updated", 4)] * later_edits
    assert kinds() == [("created", 1), ("updated", 2), ("resync", 3), *edits]
    assert (events()[2]["first_missed"], events()[2]["last_missed"]) == (3, 3)


@pytest.mark.parametrize("is_lost", [False, True])
def test_missed_edits_of_a_new_conversation_are_a_resync_after_its_creation(alice, is_lost):
    id_ = conversation(alice)["id"]
    edit(alice, id_, 60)
    if is_lost:
        publish_without_stream()
    else:
        publish()

    assert kinds()[:3] == [("created", 1), ("resync", 11), ("updated", 12)]
    assert len(events()) == 52
    assert events()[1]["first_missed"] == 2


def test_the_daily_check_publishes_what_the_stream_has_skipped(alice):
    id_ = conversation(alice)["id"]
    publish()
    edit(alice, id_, 2)
    skip()
    publish()
    assert kinds() == [("created", 1)]

    set_state(checked_at=clock.now() - DAY)
    before = repaired()
    publish()

    assert kinds() == [("created", 1), ("updated", 2), ("updated", 3)]
    assert repaired() == before + 2
    assert state()["checked_at"] > clock.now().replace(tzinfo=None) - DAY / 2


def test_a_skipped_version_leads_to_a_repair_of_all_conversations(alice, log_lines):
    first, second = (conversation(alice)["id"] for _ in range(2))
    publish()
    edit(alice, first)
    edit(alice, second)
    skip()
    edit(alice, first)
    publish()

    assert kinds(first) == [("created", 1), ("updated", 2), ("updated", 3)]
    assert kinds(second) == [("created", 1), ("updated", 2)]
    assert "The change stream skipped a version" in log_lines()


def skip():
    """Let the stream continue after all present changes."""
    now = database().command("ping")["operationTime"]
    set_state(token=None, start_at=Timestamp(now.time, now.inc + 1))


# Damaged documents

DAMAGED_HISTORY = {
    "a version that is a text": {"revisions_by_version.3.version": "3"},
    "changes that are a text": {"revisions_by_version.3.changes": "title"},
    "a change that is no object": {"revisions_by_version.3.changes": [None]},
    "a path that is a list": {"revisions_by_version.3.changes": [{"path": ["title"]}]},
    "a path that is a number": {"revisions_by_version.3.changes": [{"path": 7}]},
    "a time that is a text": {"revisions_by_version.3.at": "yesterday"},
    "an actor that is a number": {"revisions_by_version.3.by": 7},
    "a revision that is a text": {"revisions_by_version.3": "x"},
    "a list as the history by version": {"revisions_by_version": []},
    "a text as the list of revisions": {"revisions": "x"},
    "a wrong import": {"imported": {"version": None, "at": None}},
    "a text as the import": {"imported": "yesterday"},
}
DAMAGED_VERSION = {
    "a version that is a text": {"version": "x"},
    "a negative version": {"version": -1},
    "a version that is an object": {"version": {"a": 1}},
}
DAMAGED_OWNER = {"no user": {"user_id": None}, "a user that is a number": {"user_id": 7}}


@pytest.mark.parametrize("fault", DAMAGED_HISTORY)
def test_a_damaged_history_is_a_resync_and_delays_no_other_conversation(alice, fault, log_lines):
    before, id_, after = published_beside(alice, DAMAGED_HISTORY[fault])

    assert [*map(kinds, (before, after))] == [[("created", 1), ("updated", 2)]] * 2
    assert kinds(id_) == [("created", 1), ("resync", 3)]
    [_, resync] = events(id_)
    assert (resync["first_missed"], resync["last_missed"]) == (2, 3)
    assert f"The document {id_} is damaged" in log_lines()


@pytest.mark.parametrize("fault", DAMAGED_VERSION)
def test_a_damaged_version_delays_no_conversation(alice, fault):
    created = published_beside(alice, DAMAGED_VERSION[fault])

    assert [kinds(id_)[:2] for id_ in created] == [[("created", 1), ("updated", 2)]] * 3


@pytest.mark.parametrize("fault", DAMAGED_OWNER)
def test_a_conversation_without_a_user_delays_no_other_conversation(alice, fault, log_lines):
    before, id_, after = published_beside(alice, DAMAGED_OWNER[fault])

    assert [*map(kinds, (before, after))] == [[("created", 1), ("updated", 2)]] * 2
    assert kinds(id_) == [("created", 1)]
    assert f"The document {id_} is damaged" in log_lines()


def test_a_damaged_new_conversation_delays_no_other_conversation(alice, log_lines):
    first, second = (conversation(alice)["id"] for _ in range(2))
    damage(first, {"metadata.created_at": "yesterday"})
    publish()

    assert kinds(first) == [("resync", 1)]
    assert kinds(second) == [("created", 1)]


def test_changes_after_a_repair_of_the_document_are_published(alice):
    _before, id_, _after = published_beside(alice, {"revisions_by_version.3.version": "3"})
    damage(id_, {"revisions_by_version.3.version": 3})
    edit(alice, id_)
    publish()

    assert kinds(id_) == [("created", 1), ("resync", 3), ("updated", 4)]


def published_beside(client, values):
    """Damage the second conversation of three, which all have edits to publish; return the ids."""
    created = [conversation(client)["id"] for _ in range(3)]
    publish()
    edit(client, created[0])
    edit(client, created[1], 2)
    damage(created[1], values)
    edit(client, created[2])
    publish()
    return created


def damage(id_, values):
    collection("conversations").update_one(
        {"_id": ObjectId(id_)}, {"$set": values}, bypass_document_validation=True
    )


@pytest.mark.parametrize("minutes", [-30, 30])
@pytest.mark.parametrize("is_lost", [False, True])
def test_a_pod_with_another_time_loses_no_event(alice, monkeypatch, minutes, is_lost):
    now = clock.now
    set_state(horizon=now() - DAY)
    monkeypatch.setattr(clock, "now", lambda: now() + timedelta(minutes=minutes))
    id_ = conversation(alice)["id"]
    monkeypatch.undo()
    edit(alice, id_, 2)
    if is_lost:
        publish_without_stream()
    else:
        publish()

    assert kinds() == [("created", 1), ("updated", 2), ("updated", 3)]


def test_a_resume_token_has_the_time_of_its_position(alice):
    with collection("conversations").watch(max_await_time_ms=50) as stream:
        conversation(alice)
        ring = stream.next()
        assert Position(ring["_id"], Timestamp(0, 0)).time == ring["clusterTime"]
        while stream.try_next():
            pass
        assert Position(stream.resume_token, Timestamp(0, 0)).time >= ring["clusterTime"]
    assert Position(None, Timestamp(7, 8)).time == Timestamp(7, 8)


# Processes


def test_several_publishers_append_each_event_once(alice):
    created = [conversation(alice)["id"] for _ in range(8)]
    with ThreadPoolExecutor(4) as pool:
        tasks = [pool.submit(edit, client_of("alice"), id_, 10) for id_ in created]
        tasks += [pool.submit(publish_often) for _ in range(2)]
        for task in tasks:
            task.result()
    publish()

    check_complete()
    assert len(events()) == 88


def publish_often():
    for _ in range(10):
        Publisher([], once=True).run()


def running(mongo, *options, **variables):
    return started(mongo, "publish_events", *options, EVENTS_PORT="0", **variables)


def test_nothing_is_lost_when_publishers_are_killed(mongo, alice):
    chance = random.Random(5)  # noqa: S311
    created = [conversation(alice)["id"] for _ in range(12)]

    def edit_often():  # up to 40 times each: fewer than there are revisions
        for id_ in created * 40:
            edit(alice, id_)
            time.sleep(0.01)

    with ThreadPoolExecutor(1) as pool:
        edits = pool.submit(edit_often)
        while not edits.done():
            publisher = running(mongo)
            eventually(lambda: state().get("lease") or edits.done(), within_s=30)
            time.sleep(chance.uniform(0, 0.5))
            publisher.kill()
            publisher.communicate()
            set_state(**{"lease.until": clock.now()})
        edits.result()
    publish()

    check_complete()
    assert len(events()) == 12 * 41


def test_a_transaction_of_a_publisher_that_died_is_aborted(alice):
    id_ = conversation(alice)["id"]
    with database().client.start_session() as session:
        dead = {"owner": "dead", "session": session.session_id, "until": clock.now()}
        set_state(lease=dead)
        session.start_transaction()
        collection(log.EVENT_STATE).update_one(
            {"_id": "sequence"}, {"$set": {"seq": Int64(7)}}, upsert=True, session=session
        )

        publish()

    assert ids() == [f"{id_}_v1"]
    assert log.newest_seq() == 1


def test_a_signal_ends_a_publisher_which_releases_the_lease(mongo, alice):
    port = free_port()
    publisher = started(mongo, "publish_events", "--port", str(port))
    eventually(lambda: state().get("lease"), within_s=30)
    waiting = running(mongo)
    id_ = conversation(alice)["id"]
    eventually(lambda: ids() == [f"{id_}_v1"], within_s=30)
    address = f"http://127.0.0.1:{port}"
    assert requests.get(f"{address}/healthz", timeout=5).status_code == 200
    assert requests.get(f"{address}/nothing", timeout=5).status_code == 404
    exported = requests.get(f"{address}/metrics", timeout=5).text
    assert 'events_published_total{type="conversation.created"} 1.0' in exported
    assert "events_repaired_total 0.0" in exported
    assert "events_lag_seconds " in exported

    publisher.send_signal(signal.SIGTERM)
    assert publisher.communicate(timeout=30) == ("", "")
    assert publisher.returncode == 0
    eventually(lambda: state().get("lease"), within_s=30)
    edit(alice, id_)
    eventually(lambda: kinds() == [("created", 1), ("updated", 2)], within_s=30)
    waiting.send_signal(signal.SIGTERM)
    assert waiting.wait(30) == 0
    waiting.communicate()
    assert "lease" not in state()


def test_a_publisher_waits_while_mongodb_is_unavailable(alice, log_lines):
    stopping: list[int] = []
    with ThreadPoolExecutor(1) as pool, ExitStack() as at_end:
        at_end.callback(stopping.append, signal.SIGTERM)
        with failing(commands=["aggregate"], errorCode=91):
            running = pool.submit(Publisher(stopping).run)
            eventually(lambda: "Events are published later" in log_lines(), within_s=30)
            id_ = conversation(alice)["id"]
        eventually(lambda: ids() == [f"{id_}_v1"], within_s=30)
    running.result()

    assert log_lines().count("Events are published later") == 1
    assert log_lines().count("Events are published.") == 1
    assert "lease" not in state()


def test_a_port_in_use_is_an_error(mongo):
    publisher = started(mongo, "publish_events", "--port", "1", HOST="192.0.2.1")
    _, err = publisher.communicate(timeout=60)

    assert publisher.returncode == 1
    assert "Port 1 cannot be used" in err
