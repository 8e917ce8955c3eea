"""The health of this process and its dependencies.

Plain Django views, which ignore the Host header: the kubelet requests them by the pod's address.
"""

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial, wraps
from http import HTTPStatus
from threading import Lock
from time import monotonic, perf_counter
from typing import Any
from urllib.parse import urlsplit

import pymongo
from django.conf import settings
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from pymongo.errors import PyMongoError
from redis.exceptions import RedisError

from config.upstreams import UPSTREAMS
from conversation_service import clock, redis
from conversation_service.errors import MethodNotAllowed
from conversation_service.http.exception_handler import failure_response
from conversation_service.mongodb import failures
from conversation_service.mongodb.connection import database
from conversation_service.upstreams import http

logger = logging.getLogger(__name__)

READY_S = 0.5
# Without a primary, PyMongo checks this limit every 0.5 s only, so the callers have limits too.
MONGODB_S = 0.4
REDIS_S = 0.5
UPSTREAM_S = 1.0
REDIS_PROBE = "return redis.call('SET', KEYS[1], '', 'PX', 1000)"
REPORT_S = 1.5  # for all probes, which run concurrently
FRESH_S = 1.5
AGAIN_S = 2  # Retry-After, longer than FRESH_S
# While a request makes a new report, others get the latest report up to this age. Otherwise an
# upstream that requests our health within its own health check would wait for itself.
STALE_S = 60.0

View = Callable[..., HttpResponseBase]


class ProbeFailed(Exception):
    """The dependency cannot be used. The message has the reason."""


def address(url: str) -> str:
    """Return the hosts and ports in a URL, or the Unix socket's path, without the account."""
    scheme, _, rest = str(url).partition("://")
    if scheme.lower() in {"http", "https"}:  # valid, and the path and the query can have an @
        rest = urlsplit(url).netloc
    # Whatever the password in a database's URL contains, the address is after the last @.
    rest = rest.rpartition("@")[2].partition("?")[0]
    if rest.startswith("/"):
        return rest
    hosts = []
    for host in rest.partition("/")[0].split(","):
        name, colon, port = host.rpartition(":")
        # In an invalid URL, a port that is no number can be a password.
        is_shown = not colon or port.isdigit() or host.endswith("]")
        hosts.append(host if is_shown else name)
    return ",".join(hosts)


@dataclass(frozen=True)
class Dependency:
    """A server at a URL; empty: not configured."""

    url: str
    probe: Callable[[], None]

    @property
    def address(self) -> str:
        return address(self.url)


@dataclass(frozen=True)
class Outcome:
    """What a probe found: "healthy", "unhealthy" with a reason, or "not_configured"."""

    status: str
    response_time_ms: float | None = None
    reason: str = ""


def safe_only(view: View) -> View:
    """Allow GET and HEAD only, and let no cache store a response."""

    @wraps(view)
    def wrapped(request: HttpRequest, **parameters: str) -> HttpResponseBase:
        if request.method in {"GET", "HEAD"}:
            response = view(request, **parameters)
        else:
            response = failure_response(request, MethodNotAllowed(headers={"Allow": "GET, HEAD"}))
        response.headers["Cache-Control"] = "no-store"
        return response

    return wrapped


@safe_only
def live(request: HttpRequest) -> HttpResponse:
    """Respond 200: the process works. A failed dependency must not restart it."""
    return JsonResponse({"status": "ok"})


@safe_only
def ready(request: HttpRequest) -> HttpResponse:
    """Respond 200 if MongoDB has a primary that accepts writes, and 503 if not."""
    mongodb = run_probes({"mongodb": dependencies()["mongodb"]}, within_s=READY_S)["mongodb"]
    if mongodb.status == "healthy":
        return JsonResponse({"status": "ready"})
    return unavailable({"status": "not_ready", "reason": "mongodb"})


@safe_only
def report(request: HttpRequest) -> HttpResponse:
    """Respond with the health of this service and each dependency."""
    body = latest()
    return unavailable(body) if body["status"] == "unhealthy" else JsonResponse(body)


def unavailable(body: dict[str, Any]) -> HttpResponse:
    headers = {"Retry-After": str(AGAIN_S)}
    return JsonResponse(body, status=HTTPStatus.SERVICE_UNAVAILABLE, headers=headers)


class _Reports:
    """The latest report. One request at a time makes a new one, to protect the upstreams."""

    def __init__(self) -> None:
        self._making = Lock()
        self._body: dict[str, Any] = {}
        self._made_at = 0.0

    def latest(self) -> dict[str, Any]:
        if self._is_younger_than(FRESH_S):
            return self._body
        if not self._making.acquire(blocking=not self._is_younger_than(STALE_S)):
            return self._body
        try:
            if not self._is_younger_than(FRESH_S):
                self._body = new_report()
                self._made_at = monotonic()
            return self._body
        finally:
            self._making.release()

    def _is_younger_than(self, seconds: float) -> bool:
        return bool(self._body) and monotonic() - self._made_at < seconds


_reports = _Reports()


def latest() -> dict[str, Any]:
    """Return the cached report if it is fresh, or else a new one."""
    return _reports.latest()


def new_report() -> dict[str, Any]:
    outcomes = run_probes(dependencies(), within_s=REPORT_S)
    status = "healthy"
    if outcomes["mongodb"].status == "unhealthy":
        status = "unhealthy"
    elif any(outcome.status == "unhealthy" for outcome in outcomes.values()):
        status = "degraded"
    return {
        "status": status,
        "service": settings.SERVICE_NAME,
        "version": settings.VERSION,
        "environment": settings.ENVIRONMENT,
        "timestamp": clock.now().isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        # Without addresses and reasons: the report needs no token.
        "dependencies": {
            name: {"status": outcome.status, "response_time_ms": outcome.response_time_ms}
            for name, outcome in outcomes.items()
        },
    }


def dependencies(*, patience: float = 1.0) -> dict[str, Dependency]:
    """Return MongoDB, Redis and the upstreams, by their name in the report.

    `patience` multiplies the probes' time limits.
    """
    mongodb, server = settings.DATABASES["default"]["HOST"], settings.REDIS_URL
    found = {
        "mongodb": Dependency(mongodb, partial(_probe_mongodb, MONGODB_S * patience)),
        "redis": Dependency(server, partial(_probe_redis, server, REDIS_S * patience)),
    }
    for upstream in UPSTREAMS.values():
        url: str = getattr(settings, f"{upstream.name.upper()}_SERVICE_URL")
        probe = partial(_probe_http, url, upstream.health_path, UPSTREAM_S * patience)
        found[f"{upstream.name}_service"] = Dependency(url, probe)
    return found


def run_probes(dependencies: Mapping[str, Dependency], *, within_s: float) -> dict[str, Outcome]:
    """Run the probes concurrently. A probe that has not ended within `within_s` is unhealthy."""
    configured = {name: found for name, found in dependencies.items() if found.url}
    executor = ThreadPoolExecutor(len(configured), thread_name_prefix="health")
    running = {name: executor.submit(_timed, found.probe) for name, found in configured.items()}
    wait(running.values(), timeout=within_s)
    executor.shutdown(wait=False)
    outcomes = {}
    for name, dependency in dependencies.items():
        if name not in running:
            outcomes[name] = Outcome("not_configured")
            continue
        if not running[name].done():
            outcomes[name] = Outcome("unhealthy", reason=f"no response within {within_s:g} s")
        elif error := running[name].exception():
            logger.error("A health probe failed", exc_info=error)
            outcomes[name] = Outcome("unhealthy", reason=type(error).__name__)
        else:
            outcomes[name] = running[name].result()
        if reason := outcomes[name].reason:
            logger.warning("%s at %s is unhealthy: %s", name, dependency.address, reason)
    return outcomes


def _timed(probe: Callable[[], None]) -> Outcome:
    started = perf_counter()
    reason = ""
    try:
        probe()
    except (PyMongoError, DatabaseError) as error:
        reason = failures.reason(error)
    except RedisError as error:
        reason = str(error) or type(error).__name__
    except (ProbeFailed, http.UpstreamError) as error:
        reason = str(error)
    response_time_ms = round((perf_counter() - started) * 1000, 1)
    return Outcome("unhealthy" if reason else "healthy", response_time_ms, reason)


def _probe_mongodb(timeout_s: float) -> None:
    with pymongo.timeout(timeout_s):
        reply = database().client.admin.command("hello")
    if not reply.get("isWritablePrimary"):
        raise ProbeFailed("it is not the primary, so it accepts no writes")


def _probe_redis(url: str, timeout_s: float) -> None:
    """Write in a script, as rate limits do: a full or read-only server replies to PING, too."""
    try:
        with redis.connect(url, timeout_s=timeout_s) as client:
            client.register_script(REDIS_PROBE)(keys=["ratelimit:{health}:probe"])
    except (ValueError, TypeError):  # the error contains parts from the URL
        raise ProbeFailed("REDIS_URL is not a valid URL") from None


def _probe_http(url: str, path: str, timeout_s: float) -> None:
    response = http.get(url.rstrip("/") + path, timeout_s=timeout_s, limit=0)
    if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise ProbeFailed(f"GET {path} returned {response.status}")
