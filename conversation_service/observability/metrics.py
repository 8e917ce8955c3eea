"""What Prometheus is told. Add a metric where others of its subject are."""

from collections.abc import Callable

from prometheus_client import Counter, Gauge, Histogram

# What goes up and down with each request is told by the worker once a second, not at each change.
every_second: dict[str, Callable[[], None]] = {}

HTTP_REQUESTS = Counter(
    "http_requests",
    "Requests answered, by method, template of the address, and status; without health checks",
    ["method", "route", "status"],
)
HTTP_REQUEST_DURATION = Histogram(
    "http_request_duration_seconds",
    "How long answers took, to the end of their head",
    ["method", "route"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
HTTP_REQUESTS_IN_PROGRESS = Gauge(
    "http_requests_in_progress", "Requests being answered", multiprocess_mode="livesum"
)
BUILD_INFO = Gauge(
    "build_info",
    "Which build answers; always 1",
    ["version", "revision"],
    multiprocess_mode="livemax",
)

MONGODB_COMMAND_DURATION = Histogram(
    "mongodb_command_duration_seconds",
    "How long MongoDB took for a command, the network included, by outcome: succeeded, failed",
    ["command", "outcome"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
MONGODB_POOL_CONNECTIONS = Gauge(
    "mongodb_pool_connections",
    "Connections to MongoDB: open ones, those of them in use, and how many there may be",
    ["state"],
    multiprocess_mode="livesum",
)
MONGODB_WRITABLE = Gauge(
    "mongodb_writable",
    "Whether each worker knows a primary: 0 if one of them does not",
    multiprocess_mode="livemin",
)
MONGODB_HEARTBEAT_FAILURES = Counter(
    "mongodb_heartbeat_failures", "Checks of a MongoDB server that got no answer"
)

AUTHENTICATION_FAILURES = Counter(
    "authentication_failures",
    "Requests answered with 401, by reason: missing, malformed, signature, expired, not_yet_valid,"
    " audience, issuer, claim, kind, revoked",
    ["reason"],
)

# Neighbours: "auth", "characters", "message".
UPSTREAM_REQUESTS = Counter(
    "upstream_requests",
    "Questions to a neighbour, retries included, by outcome: answered, refused, failed, rejected"
    " (the circuit breaker was open), out_of_time (nothing was left of the request's budget)",
    ["upstream", "outcome"],
)
UPSTREAM_REQUEST_DURATION = Histogram(
    "upstream_request_duration_seconds",
    "How long the questions to a neighbour took that were really asked",
    ["upstream"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5),
)
CIRCUIT_BREAKER_STATE = Gauge(
    "circuit_breaker_state",
    "Whether a neighbour is asked: 0 closed (asked), 1 half-open (tried), 2 open (spared)",
    ["upstream"],
    multiprocess_mode="livemax",
)
REMEMBERED_ANSWERS = Counter(
    "remembered_answers",
    "Look-ups in the memory of neighbours' answers, by outcome: fresh, missing, stale (served"
    " because the neighbour did not answer)",
    ["upstream", "outcome"],
)
TOKENS_NOT_CONFIRMED = Counter(
    "tokens_not_confirmed",
    "Tokens accepted after the local check alone, because Auth did not answer and AUTH_FAIL_MODE"
    " is open",
)

REDIS_UNANSWERED = Counter(
    "redis_unanswered", "Questions that Redis, though configured, did not answer"
)
RATE_LIMITED = Counter(
    "rate_limited", "Calls refused with 429, by the policy that was exhausted", ["policy"]
)
