"""A MongoDB replica set of three members, for tests that stop replication or kill a primary."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import PyMongoError

from config.env import env
from conversation_service.development import mongod, process
from conversation_service.mongodb.collections import declared
from tests.config.processes import eventually

READY_S = 30.0
# MongoDB's defaults are 10 s and 2 s.
ELECTION_TIMEOUT_MS = 1_500
HEARTBEAT_MS = 300


class Member:
    """One mongod with fail points enabled. Others reach it at `address`."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.port = process.free_port()
        self._server: subprocess.Popen[bytes] | None = None
        self._client: MongoClient[dict[str, Any]] = MongoClient(
            "127.0.0.1",
            self.port,
            directConnection=True,
            serverSelectionTimeoutMS=500,
            socketTimeoutMS=5_000,
        )
        self.address = f"127.0.0.1:{self.port}"

    def start(self) -> None:
        self.data.mkdir(parents=True, exist_ok=True)
        binary = env("MONGOD_BIN") or mongod.find()
        options = mongod.options(self.data, self.port, mongod.CACHE_GB)
        self._server = process.start(
            [binary, *options, "--setParameter=enableTestCommands=1"],
            output=self.data.with_suffix(".log"),
        )

    def kill(self) -> None:
        """End the process as a power failure would. A killed member can be started again."""
        if self._server:
            self._server.kill()
            self._server.wait()

    def close(self) -> None:
        self._client.close()
        self.kill()

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    @property
    def pid(self) -> int:
        assert self._server
        return self._server.pid

    def command(self, name: str, value: Any = 1, **fields: Any) -> dict[str, Any]:
        """Run a command of the database `admin` on this member, whatever its role."""
        return self._client.admin.command(name, value, **fields)

    def fail_point(self, name: str, mode: str | dict[str, int], **data: Any) -> int:
        """Set a fail point of MongoDB and return how often it was reached; "off" ends it."""
        reply = self.command("configureFailPoint", name, mode=mode, data=data)
        return int(reply["count"])

    def state(self) -> dict[str, Any]:
        """Return the reply to `hello`; empty if the member does not respond."""
        with suppress(PyMongoError):
            return self.command("hello")
        return {}

    def is_primary(self) -> bool:
        return bool(self.state().get("isWritablePrimary"))

    def is_ready(self) -> bool:
        return self.is_primary() or bool(self.state().get("secondary"))


class ReplicaSet:
    def __init__(self, members: list[Member]) -> None:
        self.members = members
        addresses = ",".join(member.address for member in members)
        self.url = f"mongodb://{addresses}/?replicaSet={mongod.REPLICA_SET}"

    def primary(self) -> Member:
        """Return the primary; during an election, wait for its end."""
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            for member in self.members:
                if member.is_primary():
                    return member
            time.sleep(0.05)
        raise AssertionError(f"There is no primary after {READY_S:.0f} s.")

    def secondaries(self) -> list[Member]:
        return [member for member in self.members if member.state().get("secondary")]

    @contextmanager
    def replication_stopped(self) -> Iterator[Member]:
        """Keep writes of the primary, which is given, from all other members until the end."""
        primary, secondaries = self.primary(), self.secondaries()
        for member in secondaries:
            entered = member.fail_point("stopReplProducer", "alwaysOn")
            # The batch that a secondary waits for at this moment still arrives.
            member.command(
                "waitForFailPoint", "stopReplProducer", timesEntered=entered + 1, maxTimeMS=10_000
            )
        try:
            yield primary
        finally:
            for member in secondaries:
                member.fail_point("stopReplProducer", "off")

    def wait_until_ready(self) -> None:
        """Wait until there are a primary and two secondaries."""
        eventually(lambda: all(member.is_ready() for member in self.members), within_s=READY_S)
        self.primary()


@contextmanager
def three_members(
    folder: Path, prepare: Callable[[Member], object] = lambda member: None
) -> Iterator[ReplicaSet]:
    """Run three members on free ports of 127.0.0.1 until the end.

    `prepare` is called with each member before it starts, and can change its address.
    """
    with ExitStack() as started:
        members = [Member(folder / f"member-{number}") for number in range(3)]
        for member in members:
            prepare(member)
            started.callback(member.close)
            member.start()
        for member in members:
            eventually(member.state, within_s=READY_S)
        members[0].command("replSetInitiate", _configuration(members))
        replica_set = ReplicaSet(members)
        replica_set.wait_until_ready()
        yield replica_set


def create_collections(database: Database) -> None:
    """Create the service's collections, with their indexes and validators."""
    for schema in declared():
        rules: Any = {"validator": schema.validator} if schema.validator else {}
        collection = database.create_collection(schema.name, **rules)
        if schema.indexes:
            collection.create_indexes([*schema.indexes])


def _configuration(members: list[Member]) -> dict[str, Any]:
    return {
        "_id": mongod.REPLICA_SET,
        "members": [{"_id": n, "host": member.address} for n, member in enumerate(members)],
        "settings": {
            "electionTimeoutMillis": ELECTION_TIMEOUT_MS,
            "heartbeatIntervalMillis": HEARTBEAT_MS,
        },
    }
