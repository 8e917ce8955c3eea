"""The health of this process and its dependencies.

Plain Django views, which ignore the Host header: the kubelet requests them by the pod's address.
"""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial, wraps
from http import HTTPStatus
from threading import Lock
from time import monotonic, perf_counter
from typing import Any

import pymongo
import redis
from django.conf import settings
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from pymongo.errors import PyMongoError
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from config.upstreams import UPSTREAMS
from conversation_service import clock
from conversation_service.errors import MethodNotAllowed
from conversation_service.http.exception_handler import failure_response
from conversation_service.mongodb.connection import database
from conversation_service.upstreams import http

logger = logging.getLogger(__name__)

READY_S = 0.5
# Without a primary, PyMongo checks this limit every 0.5 s only, so the callers have limits too.
MONGODB_S = 0.4
REDIS_S = 0.5
UPSTREAM_S = 1.0
REPORT_S = 1.5  # for all probes, which run concurrently
FRESH_S = 1.5
# While a request makes a new report, others get the latest report up to this age. Otherwise an
# upstream that requests our health within its own health check would wait for itself.
STALE_S = 60.0

Probe = Callable[[], None]
View = Callable[..., HttpResponseBase]


class ProbeFailed(Exception):
    """The dependency responded, and is not healthy."""


FAILURES = (ProbeFailed, PyMongoError, DatabaseError, RedisError, http.UpstreamError)


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
    mongodb = _run_all({"mongodb": _probe_mongodb}, within_s=READY_S)["mongodb"]
    if mongodb["status"] == "healthy":
        return JsonResponse({"status": "ready"})
    return JsonResponse(
        {"status": "not_ready", "reason": "mongodb"}, status=HTTPStatus.SERVICE_UNAVAILABLE
    )


@safe_only
def report(request: HttpRequest) -> HttpResponse:
    """Respond with the health of this service and each dependency."""
    body = latest()
    down = body["status"] == "unhealthy"
    return JsonResponse(body, status=HTTPStatus.SERVICE_UNAVAILABLE if down else HTTPStatus.OK)


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
    probes: dict[str, Probe | None] = {
        "mongodb": _probe_mongodb,
        "redis": partial(_probe_redis, settings.REDIS_URL) if settings.REDIS_URL else None,
    }
    for upstream in UPSTREAMS.values():
        url: str = getattr(settings, f"{upstream.name.upper()}_SERVICE_URL")
        probe = partial(_probe_http, url, upstream.health_path) if url else None
        probes[f"{upstream.name}_service"] = probe
    dependencies = _run_all(probes, within_s=REPORT_S)
    status = "healthy"
    if dependencies["mongodb"]["status"] == "unhealthy":
        status = "unhealthy"
    elif any(dependency["status"] == "unhealthy" for dependency in dependencies.values()):
        status = "degraded"
    return {
        "status": status,
        "service": settings.SERVICE_NAME,
        "version": settings.VERSION,
        "environment": settings.ENVIRONMENT,
        "timestamp": clock.now().isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "dependencies": dependencies,
    }


def _run_all(probes: dict[str, Probe | None], *, within_s: float) -> dict[str, dict[str, Any]]:
    """Run the probes concurrently. A probe that has not ended within `within_s` is unhealthy."""
    configured = {name: probe for name, probe in probes.items() if probe}
    executor = ThreadPoolExecutor(len(configured), thread_name_prefix="health")
    results = {name: executor.submit(_timed, name, probe) for name, probe in configured.items()}
    wait(results.values(), timeout=within_s)
    executor.shutdown(wait=False)
    outcomes = {}
    for name in probes:
        if name not in results:
            outcomes[name] = _described("not_configured")
        elif not results[name].done():
            outcomes[name] = _described("unhealthy")
        elif error := results[name].exception():
            logger.error("A health probe failed", exc_info=error)
            outcomes[name] = _described("unhealthy")
        else:
            outcomes[name] = results[name].result()
    return outcomes


def _timed(name: str, probe: Probe) -> dict[str, Any]:
    started = perf_counter()
    status = "healthy"
    try:
        probe()
    except FAILURES as error:
        logger.warning("%s is unhealthy: %s", name, type(error).__name__)
        status = "unhealthy"
    return _described(status, round((perf_counter() - started) * 1000, 1))


def _described(status: str, response_time_ms: float | None = None) -> dict[str, Any]:
    return {"status": status, "response_time_ms": response_time_ms}


def _probe_mongodb() -> None:
    with pymongo.timeout(MONGODB_S):
        reply = database().client.admin.command("hello")
    if not reply.get("isWritablePrimary"):
        raise ProbeFailed


def _probe_redis(url: str) -> None:
    try:
        with redis.Redis.from_url(
            url,
            socket_connect_timeout=REDIS_S,
            socket_timeout=REDIS_S,
            retry=Retry(NoBackoff(), retries=0),
        ) as client:
            client.ping()
    except (ValueError, TypeError):  # an invalid URL; the error contains parts of it
        raise ProbeFailed from None


def _probe_http(url: str, path: str) -> None:
    response = http.get(url.rstrip("/") + path, timeout_s=UPSTREAM_S, limit=0)
    if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise ProbeFailed
