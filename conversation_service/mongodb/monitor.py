"""What Prometheus is told of MongoDB, by the driver's own events."""

from functools import cache
from math import inf

from prometheus_client import Counter, Histogram
from pymongo import monitoring
from pymongo.common import MAX_POOL_SIZE

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
    count, duration = _told_of(event.command_name, outcome)
    count.inc()
    duration.observe(event.duration_micros / 1_000_000)


@cache  # twice for each command, and faster than `labels`
def _told_of(command: str, outcome: str) -> tuple[Counter, Histogram]:
    return (
        metrics.MONGODB_COMMANDS.labels(command, outcome),
        metrics.MONGODB_COMMAND_DURATION.labels(command),
    )


class Pool(monitoring.ConnectionPoolListener):
    """Counts connections. A pool that is cleared closes each of them by an event of its own."""

    def connection_created(self, event: monitoring.ConnectionCreatedEvent) -> None:
        metrics.MONGODB_CONNECTIONS_OPEN.value += 1

    def connection_closed(self, event: monitoring.ConnectionClosedEvent) -> None:
        metrics.MONGODB_CONNECTIONS_OPEN.value -= 1

    def connection_checked_out(self, event: monitoring.ConnectionCheckedOutEvent) -> None:
        metrics.MONGODB_CONNECTIONS_IN_USE.value += 1

    def connection_checked_in(self, event: monitoring.ConnectionCheckedInEvent) -> None:
        metrics.MONGODB_CONNECTIONS_IN_USE.value -= 1

    def pool_created(self, event: monitoring.PoolCreatedEvent) -> None:
        # There is a pool for each member, but nearly all goes to the primary: one limit counts.
        # The event names what differs from PyMongo's defaults; 0, as None, is no limit.
        limit = event.options.get("maxPoolSize", MAX_POOL_SIZE)
        metrics.MONGODB_CONNECTIONS_LIMIT.set(limit or inf)

    def pool_ready(self, event: monitoring.PoolReadyEvent) -> None: ...
    def pool_cleared(self, event: monitoring.PoolClearedEvent) -> None: ...
    def pool_closed(self, event: monitoring.PoolClosedEvent) -> None: ...
    def connection_ready(self, event: monitoring.ConnectionReadyEvent) -> None: ...
    def connection_check_out_started(
        self, event: monitoring.ConnectionCheckOutStartedEvent
    ) -> None: ...
    def connection_check_out_failed(
        self, event: monitoring.ConnectionCheckOutFailedEvent
    ) -> None: ...


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


LISTENERS = [Commands(), Pool(), Topology(), Heartbeats()]
