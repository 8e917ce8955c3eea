"""Metrics and log lines about MongoDB, from events of the driver."""

import logging
from math import inf
from time import monotonic
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections
from pymongo import MongoClient, monitoring
from pymongo.errors import PyMongoError
from pymongo.topology_description import TOPOLOGY_TYPE

from conversation_service.errors import DatabaseUnavailable
from conversation_service.mongodb import failures
from conversation_service.mongodb.connection import Commands
from conversation_service.observability import metrics
from conversation_service.server import private

logger = logging.getLogger(__name__)

# A reason that repeats within this time is logged once. With a wrong password, each request marks
# the member as failed and each heartbeat marks it as working.
REMEMBERED_S = 60.0


class Topology(monitoring.TopologyListener):
    """Logs why members cannot be used, each reason once."""

    def __init__(self) -> None:
        self._failures: dict[tuple[str, str], float] = {}

    def opened(self, event: monitoring.TopologyOpenedEvent) -> None: ...

    def description_changed(self, event: monitoring.TopologyDescriptionChangedEvent) -> None:
        described = event.new_description
        metrics.MONGODB_WRITABLE.set(described.has_writable_server())
        members = described.server_descriptions()
        for address, member in members.items():
            if member.error is not None:
                self.log_failure(_named(address), failures.reason(member.error))
        # PyMongo drops a member of another replica set and keeps no error.
        if not members and described.topology_type != TOPOLOGY_TYPE.Unknown:
            wanted = described.replica_set_name
            self.log_failure("MONGODB_URL", f"no host belongs to the replica set {wanted!r}")

    def closed(self, event: monitoring.TopologyClosedEvent) -> None: ...

    def log_failure(self, member: str, reason: str) -> None:
        """Log why a member cannot be used, unless this reason was logged before."""
        reason = reason.removeprefix(f"{member}: ")
        now = monotonic()
        recent = {key: at for key, at in self._failures.items() if now - at < REMEMBERED_S}
        if (member, reason) not in recent:
            logger.warning("MongoDB at %s cannot be used: %s", member, reason)
        self._failures = {**recent, (member, reason): now}


class Heartbeats(monitoring.ServerHeartbeatListener):
    def started(self, event: monitoring.ServerHeartbeatStartedEvent) -> None: ...

    def succeeded(self, event: monitoring.ServerHeartbeatSucceededEvent) -> None: ...

    def failed(self, event: monitoring.ServerHeartbeatFailedEvent) -> None:
        metrics.MONGODB_HEARTBEAT_FAILURES.inc()


topology = Topology()
LISTENERS = [Commands(), topology, Heartbeats()]


def unavailable(error: PyMongoError) -> DatabaseUnavailable:
    """Log an unavailability, by its name and the member, and return the failure to respond with."""
    logger.error("MongoDB is unavailable: %s, %s", failures.name(error), _members())
    return DatabaseUnavailable()


def _members() -> str:
    """Return the primary as host:port, or all members if there is none."""
    client: MongoClient[Any] | None = connections[DEFAULT_DB_ALIAS].connection
    members = client.topology_description.server_descriptions() if client else {}
    for address, member in members.items():
        if member.is_writable:
            return f"primary {_named(address)}"
    known = ", ".join(sorted(map(_named, members)))
    return f"no primary among {known}" if known else "no member is known"


def _named(address: tuple[str, int | None]) -> str:
    return f"{address[0]}:{address[1]}"


def watch(client: MongoClient[Any]) -> None:
    """Publish the number of connections of a client each second, and their limit now.

    One limit is published, as nearly all commands go to the primary.
    """
    limit = client.options.pool_options.max_pool_size
    metrics.MONGODB_POOL_CONNECTIONS.labels("limit").set(limit or inf)

    def publish() -> None:
        opened, in_use = private.pool_sizes(client)
        metrics.MONGODB_POOL_CONNECTIONS.labels("open").set(opened)
        metrics.MONGODB_POOL_CONNECTIONS.labels("in_use").set(in_use)

    metrics.every_second["mongodb"] = publish
