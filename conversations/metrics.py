"""Metrics of conversations for Prometheus."""

from prometheus_client import Counter, Gauge

# Prometheus does not scrape the processes of commands: they print their numbers.
EVENTS = Counter(
    "conversation_events",
    "Changes of conversations, by event: created, archived, restored, trashed, purged",
    ["event"],
)
# A response with 503 that these cause is not a failure: the availability objective excludes it.
LIMIT_REJECTIONS = Counter(
    "limit_rejections",
    "Requests rejected with 503 at a limit of concurrent work, by limit: user_streams, streams, "
    "transfers",
    ["limit"],
)
CHANGES_WAITING = Gauge(
    "changes_waiting",
    "Requests and streams that wait for changes, by state: waiting, limit",
    ["state"],
    multiprocess_mode="livesum",
)
