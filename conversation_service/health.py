"""What probes and people ask of this process.

Plain Django views that never look at the Host header: the kubelet calls by the pod's address.
"""

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
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

from conversation_service import clock
from conversation_service.errors import MethodNotAllowed
from conversation_service.http.exception_handler import failure_response
from conversation_service.mongodb.connection import database
from conversation_service.upstreams import http

logger = logging.getLogger(__name__)

READY_S = 0.5
# While there is no primary, PyMongo looks at the clock every 0.5 s only: it keeps this limit
# loosely, and what waits for it has a limit of its own.
MONGODB_S = 0.4
REDIS_S = 0.5
NEIGHBOUR_S = 1.0
REPORT_S = 1.5  # for all of them together, as they are asked at once
FRESH_S = 1.5
# How old a report may be that is handed out while the next one is being made: a neighbour whose
# own report asks for ours would otherwise wait for itself.
STALE_S = 60.0

Probe = Callable[[], None]
View = Callable[[HttpRequest], HttpResponseBase]


class ProbeFailed(Exception):
    """The other side answered, and the answer is not good."""


ANSWERED_BADLY = (ProbeFailed, PyMongoError, DatabaseError, RedisError, http.NoAnswer)


def safe_only(view: View) -> View:
    """Allow GET and HEAD, and keep answers out of every cache."""

    @wraps(view)
    def wrapped(request: HttpRequest) -> HttpResponseBase:
        if request.method in {"GET", "HEAD"}:
            response = view(request)
        else:
            response = failure_response(request, MethodNotAllowed(headers={"Allow": "GET, HEAD"}))
        response.headers["Cache-Control"] = "no-store"
        return response

    return wrapped


@safe_only
def live(request: HttpRequest) -> HttpResponse:
    """Tell that this process answers; a dependency that is down must not restart it."""
    return JsonResponse({"status": "ok"})


@safe_only
def ready(request: HttpRequest) -> HttpResponse:
    """Tell whether requests can be served: MongoDB has a primary that takes writes."""
    mongodb = _ask_all({"mongodb": _ask_mongodb}, within_s=READY_S)["mongodb"]
    if mongodb["status"] == "healthy":
        return JsonResponse({"status": "ready"})
    return JsonResponse(
        {"status": "not_ready", "reason": "mongodb"}, status=HTTPStatus.SERVICE_UNAVAILABLE
    )


@safe_only
def report(request: HttpRequest) -> HttpResponse:
    """Tell how this service and everything it depends on are."""
    body = latest()
    down = body["status"] == "unhealthy"
    return JsonResponse(body, status=HTTPStatus.SERVICE_UNAVAILABLE if down else HTTPStatus.OK)


class _Reports:
    """The latest report, made by one request at a time, so that nobody can hammer neighbours."""

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
                self._body = _report()
                self._made_at = monotonic()
            return self._body
        finally:
            self._making.release()

    def _is_younger_than(self, seconds: float) -> bool:
        return bool(self._body) and monotonic() - self._made_at < seconds


_reports = _Reports()


def latest() -> dict[str, Any]:
    """Return the report, made now unless there is a fresh one."""
    return _reports.latest()


def _report() -> dict[str, Any]:
    dependencies = _ask_all(
        {
            "mongodb": _ask_mongodb,
            "redis": partial(_ask_redis, settings.REDIS_URL) if settings.REDIS_URL else None,
            "auth_service": _neighbour(settings.AUTH_SERVICE_URL),
            "characters_service": _neighbour(settings.CHARACTERS_SERVICE_URL),
            "message_service": _neighbour(settings.MESSAGE_SERVICE_URL),
        },
        within_s=REPORT_S,
    )
    return {
        "status": _overall(dependencies),
        "service": settings.SERVICE_NAME,
        "version": settings.VERSION,
        "environment": settings.ENVIRONMENT,
        "timestamp": clock.now().isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "dependencies": dependencies,
    }


def _overall(dependencies: dict[str, dict[str, Any]]) -> str:
    if dependencies["mongodb"]["status"] == "unhealthy":
        return "unhealthy"
    if any(dependency["status"] == "unhealthy" for dependency in dependencies.values()):
        return "degraded"
    return "healthy"


def _ask_all(probes: dict[str, Probe | None], *, within_s: float) -> dict[str, dict[str, Any]]:
    asked = {name: probe for name, probe in probes.items() if probe}
    executor = ThreadPoolExecutor(len(asked), thread_name_prefix="health")
    answers = {name: executor.submit(_timed, name, probe) for name, probe in asked.items()}
    wait(answers.values(), timeout=within_s)
    executor.shutdown(wait=False)
    return {
        name: _outcome(answers[name]) if name in answers else _described("not_configured")
        for name in probes
    }


def _timed(name: str, probe: Probe) -> dict[str, Any]:
    started = perf_counter()
    status = "healthy"
    try:
        probe()
    except ANSWERED_BADLY as error:
        logger.warning("%s is unhealthy: %s", name, type(error).__name__)
        status = "unhealthy"
    return _described(status, round((perf_counter() - started) * 1000, 1))


def _outcome(answer: Future[dict[str, Any]]) -> dict[str, Any]:
    """Return what a probe found; one that has not ended, or has a bug, found nothing good."""
    if not answer.done():
        return _described("unhealthy")
    if error := answer.exception():
        logger.error("A health probe failed", exc_info=error)
        return _described("unhealthy")
    return answer.result()


def _described(status: str, response_time_ms: float | None = None) -> dict[str, Any]:
    return {"status": status, "response_time_ms": response_time_ms}


def _ask_mongodb() -> None:
    with pymongo.timeout(MONGODB_S):
        answer = database().client.admin.command("hello")
    if not answer.get("isWritablePrimary"):
        raise ProbeFailed


def _ask_redis(url: str) -> None:
    try:
        with redis.Redis.from_url(
            url,
            socket_connect_timeout=REDIS_S,
            socket_timeout=REDIS_S,
            retry=Retry(NoBackoff(), retries=0),
        ) as client:
            client.ping()
    except (ValueError, TypeError):  # the address cannot be read, and the error shows parts of it
        raise ProbeFailed from None


def _neighbour(url: str) -> Probe | None:
    return partial(_ask_neighbour, url) if url else None


def _ask_neighbour(url: str) -> None:
    answer = http.get(f"{url.rstrip('/')}/health", timeout_s=NEIGHBOUR_S, limit=0)
    if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise ProbeFailed
