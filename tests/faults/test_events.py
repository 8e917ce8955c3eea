"""The event log has each change once and in order, whatever happens to publishers and MongoDB.

Two publishers run under load. Each round kills them at random moments and lets the primary step
down. In some rounds the oplog rolls over while no publisher runs, so that the stored resume token
is lost.
"""

import os
import random
import subprocess
import time
from collections.abc import Iterator
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
from tests.faults.load import Load
from tests.faults.service import BUDGET_S, DATABASE, service
from tests.replica_set import ReplicaSet, create_collections, three_members
from tests.running import started

pytestmark = pytest.mark.faults

ROLL_OVER_EVERY = 5  # rounds
WRITERS = 8


class Publishers:
    """Two processes that publish. `lost_tokens` counts the resume tokens that the oplog lost."""

    def __init__(self, database: Database, url: str) -> None:
        self._database = database
        self._url = url
        self._running: list[subprocess.Popen] = []
        self.kills = 0
        self.lost_tokens = 0

    def start(self, *options: str) -> subprocess.Popen:
        return started(
            self._database,
            "publish_events",
            *options,
            ENVIRONMENT="development",
            DJANGO_SETTINGS_MODULE="config.settings.development",
            MONGODB_URL=self._url,
            MONGODB_DATABASE=DATABASE,
            EVENTS_PORT="0",
        )

    def publish(self) -> None:
        """Publish the present changes, and wait for the end."""
        process = self.start("--once")
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        self.lost_tokens += errors.count("OperationFailure (286)")

    def keep_two(self) -> None:
        while len(self._running) < 2:
            self._running.append(self.start())

    def kill(self, number: int) -> None:
        """Kill the first processes, as a power failure would."""
        for process in self._running[:number]:
            process.kill()
            _, errors = process.communicate()
            assert "Traceback" not in errors, errors
            self.lost_tokens += errors.count("OperationFailure (286)")
            self.kills += 1
        del self._running[:number]


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
        database["junk"].insert_many([{"text": os.urandom(500_000).hex()} for _ in range(8)])
    database.drop_collection("junk")


def test_no_event_is_lost_doubled_or_out_of_order(replica_set, database, rounds, report, tmp_path):
    publishers = Publishers(database, replica_set.url)
    publishers.publish()
    with (
        service(tmp_path / "log", replica_set.url) as server,
        Consumer(database) as consumer,
    ):
        load = Load(server.port, budget_s=BUDGET_S, writers=WRITERS, readers=0, pause_s=0.05)
        with load:
            for number in range(1, rounds + 1):
                published = len(consumer.ids)
                publishers.keep_two()
                eventually(lambda n=published: len(consumer.ids) > n, within_s=120)
                time.sleep(random.uniform(0, 1))
                publishers.kill(random.choice([1, 2]))
                replica_set.primary().command(
                    "replSetStepDown", 5, secondaryCatchUpPeriodSecs=5, force=True
                )
                publishers.keep_two()
                replica_set.primary()
                time.sleep(random.uniform(0, 2))
                publishers.kill(random.choice([0, 1, 2]))
                if number % ROLL_OVER_EVERY == 1:
                    publishers.kill(2)
                    roll_over(database)
                if number % 10 == 0:
                    report(f"events, round {number}: {len(consumer.ids)} events")
                eventually(lambda: all(m.is_ready() for m in replica_set.members))
        publishers.kill(2)
        publishers.publish()
        found = database["event_log"].find({}, sort=[("seq", 1)]).to_list()
        eventually(lambda: len(consumer.ids) >= len(found))
    rows = database["conversations"].find({}, ["version"]).to_list()
    expected = {f"{row['_id']}_v{n}" for row in rows for n in range(1, row["version"] + 1)}
    ids = [each["_id"] for each in found]
    missing, unexpected = expected - {*ids}, {*ids} - expected
    report(
        f"events: {rounds} rounds, {publishers.kills} publishers killed, {rounds} step-downs, "
        f"{publishers.lost_tokens} resume tokens lost; {len(rows)} conversations, {len(ids)} "
        f"events; {len(missing)} missing, {len(unexpected)} unexpected, {len(consumer.gaps)} gaps "
        f"for a reader"
    )

    assert not missing
    assert not unexpected
    check_order(found)
    assert consumer.ids == ids
    assert not consumer.gaps
    assert publishers.lost_tokens >= 1
