"""The metrics of the platform, by subject."""

from collections.abc import Callable

from prometheus_client import Counter, Gauge, Histogram

# Functions that set gauges. The worker calls them every second: cheaper than at each change.
every_second: dict[str, Callable[[], None]] = {}

HTTP_REQUESTS = Counter(
    "http_requests",
    "Requests, by method, route and status, without health checks",
    ["method", "route", "status"],
)
HTTP_REQUEST_DURATION = Histogram(
    "http_request_duration_seconds",
    "Seconds until the head of the response was ready, by method and route",
    ["method", "route"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
HTTP_REQUESTS_IN_PROGRESS = Gauge(
    "http_requests_in_progress", "Requests in progress", multiprocess_mode="livesum"
)
BUILD_INFO = Gauge(
    "build_info",
    "Version and revision of the running build; always 1",
    ["version", "revision"],
    multiprocess_mode="livemax",
)

MONGODB_COMMAND_DURATION = Histogram(
    "mongodb_command_duration_seconds",
    "Seconds of a MongoDB command with the network, by outcome: succeeded, failed",
    ["command", "outcome"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
MONGODB_POOL_CONNECTIONS = Gauge(
    "mongodb_pool_connections",
    "Connections to MongoDB, by state: open, in_use (a part of open), limit",
    ["state"],
    multiprocess_mode="livesum",
)
MONGODB_WRITABLE = Gauge(
    "mongodb_writable",
    "1 if each worker knows a primary of MongoDB, else 0",
    multiprocess_mode="livemin",
)
MONGODB_HEARTBEAT_FAILURES = Counter(
    "mongodb_heartbeat_failures", "Heartbeats to a MongoDB server without a reply"
)

AUTHENTICATION_FAILURES = Counter(
    "authentication_failures",
    "Responses with 401, by reason: missing, malformed, signature, expired, not_yet_valid,"
    " audience, issuer, claim, kind, revoked",
    ["reason"],
)

# The label `upstream` names a row in config/upstreams.py.
UPSTREAM_REQUESTS = Counter(
    "upstream_requests",
    "Requests to an upstream with their retries, by outcome: answered, refused (by the upstream),"
    " failed, rejected (the circuit breaker was open), out_of_time (NEIGHBOUR_BUDGET_S is over)",
    ["upstream", "outcome"],
)
UPSTREAM_REQUEST_DURATION = Histogram(
    "upstream_request_duration_seconds",
    "Seconds of each request that was sent to an upstream",
    ["upstream"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5),
)
CIRCUIT_BREAKER_STATE = Gauge(
    "circuit_breaker_state",
    "0 closed, 1 half-open, 2 open",
    ["upstream"],
    multiprocess_mode="livemax",
)
REMEMBERED_ANSWERS = Counter(
    "remembered_answers",
    "Look-ups in the cache of responses of an upstream, by outcome: fresh, missing, stale (used"
    " because the upstream did not respond)",
    ["upstream", "outcome"],
)
TOKENS_NOT_CONFIRMED = Counter(
    "tokens_not_confirmed",
    "Tokens accepted by their signature alone, because Auth did not respond and AUTH_FAIL_MODE"
    " is open",
)

REDIS_UNANSWERED = Counter(
    "redis_unanswered", "Commands without a reply of Redis, if it is configured"
)
RATE_LIMITED = Counter("rate_limited", "Responses with 429, by the exhausted policy", ["policy"])
