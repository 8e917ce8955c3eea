"""What Prometheus is told of MongoDB, by the driver's own events."""

from functools import cache
from math import inf
from typing import Any

from prometheus_client import Histogram
from pymongo import MongoClient, monitoring

from conversation_service.observability import metrics


class Commands(monitoring.CommandListener):
    """Counts and times commands; their names are MongoDB's, so there are few."""

    def started(self, event: monitoring.CommandStartedEvent) -> None: ...

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        _ended(event, "succeeded")

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        _ended(event, "failed")


def _ended(
    event: monitoring.CommandSucceededEvent | monitoring.CommandFailedEvent, outcome: str
) -> None:
    _duration_of(event.command_name, outcome).observe(event.duration_micros / 1_000_000)


@cache  # faster than `labels`
def _duration_of(command: str, outcome: str) -> Histogram:
    return metrics.MONGODB_COMMAND_DURATION.labels(command, outcome)


class Topology(monitoring.TopologyListener):
    def opened(self, event: monitoring.TopologyOpenedEvent) -> None: ...

    def description_changed(self, event: monitoring.TopologyDescriptionChangedEvent) -> None:
        metrics.MONGODB_WRITABLE.set(event.new_description.has_writable_server())

    def closed(self, event: monitoring.TopologyClosedEvent) -> None: ...


class Heartbeats(monitoring.ServerHeartbeatListener):
    def started(self, event: monitoring.ServerHeartbeatStartedEvent) -> None: ...

    def succeeded(self, event: monitoring.ServerHeartbeatSucceededEvent) -> None: ...

    def failed(self, event: monitoring.ServerHeartbeatFailedEvent) -> None:
        metrics.MONGODB_HEARTBEAT_FAILURES.inc()


LISTENERS = [Commands(), Topology(), Heartbeats()]


def watch(client: MongoClient[Any]) -> None:
    """Tell of a client's connections every second.

    PyMongo would tell of each event, and each command has three. There is a pool for each member,
    but nearly all goes to the primary: one limit counts.
    """
    limit = client.options.pool_options.max_pool_size
    metrics.MONGODB_POOL_CONNECTIONS.labels("limit").set(limit or inf)

    def tell() -> None:
        pools = [server.pool for server in [*client._topology._servers.values()]]
        in_use = sum(pool.active_sockets for pool in pools)
        resting = sum(len(pool.conns) for pool in pools)
        metrics.MONGODB_POOL_CONNECTIONS.labels("in_use").set(in_use)
        metrics.MONGODB_POOL_CONNECTIONS.labels("open").set(in_use + resting)

    metrics.every_second["mongodb"] = tell
