"""What Prometheus is told. Add a metric where others of its subject are."""

from prometheus_client import Counter, Gauge, Histogram

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
