"""Metrics of conversations for Prometheus."""

from prometheus_client import Counter, Gauge

# Prometheus scrapes only the commands that serve events. Others print their numbers.
EVENTS = Counter(
    "conversation_events",
    "Changes of conversations, by event: created, archived, restored, trashed, purged",
    ["event"],
)
CREATED = EVENTS.labels("created")
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
EVENTS_PUBLISHED = Counter(
    "events_published", "Events appended to the event log, by type", ["type"]
)
EVENTS_REPAIRED = Counter(
    "events_repaired", "Events that a repair has appended, as the change stream had missed them"
)
EVENTS_LAG = Gauge(
    "events_lag_seconds",
    "Seconds since the latest time up to which this process has published every change; up to 10 "
    "without changes, 0 while another process publishes",
    multiprocess_mode="livemax",
)

# Webhooks, in the process of `manage.py deliver_webhooks`.
WEBHOOK_ATTEMPTS = Counter(
    "webhook_attempts",
    "Requests to webhook endpoints, by outcome: delivered (2xx), rejected (another status), failed"
    " (no usable reply)",
    ["outcome"],
)
WEBHOOK_PENDING = Gauge(
    "webhook_pending",
    "Deliveries that have failed or wait behind one, of the endpoints that this process has",
)
WEBHOOK_BEHIND = Gauge(
    "webhook_behind_events",
    "Events after an endpoint's position, of the endpoints that this process has",
    ["endpoint"],
)
WEBHOOK_DISABLED = Counter(
    "webhook_endpoints_disabled",
    "Endpoints disabled after failures, by reason: failing (no success for days), gone (410)",
    ["reason"],
)
# Prometheus sees no increase in a series that begins with 1.
for _outcome in ("delivered", "rejected", "failed"):
    WEBHOOK_ATTEMPTS.labels(_outcome)
for _reason in ("failing", "gone"):
    WEBHOOK_DISABLED.labels(_reason)
