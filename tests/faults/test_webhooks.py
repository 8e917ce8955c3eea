"""Webhooks: bad endpoints delay no others, kills lose nothing, and a backlog drains with a ramp."""

import random
import time
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from pathlib import Path
from statistics import quantiles
from threading import Lock

import pytest
from bson import ObjectId

from conversation_service import clock
from conversations.events import log
from conversations.webhooks import deliveries, endpoints
from tests.config.processes import eventually
from tests.conversation_service import loopback
from tests.conversations.webhooks.receivers import (
    Receiver,
    Reply,
    append,
    by_conversation,
    delivering,
    receiving,
    register,
)

pytestmark = pytest.mark.faults

GOOD = 16
LOAD_S = 20.0
PAUSE_S = 0.25  # between two batches of events
DELETED = 5_000  # events at a time
BATCH = 5  # versions of each conversation before a kill
KILLED_WITHIN_S = 3.0
PAUSE_AFTER_S = 8.0
FAILURES = 0.1
LONG_PAUSE = timedelta(minutes=1)
LARGE: Reply = (200, {}, bytes(100_000_000))
METADATA: Reply = (302, {"Location": "http://169.254.169.254/latest/meta-data/"}, b"")


def append_for(seconds: float) -> dict[str, float]:
    """Append versions of two conversations; return the time of each event by monotonic()."""
    appended: dict[str, float] = {}
    ids, version = [event["conversation_id"] for event in log.read(0, limit=2)], 2
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        at = time.monotonic()
        appended |= dict.fromkeys(append(first=version, ids=ids), at)
        version += 1
        time.sleep(PAUSE_S)
    return appended


def measure(mongo, *bad_urls: str) -> list[float]:
    """Return the seconds from each event to its receipt by each of the good endpoints."""
    with ExitStack() as stack:
        good = [stack.enter_context(receiving()) for _ in range(GOOD)]
        ids = [register(url) for url in (*bad_urls, *(receiver.url for receiver in good))]
        append(conversations=2)
        stack.enter_context(delivering(mongo))
        eventually(lambda: all(map(is_leased, ids)))
        appended = append_for(LOAD_S)
        newest = log.newest_seq()
        for receiver in good:
            eventually(partial(has_received, receiver, newest))
            found = by_conversation(receiver.ids)
            assert sum(map(len, found.values())) == newest
            assert all(versions == sorted(versions) for versions in found.values())
        seconds = [
            received.at - appended[received.id]
            for receiver in good
            for received in receiver.requests
            if received.id in appended
        ]
    endpoints.endpoints().delete_many({})
    deliveries.collection().delete_many({})
    log.event_log().delete_many({})
    log.event_state().delete_many({})
    return seconds


def has_received(receiver: Receiver, number: int) -> bool:
    return len(receiver.requests) >= number


def is_leased(endpoint_id: str) -> bool:
    return bool(
        endpoints.endpoints().count_documents({"_id": endpoint_id, "lease.owner": {"$gt": ""}})
    )


def test_a_slow_a_failing_a_redirecting_and_an_endless_endpoint_delay_no_other(mongo, report):
    without = measure(mongo)
    with (
        loopback.serving(loopback.trickle) as trickling,
        receiving(lambda r: 500) as failing,
        receiving(lambda r: METADATA) as redirecting,
        receiving(lambda r: LARGE) as endless,
    ):
        bad = [receiver.url for receiver in (failing, redirecting, endless)]
        with_bad = measure(mongo, f"http://{trickling}/hook", *bad)

    for name, seconds in (("without", without), ("with", with_bad)):
        p99_ms = quantiles(seconds, n=100)[98] * 1_000
        report(
            f"webhooks {name} 4 bad endpoints: {len(seconds)} deliveries to {GOOD} others, "
            f"p99 {p99_ms:.0f} ms after the event"
        )


def flaky(received) -> int:
    return 500 if random.random() < FAILURES else 204


def test_killed_deliverers_lose_no_event_and_keep_the_order(mongo, kills, report):
    with ExitStack() as stack:
        receivers = [stack.enter_context(receiving(flaky)) for _ in range(5)]
        ids = [register(receiver.url) for receiver in receivers]
        versions = 2 + kills * BATCH
        sent = {*append(conversations=40)}
        conversations = [event["conversation_id"] for event in log.read(0, limit=40)]
        processes = [stack.enter_context(ExitStack()) for _ in range(2)]
        running = [each.enter_context(delivering(mongo))[0] for each in processes]
        for version in range(2, versions, BATCH):
            sent |= {*append(versions=BATCH, first=version, ids=conversations)}
            time.sleep(random.uniform(0, KILLED_WITHIN_S))
            owners = {each["lease"]["owner"] for each in endpoints.list_all() if "lease" in each}
            number = next(
                (n for n, each in enumerate(running) if any(f":{each.pid}:" in o for o in owners)),
                0,
            )
            running[number].kill()
            processes[number].close()
            running[number] = processes[number].enter_context(delivering(mongo))[0]
            time.sleep(random.uniform(0, PAUSE_AFTER_S))
            attempt_now()

        def is_complete() -> bool:
            attempt_now()
            time.sleep(1)
            return all({*receiver.first_successes} >= sent for receiver in receivers)

        eventually(is_complete, within_s=300)
        eventually(lambda: not outstanding())
        newest = log.newest_seq()
        eventually(lambda: all(each["cursor"] == newest for each in endpoints.list_all()))

    repeated = 0
    for receiver in receivers:
        assert {*receiver.ids} == sent
        found = by_conversation(receiver.first_successes)
        assert {*map(tuple, found.values())} == {(*range(1, versions),)}
        assert len({(each.id, each.body) for each in receiver.requests}) == len(sent)
        successes = sum(each.status == 204 for each in receiver.requests)
        repeated += successes - len(sent)
    report(
        f"webhooks: {kills} kills of 2 deliverers, {len(ids)} endpoints with 10 % of 500: "
        f"{len(sent) * len(ids)} deliveries, 0 missing, 0 out of order, {repeated} repeated"
    )


def outstanding() -> int:
    return deliveries.collection().count_documents({"state": {"$in": [*deliveries.OUTSTANDING]}})


def attempt_now() -> None:
    """End each pause of 5 minutes or more."""
    later = {"state": deliveries.PENDING, "next_at": {"$gt": clock.naive_now() + LONG_PAUSE}}
    for record in deliveries.collection().find(later, {"body": False}):
        deliveries.redeliver(record["endpoint_id"], record["event_id"])


def test_a_backlog_drains_with_more_and_more_requests_in_flight(mongo, backlog, report):
    lock, ids = Lock(), []
    in_flight, highest = 0, []

    def count(received) -> int:
        nonlocal in_flight
        with lock:
            in_flight += 1
            if len(highest) < 100:
                highest.append(in_flight)
        time.sleep(0.002)
        with lock:
            in_flight -= 1
            ids.append(received.id)
        return 204

    conversations = [ObjectId() for _ in range(backlog // 100)]
    with receiving(count) as receiver:
        receiver.keeps = False
        endpoint = register(receiver.url)
        endpoints.disable(endpoint, endpoints.STAFF, by="staff:ana")
        disabled = log.newest_seq()
        for version in range(1, 101):
            append(first=version, ids=conversations)
        sent = log.newest_seq() - disabled
        with delivering(mongo) as (process, _):
            endpoints.enable(endpoint, from_now=False)
            started = time.monotonic()
            last = log.newest_seq()
            eventually(
                lambda: endpoints.get(endpoint)["cursor"] == last, within_s=60 + backlog / 20
            )
            duration_s = time.monotonic() - started
            status = Path(f"/proc/{process.pid}/status").read_text()

    for seq in range(0, last + DELETED, DELETED):  # the fixture deletes within 5 seconds
        log.event_log().delete_many({"seq": {"$lte": seq}})

    [memory] = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
    delivered = [id_ for id_ in ids if "_v" in id_]
    assert len({*delivered}) == sent
    assert all(
        versions == [*range(1, len(versions) + 1)]
        for versions in by_conversation(dict.fromkeys(delivered)).values()
    )
    assert highest[0] == 1
    assert max(highest[:3]) <= 2
    assert max(highest[:7]) <= 4
    report(
        f"webhooks: a backlog of {sent:,} events drains in {duration_s:.0f} s, "
        f"{sent / duration_s:,.0f} events/s, at most {int(memory) // 1024} MB"
    )
