"""Each change is an event, and reaches each webhook in order, through all failures.

Two publishers and two deliverers run under load, with two receivers that fail at random. Each round
kills some of the processes at random moments and lets the primary step down. In some rounds the
oplog rolls over while no publisher runs, so that the stored resume token is lost.
"""

import random
import subprocess
import time
from collections.abc import Callable, Iterator, Sized
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Event, Thread
from typing import Any

import pytest
from bson import Timestamp
from pymongo import MongoClient, ReadPreference
from pymongo.database import Database
from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern

from tests.config.processes import eventually
from tests.conversations.events.publishing import check_order
from tests.conversations.webhooks.receivers import Received, Receiver, by_conversation, receiving
from tests.faults.load import Load
from tests.faults.service import BUDGET_S, DATABASE, service
from tests.replica_set import ReplicaSet, create_collections, three_members
from tests.running import started

pytestmark = pytest.mark.faults

ROLL_OVER_EVERY = 5  # rounds
WRITERS = 8
PAUSE_S = 0.2
JUNK = "x" * 1_000_000
FAILURES = 0.1


class Processes:
    """Two processes of a command. `lost_tokens` counts the resume tokens that the oplog lost."""

    def __init__(self, database: Database, url: str, command: str) -> None:
        self._database = database
        self._url = url
        self._command = command
        self._running: list[subprocess.Popen] = []
        self.kills = 0
        self.lost_tokens = 0

    def _start(self, *options: str) -> subprocess.Popen:
        return run(self._database, self._url, self._command, *options, EVENTS_PORT="0")

    def run_once(self) -> None:
        """Process what there is now, and wait for the end."""
        process = self._start("--once")
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        self.lost_tokens += errors.count("OperationFailure (286)")

    def keep_two(self) -> None:
        while len(self._running) < 2:
            self._running.append(self._start())

    def kill(self, number: int) -> None:
        """Kill processes at random, as a power failure would. Their leases end at once."""
        random.shuffle(self._running)
        for process in self._running[:number]:
            process.kill()
            _, errors = process.communicate()
            assert "Traceback" not in errors, errors
            self.lost_tokens += errors.count("OperationFailure (286)")
            self.kills += 1
            insist(partial(self._end_leases, process.pid))
        del self._running[:number]

    def _end_leases(self, pid: int) -> None:
        ended = {"$set": {"lease.until": datetime.now(UTC) - timedelta(seconds=1)}}
        owned = {"lease.owner": {"$regex": f":{pid}:"}}
        self._database["webhook_endpoints"].update_many(owned, ended)
        if self._command == "publish_events":
            # Its owner can be another process: two publishers at once are harmless.
            self._database["event_state"].update_one({"_id": "publisher"}, ended)


def run(database: Database, url: str, *command: str, **variables: str) -> subprocess.Popen:
    return started(
        database,
        *command,
        ENVIRONMENT="development",
        DJANGO_SETTINGS_MODULE="config.settings.development",
        MONGODB_URL=url,
        MONGODB_DATABASE=DATABASE,
        WEBHOOK_ALLOWED_HOSTS="127.0.0.1",
        **variables,
    )


def insist(operation: Callable[[], object]) -> None:
    """Repeat an operation until there is a primary."""

    def succeeds() -> bool:
        with suppress(PyMongoError):
            operation()
            return True
        return False

    eventually(succeeds, within_s=60)


class Consumer:
    """Reads the log while it is written. It must never miss an event, nor see one that vanishes."""

    def __init__(self, database: Database) -> None:
        self._log = database.get_collection(
            "event_log",
            read_concern=ReadConcern("majority"),
            read_preference=ReadPreference.PRIMARY,
        )
        self._stopped = Event()
        self._thread = Thread(target=self._follow)
        self.ids: list[str] = []
        self.gaps: list[tuple[int, int]] = []

    def __enter__(self) -> "Consumer":
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._stopped.wait(0.05):
            try:
                rows = self._log.find({"seq": {"$gt": len(self.ids)}}, sort=[("seq", 1)]).to_list()
            except PyMongoError:
                continue
            for row in rows:
                if row["seq"] != len(self.ids) + 1:
                    self.gaps.append((len(self.ids), row["seq"]))
                self.ids.append(row["_id"])


@pytest.fixture
def replica_set(tmp_path) -> Iterator[ReplicaSet]:
    with three_members(tmp_path) as replica_set:
        yield replica_set


@pytest.fixture
def database(replica_set) -> Iterator[Database]:
    with MongoClient[dict[str, Any]](replica_set.url, w="majority") as client:
        create_collections(client[DATABASE])
        yield client[DATABASE]


def roll_over(database: Database) -> None:
    """Write until the oplog begins after the stored token."""
    state: Any = database["event_state"].find_one({"_id": "publisher"})
    token = state["token"]["_data"]
    oplog = database.client["local"]["oplog.rs"]
    while True:
        oldest = oplog.find_one({}, ["ts"], sort=[("$natural", 1)])
        if oldest and oldest["ts"] > Timestamp(int(token[2:10], 16) + 1, 0):
            break
        # One text for all: finished commands stay in memory until Python collects cycles.
        database["junk"].insert_many([{"text": JUNK} for _ in range(8)])
    database.drop_collection("junk")


def add_webhook(database: Database, url: str, receiver: Receiver) -> None:
    process = run(database, url, "webhooks", "add", receiver.url)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors


def attempt_now(database: Database) -> None:
    """End the pauses before all attempts, as if time had passed."""
    later = {"state": "pending", "next_at": {"$gt": datetime.now(UTC)}}
    database["webhook_deliveries"].update_many(later, {"$set": {"next_at": datetime.now(UTC)}})
    database["webhook_endpoints"].update_many({}, {"$inc": {"redeliveries": 1}})


def step_down(replica_set: ReplicaSet) -> None:
    replica_set.primary().command("replSetStepDown", 5, secondaryCatchUpPeriodSecs=5, force=True)
    replica_set.primary()


def is_longer(items: Sized, count: int) -> bool:
    return len(items) > count


def flaky(received: Received) -> int:
    return 500 if random.random() < FAILURES else 204


def versions(database: Database) -> set[str]:
    """Return the id of each version of each conversation."""
    rows = database["conversations"].find({}, ["version"])
    return {f"{row['_id']}_v{n}" for row in rows for n in range(1, row["version"] + 1)}


def check_delivered(receiver: Receiver, expected: set[str], report: Callable[[str], None]) -> None:
    """Each event was delivered; first successes are in order; a repeated event is the same."""
    successes = [received.id for received in receiver.requests if received.status == 204]
    report(
        f"webhook: {len(expected)} events, {len(receiver.requests)} requests, "
        f"{len(successes) - len(expected)} repeated successes"
    )
    assert {*successes} == expected
    found = by_conversation(receiver.first_successes)
    assert all(each == [*range(1, len(each) + 1)] for each in found.values())
    assert len({(received.id, received.body) for received in receiver.requests}) == len(expected)


def test_no_event_is_lost_doubled_or_out_of_order(replica_set, database, rounds, report, tmp_path):
    publishers = Processes(database, replica_set.url, "publish_events")
    deliverers = Processes(database, replica_set.url, "deliver_webhooks")
    publishers.run_once()
    with (
        receiving(flaky) as first,
        receiving(flaky) as second,
        service(tmp_path / "log", replica_set.url) as server,
        Consumer(database) as consumer,
    ):
        receivers = [first, second]
        for receiver in receivers:
            add_webhook(database, replica_set.url, receiver)
        load = Load(server.port, budget_s=BUDGET_S, writers=WRITERS, readers=0, pause_s=PAUSE_S)
        with load:
            for number in range(1, rounds + 1):
                seen = [consumer.ids, *(receiver.requests for receiver in receivers)]
                counts = [*map(len, seen)]
                publishers.keep_two()
                deliverers.keep_two()
                for items, count in zip(seen, counts, strict=True):
                    eventually(partial(is_longer, items, count), within_s=120)
                time.sleep(random.uniform(0, 1))
                publishers.kill(random.choice([1, 2]))
                deliverers.kill(random.choice([0, 1]))
                step_down(replica_set)
                publishers.keep_two()
                deliverers.keep_two()
                time.sleep(random.uniform(0, 2))
                publishers.kill(random.choice([0, 1, 2]))
                deliverers.kill(random.choice([0, 1, 2]))
                if number % ROLL_OVER_EVERY == 1:
                    publishers.kill(2)
                    roll_over(database)
                insist(partial(attempt_now, database))
                if number % 10 == 0:
                    report(f"events, round {number}: {len(consumer.ids)} events")
                eventually(lambda: all(m.is_ready() for m in replica_set.members))
        publishers.kill(2)
        publishers.run_once()
        found = database["event_log"].find({}, sort=[("seq", 1)]).to_list()
        eventually(lambda: len(consumer.ids) >= len(found))
        deliverers.keep_two()

        def all_delivered() -> bool:
            attempt_now(database)
            time.sleep(1)
            return all(len(receiver.first_successes) >= len(found) for receiver in receivers)

        eventually(all_delivered, within_s=300)
        deliverers.kill(2)

    expected = versions(database)
    ids = [each["_id"] for each in found]
    missing, unexpected = expected - {*ids}, {*ids} - expected
    report(
        f"events: {rounds} rounds, {publishers.kills} publishers and {deliverers.kills} deliverers "
        f"killed, {rounds} step-downs, {publishers.lost_tokens} resume tokens lost; "
        f"{len(ids)} events; {len(missing)} missing, {len(unexpected)} unexpected, "
        f"{len(consumer.gaps)} gaps for a reader"
    )
    assert not missing
    assert not unexpected
    check_order(found)
    assert consumer.ids == ids
    assert not consumer.gaps
    assert publishers.lost_tokens >= 1
    for receiver in receivers:
        check_delivered(receiver, expected, report)
