"""Access to PyMongo, with the client and the pool of the ORM."""

import time
from collections.abc import Mapping
from math import inf
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections
from pymongo import monitoring
from pymongo.collection import Collection
from pymongo.database import Database

from conversation_service.observability import metrics
from conversation_service.server import private

Document = dict[str, Any]

# A server that has replied within this time counts as responsive.
RESPONSIVE_S = 1.0


class Commands(monitoring.CommandListener):
    """Counts and times commands by their name."""

    last_reply = -inf  # time.monotonic() of the last command that succeeded in this process

    def started(self, event: monitoring.CommandStartedEvent) -> None: ...

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        Commands.last_reply = time.monotonic()
        self._observe(event, "succeeded")

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        self._observe(event, "failed")

    def _observe(
        self, event: monitoring.CommandSucceededEvent | monitoring.CommandFailedEvent, outcome: str
    ) -> None:
        duration = metrics.MONGODB_COMMAND_DURATION.labels(event.command_name, outcome)
        duration.observe(event.duration_micros / 1_000_000)


def database() -> Database[Document]:
    """Return the service's database.

    Its operations raise pymongo.errors.PyMongoError; only the ORM raises django.db.DatabaseError.
    Times that it reads are naive UTC.
    """
    wrapper: Any = connections[DEFAULT_DB_ALIAS]
    found: Database[Document] = wrapper.database
    return found


def collection(name: str) -> Collection[Document]:
    current = database()
    # A collection refers to its client, so no other client can get the same id.
    key = (id(current.client), current.name, name)
    if key not in _collections:
        _collections[key] = current[name]
    return _collections[key]


def first_batch(name: str, where: Mapping[str, Any], *, limit: int, **find: Any) -> list[Document]:
    """Return the result of MongoDB's command find, in one batch of at most 16 MB."""
    one_batch = {"limit": limit, "batchSize": limit, "singleBatch": True}
    command = {"find": name, "filter": where, **find, **one_batch}
    reply = private.read_command(database())(command, "find")
    found: list[Document] = reply["cursor"]["firstBatch"]
    return found


def find_one(
    name: str, where: Mapping[str, Any], projection: Mapping[str, Any], **find: Any
) -> Document | None:
    rows = first_batch(name, where, projection=projection, limit=1, **find)
    return rows[0] if rows else None


def ensure_responsive() -> None:
    """Ping MongoDB unless it has replied to this process within RESPONSIVE_S.

    A frozen server later executes the commands that it received while it was frozen, even if the
    client has given up. Before a write that must not happen after its error response, the ping
    times out in place of the write. It is repeated as a read is, for example on a connection that
    a failover or a firewall has cut. Raises pymongo.errors.PyMongoError.
    """
    if time.monotonic() - Commands.last_reply > RESPONSIVE_S:
        private.read_command(database())({"ping": 1}, "ping")


_collections: dict[tuple[int, str, str], Collection[Document]] = {}
