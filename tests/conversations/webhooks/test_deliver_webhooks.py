"""manage.py deliver_webhooks: order, retries, isolation, and no event lost."""

import json
from datetime import UTC, timedelta
from threading import Event, Lock

import pytest
import time_machine
from bson import Int64
from django.core.management import CommandError, call_command
from prometheus_client import REGISTRY
from standardwebhooks import Webhook

from conversation_service import clock
from conversation_service.http import rendering
from conversation_service.mongodb.connection import database
from conversations.events import log
from conversations.webhooks import deliveries, endpoints, schedule, secrets, sender, window
from conversations.webhooks import records as sender_records
from tests.conversation_service import loopback
from tests.conversations.webhooks.receivers import (
    append,
    by_conversation,
    deliver,
    new_events,
    receiving,
    register,
)
from tests.factories import PATH, conversation


@pytest.fixture(autouse=True)
def _loopback(settings):
    settings.WEBHOOK_ALLOWED_HOSTS = ["127.0.0.1"]


@pytest.fixture
def log_lines(request):
    """The lines of the log handler. The name `log` is the event log here."""
    return request.getfixturevalue("log").getvalue


def stored(endpoint_id):
    return endpoints.endpoints().find_one({"_id": endpoint_id})


def records(endpoint_id):
    return deliveries.collection().find({"endpoint_id": endpoint_id}).sort("seq").to_list()


def states(endpoint_id):
    return [record["state"] for record in records(endpoint_id)]


def test_every_event_after_the_cursor_is_delivered_and_counted():
    before = append()
    with receiving() as receiver:
        endpoint = register(receiver.url)
        ids = append(conversations=30, versions=3)
        deliver()

    assert sorted(receiver.ids) == sorted(ids)
    assert before[0] not in receiver.ids
    assert {*map(tuple, by_conversation(receiver.ids).values())} == {(1, 2, 3)}
    found = stored(endpoint)
    assert (found["cursor"], found["delivered"], found["failed"]) == (log.newest_seq(), 90, 0)
    assert found["last_success_at"] is not None
    assert "lease" not in found
    assert records(endpoint) == []


def test_the_changes_of_a_conversation_arrive_as_events(alice):
    call_command("publish_events", once=True)
    with receiving() as receiver:
        register(receiver.url)
        id_ = conversation(alice, "archived")["id"]
        alice.delete(f"{PATH}/{id_}")
        call_command("publish_events", once=True)
        deliver()

    assert [(received.id, received.event["type"]) for received in receiver.requests] == [
        (f"{id_}_v1", log.CREATED),
        (f"{id_}_v2", log.ARCHIVED),
        (f"{id_}_v3", log.TRASHED),
    ]
    assert {received.event["data"]["user_id"] for received in receiver.requests} == {"alice"}


def test_a_second_run_delivers_only_new_events():
    with receiving() as receiver:
        register(receiver.url)
        first = append()
        deliver()
        second = append()
        deliver()
        deliver()

    assert receiver.ids == first + second


def public(event):
    return json.loads(rendering.dumps(log.payload(event)))


def test_a_message_has_the_headers_of_standard_webhooks_and_the_public_form_of_the_event():
    with receiving() as receiver:
        endpoint = register(receiver.url)
        [id_] = append()
        deliver()

    [received] = receiver.requests
    [secret] = stored(endpoint)["secrets"]
    assert Webhook(secret["secret"]).verify(received.body, received.headers) == received.event
    assert received.headers["Content-Type"] == "application/json"
    assert received.headers["webhook-id"] == id_ == received.event["id"]
    assert received.event == public(log.read(0, limit=1)[0])


def test_a_message_can_be_an_event_of_cloudevents():
    with receiving() as receiver:
        endpoint = register(receiver.url, format=endpoints.CLOUDEVENTS)
        [id_] = append()
        deliver()

    [received] = receiver.requests
    [secret] = stored(endpoint)["secrets"]
    Webhook(secret["secret"]).verify(received.body, received.headers)
    assert received.headers["Content-Type"] == "application/cloudevents+json"
    payload = public(log.read(0, limit=1)[0])
    assert received.event == {
        "specversion": "1.0",
        "id": id_,
        "source": "/conversation-service",
        "type": "conversation.updated",
        "subject": payload["data"]["conversation_id"],
        "time": payload["timestamp"],
        "sequence": "00000000000000000001",
        "datacontenttype": "application/json",
        "data": payload["data"],
    }


def test_both_secrets_sign_until_the_old_one_expires():
    with receiving() as receiver, time_machine.travel(clock.now(), tick=False) as time:
        endpoint = register(receiver.url)
        old = stored(endpoint)["secrets"][0]["secret"]
        _, new = endpoints.rotate_secret(endpoint)
        append()
        deliver()
        first, signatures = receiver.requests[0], []
        for secret in (new, old):
            Webhook(secret).verify(first.body, first.headers)
        for _ in range(2):
            append()
            deliver()
            signatures.append(len(receiver.requests[-1].headers["webhook-signature"].split()))
            time.shift(secrets.ROTATION)

    assert signatures == [2, 1]


def test_an_endpoint_gets_its_types_only():
    with receiving() as some, receiving() as default:
        chosen = register(some.url, types=[log.RESTORED, log.ARCHIVED])
        register(default.url)
        none = register("https://example.org/none", types=[log.PURGED])
        kinds = [log.UPDATED, log.RESTORED, log.ARCHIVED, log.UPDATED]
        events = new_events(4, 1)
        log.append([{**event, "type": kind} for event, kind in zip(events, kinds, strict=True)])
        deliver()

    assert {received.event["type"] for received in some.requests} == {log.RESTORED, log.ARCHIVED}
    assert sorted(received.event["type"] for received in default.requests) == sorted(kinds)
    assert stored(chosen)["cursor"] == stored(none)["cursor"] == 4


# Order


def test_a_conversation_has_one_request_in_flight_and_an_endpoint_as_many_as_it_allows():
    in_flight, most, lock = [], [], Lock()

    def overlap(received):
        conversation = received.id.partition("_")[0]
        with lock:
            in_flight.append(conversation)
            most.append([*in_flight])
        Event().wait(0.01)
        with lock:
            in_flight.remove(conversation)
        return 204

    with receiving(overlap) as receiver:
        register(receiver.url, in_flight=4)
        ids = append(conversations=8, versions=10)
        deliver()

    assert sorted(receiver.ids) == sorted(ids)
    assert all(len({*together}) == len(together) <= 4 for together in most)
    assert {*map(tuple, by_conversation(receiver.ids).values())} == {(*range(1, 11),)}


def test_events_behind_a_failed_one_wait_and_follow_in_order():
    failing = Event()
    failing.set()
    with time_machine.travel(clock.now(), tick=False) as time, receiving() as receiver:
        endpoint = register(receiver.url)
        ids = append(conversations=2, versions=3)
        bad = ids[0].partition("_")[0]
        receiver.behaviour = lambda r: 500 if r.id.startswith(bad) and failing.is_set() else 204
        deliver()

        assert receiver.ids.count(f"{bad}_v1") == 1
        assert len(receiver.first_successes) == 3  # the other conversation
        assert states(endpoint) == ["pending", "waiting", "waiting"]
        assert stored(endpoint)["cursor"] == log.newest_seq()

        more = append(versions=2, first=4, ids=[records(endpoint)[0]["conversation_id"]])
        deliver()  # not due
        assert states(endpoint) == ["pending"] + 4 * ["waiting"]
        assert receiver.ids.count(f"{bad}_v1") == 1

        failing.clear()
        time.shift(6)
        deliver()

    assert by_conversation(receiver.first_successes)[bad] == [1, 2, 3, 4, 5]
    assert {*more} <= {*receiver.ids}
    assert states(endpoint) == 5 * ["delivered"]


def test_events_follow_a_delivery_that_is_given_up():
    with time_machine.travel(clock.now(), tick=False) as time, receiving() as receiver:
        receiver.behaviour = lambda r: 204 if r.event["data"]["version"] == 2 else 500
        endpoint = register(receiver.url)
        ids = append(versions=2)
        deliver()
        for _ in range(9):
            time.move_to(records(endpoint)[0]["next_at"].replace(tzinfo=UTC))
            deliver()

    assert receiver.ids == [*(10 * ids[:1]), ids[1]]
    assert states(endpoint) == ["failed", "delivered"]
    failed = records(endpoint)[0]
    assert len(failed["attempts"]) == 10
    assert failed["next_at"] is None
    assert failed["expires_at"] > failed["created_at"] + timedelta(days=30)
    assert stored(endpoint)["failing_since"] is None


# Retries


def test_attempts_follow_the_schedule_with_the_same_body_and_new_signatures():
    pauses = []
    with time_machine.travel(clock.now(), tick=False) as time, receiving(lambda r: 503) as receiver:
        endpoint = register(receiver.url)
        [id_] = append()
        for attempt in range(1, 10):
            deliver()
            [record] = records(endpoint)
            assert len(receiver.requests) == len(record["attempts"]) == attempt
            pause = record["next_at"] - clock.now().replace(tzinfo=None)
            pauses.append(pause / schedule.PAUSES[attempt])
            time.shift(pause - timedelta(milliseconds=1))
            deliver()
            assert len(receiver.requests) == attempt  # not before its time
            time.shift(timedelta(seconds=1))
            [secret] = stored(endpoint)["secrets"]

        received = receiver.requests
        assert {each.id for each in received} == {id_}
        assert len({each.body for each in received}) == 1
        assert len({each.headers["webhook-timestamp"] for each in received}) == 9
        assert len({each.headers["webhook-signature"] for each in received}) == 9

    for each in received:
        at = int(each.headers["webhook-timestamp"])
        with time_machine.travel(at, tick=False):
            Webhook(secret["secret"]).verify(each.body, each.headers)
    assert all(0.8 <= pause <= 1.2 for pause in pauses)
    assert len({*pauses}) > 1
    assert {each["status"] for each in record["attempts"]} == {503}


def test_the_body_stays_although_the_format_of_the_endpoint_changes():
    with time_machine.travel(clock.now(), tick=False) as time, receiving(lambda r: 503) as receiver:
        endpoint = register(receiver.url)
        append()
        deliver()
        endpoints.endpoints().update_one({}, {"$set": {"format": endpoints.CLOUDEVENTS}})
        time.shift(6)
        deliver()

    first, second = receiver.requests
    assert first.body == second.body == records(endpoint)[0]["body"]
    assert second.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [("7", 7), ("1", 5), ("3600", 10), ("Thu, 01 Jan 2026 00:00:08 GMT", 8)],
)
def test_retry_after_applies_from_the_pause_to_its_double(retry_after, seconds):
    reply = (503, {"Retry-After": retry_after}, b"")
    with (
        time_machine.travel("2026-01-01T00:00:00Z", tick=False),
        receiving(lambda r: reply) as receiver,
    ):
        endpoint = register(receiver.url)
        append()
        deliver()
        [record] = records(endpoint)

    assert record["next_at"] - record["created_at"] == timedelta(seconds=seconds)


@pytest.mark.parametrize("status", [300, 302, 307, 400, 404, 429, 500])
def test_each_status_but_2xx_is_a_failure_and_no_redirect_is_followed(status):
    with receiving() as other, receiving() as receiver:
        receiver.behaviour = lambda r: (status, {"Location": other.url}, b"")
        endpoint = register(receiver.url)
        append()
        deliver()

    assert other.requests == []
    [record] = records(endpoint)
    assert [attempt["status"] for attempt in record["attempts"]] == [status]
    assert stored(endpoint)["failed"] == 1
    assert stored(endpoint)["failing_since"] is not None


def test_a_reply_that_does_not_end_in_time_is_a_failure(monkeypatch):
    monkeypatch.setattr(sender, "REQUEST_S", 0.5)
    with loopback.serving(loopback.trickle) as trickling:
        endpoint = register(f"http://{trickling}/hook")
        append()
        deliver()

    [record] = records(endpoint)
    [attempt] = record["attempts"]
    assert (attempt["status"], attempt["reason"]) == (None, "timeout")


def test_an_address_is_checked_at_each_attempt(settings):
    with time_machine.travel(clock.now(), tick=False) as time, receiving(lambda r: 503) as receiver:
        endpoint = register(receiver.url)
        append()
        deliver()
        settings.WEBHOOK_ALLOWED_HOSTS = []
        time.shift(6)
        deliver()

    assert len(receiver.requests) == 1
    [record] = records(endpoint)
    assert [attempt["reason"] for attempt in record["attempts"]] == [None, "address_rejected"]
    assert record["attempts"][1]["status"] is None


# Endpoints that are disabled


def test_410_disables_an_endpoint_at_once_and_its_cursor_stays(log_lines):
    labels = ("webhook_endpoints_disabled_total", {"reason": endpoints.GONE})
    before = REGISTRY.get_sample_value(*labels) or 0
    with receiving(lambda r: 410) as gone, receiving() as other:
        endpoint = register(gone.url, in_flight=1)
        register(other.url, types=[log.WEBHOOK_DISABLED])
        append(conversations=5)
        deliver()
        found = stored(endpoint)
        deliver()

        assert (found["state"], found["disabled_reason"]) == ("disabled", "gone")
        assert (found["cursor"], found["disabled_times"]) == (1, 1)
        assert len(gone.requests) == 1
        assert REGISTRY.get_sample_value(*labels) == before + 1
        [event] = other.requests
        assert event.event["id"] == f"{endpoint}_disabled_1"
        assert event.event["data"]["conversation_id"] is None
        assert f"The webhook {endpoint} is disabled: gone" in log_lines()

        gone.behaviour = lambda r: 204
        endpoints.endpoints().update_one({"_id": endpoint}, {"$set": {"state": "enabled"}})
        with time_machine.travel(clock.now() + timedelta(seconds=7)):
            deliver()

    assert len(gone.first_successes) == 6  # with webhook.disabled


def test_an_endpoint_without_success_for_5_days_is_disabled(log_lines):
    with time_machine.travel(clock.now(), tick=False) as time, receiving(lambda r: 500) as receiver:
        endpoint = register(receiver.url)
        for _ in range(5):
            append()
            deliver()
            assert stored(endpoint)["state"] == "enabled"
            time.shift(timedelta(days=1))
        append()
        deliver()

    found = stored(endpoint)
    assert (found["state"], found["disabled_reason"]) == ("disabled", "failing")
    assert [event["_id"] for event in log.read(0, types=[log.WEBHOOK_DISABLED], limit=10)] == [
        f"{endpoint}_disabled_1"
    ]
    assert f"The webhook {endpoint} is disabled: failing" in log_lines()


def test_a_success_in_5_days_keeps_an_endpoint_enabled():
    with time_machine.travel(clock.now(), tick=False) as time, receiving(lambda r: 500) as receiver:
        endpoint = register(receiver.url)
        for day in range(8):
            receiver.behaviour = lambda r, ok=day == 4: 204 if ok else 500
            append()
            deliver()
            time.shift(timedelta(days=1))

    assert stored(endpoint)["state"] == "enabled"


def test_the_requests_in_flight_double_after_successes_from_1_on():
    in_flight, most, lock = 0, [], Lock()
    release = Event()

    def count(received):
        nonlocal in_flight
        with lock:
            in_flight += 1
            most.append(in_flight)
        release.wait(0.05)
        with lock:
            in_flight -= 1
        return 204

    with receiving(count) as receiver:
        register(receiver.url, in_flight=8)
        append(conversations=40)
        deliver()

    assert most[0] == 1
    assert max(most[:3]) <= 2
    assert max(most[:7]) <= 4
    assert max(most) <= 8


# Crashes and several processes


def test_events_after_a_cursor_that_was_not_stored_are_sent_again_with_their_ids():
    with time_machine.travel(clock.now(), tick=False) as time, receiving() as receiver:
        endpoint = register(receiver.url)
        ids = append(conversations=2, versions=3)
        bad = ids[0].partition("_")[0]
        receiver.behaviour = lambda r: 500 if r.id.startswith(bad) else 204
        deliver()
        before = states(endpoint)
        endpoints.endpoints().update_one({"_id": endpoint}, {"$set": {"cursor": 0}})
        deliver()

        assert states(endpoint) == before == ["pending", "waiting", "waiting"]
        assert receiver.ids.count(f"{bad}_v1") == 1
        assert len(receiver.ids) == 1 + 3 + 3
        receiver.behaviour = lambda r: 204
        time.shift(6)
        deliver()

    assert by_conversation(receiver.first_successes)[bad] == [1, 2, 3]


def test_a_conversation_continues_after_a_crash_before_its_next_event_became_due():
    with time_machine.travel(clock.now(), tick=False) as time, receiving(lambda r: 500) as receiver:
        endpoint = register(receiver.url)
        append(versions=3)
        deliver()
        receiver.behaviour = lambda r: 204
        deliveries.collection().update_one(
            {"state": "pending"}, {"$set": {"state": "delivered", "next_at": None}}
        )
        time.shift(6)
        deliver()

    assert states(endpoint) == 3 * ["delivered"]
    assert by_conversation(receiver.first_successes).popitem()[1] == [2, 3]


def test_an_endpoint_of_another_process_is_taken_over_after_the_end_of_its_lease():
    with receiving() as receiver:
        register(receiver.url, lease={"owner": "another", "until": clock.now() - timedelta(1)})
        ids = append()
        deliver()

    assert receiver.ids == ids


def test_an_endpoint_of_another_process_is_named_and_the_others_get_their_events(log_lines):
    lease = {"owner": "another", "until": clock.now() + timedelta(seconds=60)}
    with receiving() as receiver, receiving() as other:
        leased = register(receiver.url, lease=lease)
        register(other.url)
        ids = append()
        with pytest.raises(CommandError, match="did not get all events"):
            deliver()

    assert (receiver.ids, other.ids) == ([], ids)
    assert f"Another process delivers to the webhook {leased}" in log_lines()


# Redelivery


@pytest.mark.parametrize("is_recorded", [False, True])
def test_a_delivered_event_can_be_delivered_again(is_recorded):
    with time_machine.travel(clock.now(), tick=False) as time, receiving() as receiver:
        receiver.behaviour = lambda r: 500 if is_recorded else 204
        endpoint = register(receiver.url)
        [id_] = append()
        deliver()
        receiver.behaviour = lambda r: 204
        time.shift(6)
        deliver()
        count = len(receiver.requests)

        assert deliveries.redeliver(endpoint, id_) == "pending"
        deliver()

    assert receiver.ids == (count + 1) * [id_]
    assert states(endpoint) == ["delivered"]
    assert len(records(endpoint)[0]["attempts"]) == count + 1 - (not is_recorded)


def test_a_failed_redelivery_delays_no_other_event():
    with receiving() as receiver:
        endpoint = register(receiver.url)
        ids = append(versions=2)
        deliver()
        receiver.behaviour = lambda r: 500 if r.id == ids[0] else 204
        deliveries.redeliver(endpoint, ids[0])
        deliver()
        [new] = append(first=3, ids=[log.read(0, limit=1)[0]["conversation_id"]])
        deliver()

    assert receiver.ids == [*ids, ids[0], new]
    assert states(endpoint) == ["pending"]


def test_a_redelivery_of_a_waiting_event_attempts_the_earlier_one_now():
    with receiving(lambda r: 500) as receiver:
        endpoint = register(receiver.url)
        ids = append(versions=2)
        deliver()
        receiver.behaviour = lambda r: 204
        assert deliveries.redeliver(endpoint, ids[1]) == "waiting"
        deliver()

    assert receiver.ids == [ids[0], *ids]
    assert states(endpoint) == 2 * ["delivered"]


def test_an_event_that_is_given_up_can_be_delivered_again():
    with receiving() as receiver:
        endpoint = register(receiver.url)
        [id_] = append()
        receiver.behaviour = lambda r: 500
        deliver()
        endpoints.disable(endpoint, endpoints.STAFF, by="staff:ana")
        deliveries.enable(endpoint, from_now=True)
        assert states(endpoint) == ["failed"]
        receiver.behaviour = lambda r: 204
        deliveries.redeliver(endpoint, id_)
        deliver()

    assert receiver.ids == [id_, id_]
    assert states(endpoint) == ["delivered"]


def test_a_redelivery_of_an_unknown_event_is_an_error():
    endpoint = register("https://example.org/hook")

    with pytest.raises(deliveries.EventNotFound):
        deliveries.redeliver(endpoint, "unknown_v1")


# Bounds


def test_an_endpoint_with_too_many_records_gets_no_more_events_until_they_are_delivered(
    monkeypatch,
):
    monkeypatch.setattr(sender, "MAX_OUTSTANDING", 6)
    monkeypatch.setattr(sender_records, "READ", 2)
    monkeypatch.setattr(window, "SIZE", 4)
    with time_machine.travel(clock.now(), tick=False) as time, receiving(lambda r: 500) as receiver:
        endpoint = register(receiver.url)
        ids = append(conversations=20, versions=2)
        deliver()

        assert 6 <= len(records(endpoint)) <= 10
        assert len(receiver.ids) == stored(endpoint)["cursor"] == len(records(endpoint))
        receiver.behaviour = lambda r: 204
        time.shift(6)
        deliver()

    assert {*receiver.first_successes} == {*ids}
    assert {*map(tuple, by_conversation(receiver.first_successes).values())} == {(1, 2)}
    assert stored(endpoint)["cursor"] == log.newest_seq()
    assert {*states(endpoint)} == {"delivered"}


def test_all_due_records_are_attempted_although_they_are_read_in_parts(monkeypatch):
    monkeypatch.setattr(sender_records, "READ", 2)
    with time_machine.travel(clock.now(), tick=False) as time, receiving(lambda r: 500) as receiver:
        endpoint = register(receiver.url, in_flight=1)
        append(conversations=10)
        deliver()
        receiver.behaviour = lambda r: 204
        time.shift(6)
        deliver()

    assert states(endpoint) == 10 * ["delivered"]


def test_an_endpoint_that_is_enabled_from_now_gets_only_new_events():
    with receiving(lambda r: 500) as receiver:
        endpoint = register(receiver.url)
        append(versions=3)
        deliver()
        endpoints.disable(endpoint, endpoints.STAFF, by="staff:ana")
        deliveries.enable(endpoint, from_now=True)
        receiver.requests.clear()
        receiver.behaviour = lambda r: 204
        conversation = records(endpoint)[0]["conversation_id"]
        new = append(first=4, ids=[conversation])
        with time_machine.travel(clock.now() + timedelta(hours=1)):
            deliver()

    assert receiver.ids == new
    assert states(endpoint) == 3 * ["failed"]


def test_events_that_have_expired_are_skipped_with_a_warning(log_lines):
    with receiving() as receiver:
        endpoint = register(receiver.url)
        append(versions=3)
        log.event_log().delete_many({"seq": {"$lte": 2}})
        deliver()

    assert by_conversation(receiver.ids).popitem()[1] == [3]
    assert stored(endpoint)["cursor"] == 3
    assert "The events 1 to 2 have expired" in log_lines()


def test_an_endpoint_gets_events_after_an_older_log_was_restored(log_lines):
    with receiving() as receiver:
        endpoint = register(receiver.url, cursor=Int64(1_000))
        ids = append(versions=2)
        deliver()
        ids += append()
        deliver()

    assert receiver.ids == ids
    assert stored(endpoint)["cursor"] == 3
    assert "The event log was restored" in log_lines()


def test_an_error_of_mongodb_ends_the_deliveries_to_one_endpoint_only(log_lines):
    """The validator rejects a change that a document already violates."""
    with receiving() as receiver, receiving() as other:
        broken = register(receiver.url)
        register(other.url)
        database().command(
            "collMod",
            endpoints.ENDPOINTS,
            validator={"$or": [{"url": other.url}, {"delivered": {"$lt": 1}}]},
        )
        try:
            ids = append()
            with pytest.raises(CommandError):
                deliver()
        finally:
            schema = endpoints.COLLECTION
            database().command("collMod", schema.name, validator=schema.validator)

    assert other.ids == ids
    assert stored(broken)["cursor"] == 0
    assert f"webhook {broken}: WriteError (121)" in log_lines()
