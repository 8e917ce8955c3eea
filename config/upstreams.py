"""The upstreams: the services that this service sends requests to.

To add an upstream, add a row here, and its client as a module in conversation_service/upstreams.
The row creates the upstream's environment variables, metrics, part of /health, and row on the
console's dashboard.

gunicorn's master loads this module: do not import Django, PyMongo or redis here.
"""

from dataclasses import dataclass, field

from config.variables import Variable, boolean, choice, http_url, integer, number, path

MAX_CACHED_S = 86_400


@dataclass(frozen=True)
class Upstream:
    """A row in UPSTREAMS. Times are in seconds."""

    # The label `upstream` in metrics and the prefix for keys in Redis; in upper case the variables'
    # prefix; with `_service`, the key in /health.
    name: str
    title: str
    url: str
    read_timeout_s: float
    # A cached response is fresh for `fresh_s`, and is used until `usable_s` if the upstream fails.
    # `absent_s` applies to negative responses, such as 404.
    fresh_s: float = 0.0
    usable_s: float = 0.0
    absent_s: float = 0.0
    health_path: str = "/health"  # a status below 500 is healthy
    # Variables for this upstream alone.
    own_variables: dict[str, Variable] = field(default_factory=dict)

    def variables(self) -> dict[str, Variable]:
        common = {
            "SERVICE_URL": http_url(self.url, f"Base URL of {self.title}"),
            "CONNECT_TIMEOUT_S": number(0.5, 0.01, 60, "Seconds to connect"),
            "READ_TIMEOUT_S": number(
                self.read_timeout_s, 0.01, 60, "Seconds between two bytes of a response"
            ),
            "RETRIES": integer(1, 0, 10, "Retries after a failed attempt"),
            "BREAKER_THRESHOLD": integer(
                5, 1, 10_000, "Failures in a row that open the circuit breaker: no more requests"
            ),
            "BREAKER_RECOVERY_S": number(
                10.0, 0.01, 3_600, "Seconds until an open circuit breaker lets one request through"
            ),
        }
        named = {f"{self.name.upper()}_{option}": each for option, each in common.items()}
        return {**named, **self.own_variables}


UPSTREAMS = {
    upstream.name: upstream
    for upstream in (
        Upstream(
            "auth",
            "Auth",
            url="http://127.0.0.1:8001",
            read_timeout_s=1.0,
            absent_s=10.0,  # a confirmation is cached for AUTH_CACHE_TTL
            own_variables={
                "AUTH_REMOTE_VALIDATION": boolean(
                    False, "Let Auth confirm each token, as only Auth knows which ones are revoked"
                ),
                "AUTH_VALIDATE_PATH": path("/api/v1/auth/validate", "Where Auth confirms a token"),
                "AUTH_CACHE_TTL": integer(
                    60,
                    0,
                    MAX_CACHED_S,
                    "Seconds that a confirmation is cached: a revoked token works that long",
                ),
                "AUTH_FAIL_MODE": choice(
                    "closed",
                    ("closed", "open"),
                    "While Auth does not respond: `closed` rejects every request (503), `open` "
                    "accepts tokens with a valid signature",
                ),
            },
        ),
        Upstream(
            "characters",
            "Characters",
            url="http://127.0.0.1:8002",
            read_timeout_s=1.5,
            fresh_s=300.0,
            usable_s=3_600.0,
            absent_s=30.0,  # a new character is found after this time at the latest
            own_variables={
                "CHARACTER_PATH": path(
                    "/api/v1/characters/{id}",
                    "Where Characters returns one character: by {id}, or by {name} as in "
                    "/api/v1/characters?name={name}",
                    fields=("id", "name"),
                ),
            },
        ),
        Upstream(
            "message",
            "Message",
            url="http://127.0.0.1:8004",
            read_timeout_s=2.0,
            own_variables={
                "MESSAGE_STATS_PATH": path(
                    "/api/v1/conversations/{id}/stats",
                    "Where Message returns the totals of a conversation: "
                    "`manage.py reconcile_activity`",
                    fields=("id",),
                ),
            },
        ),
    )
}
