"""What is counted, timed and logged of every request."""

import logging
from collections.abc import Callable
from functools import cache
from time import perf_counter

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase
from prometheus_client import Counter, Histogram

from conversation_service.observability import metrics
from conversation_service.observability.context import rejection_reason
from conversation_service.observability.routes import NOT_OBSERVED, method_of, route_of

logger = logging.getLogger(__name__)


class ObserveRequests:
    """Count, time and (with ACCESS_LOG) log each request.

    The time ends where the answer's head is ready: of a streamed body it says nothing.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response
        self.in_progress = 0
        metrics.every_second["requests"] = self.tell_progress

    def tell_progress(self) -> None:
        metrics.HTTP_REQUESTS_IN_PROGRESS.set(self.in_progress)

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if request.path_info.startswith(NOT_OBSERVED):
            return self.get_response(request)
        started = perf_counter()
        self.in_progress += 1
        try:
            response = self.get_response(request)
        finally:
            self.in_progress -= 1
        duration_s = perf_counter() - started
        method, route = method_of(request), route_of(request)
        count, duration = _told_of(method, route, response.status_code)
        count.inc()
        duration.observe(duration_s)
        if settings.ACCESS_LOG:
            _log(request, route, response.status_code, duration_s)
        return response


@cache  # as many as there are series, and faster than `labels`
def _told_of(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    return (
        metrics.HTTP_REQUESTS.labels(method, route, status),
        metrics.HTTP_REQUEST_DURATION.labels(method, route),
    )


def _log(request: HttpRequest, route: str, status: int, duration_s: float) -> None:
    """Write a line without the query string: people's words are in it."""
    fields = {
        "http.request.method": request.method,
        "http.response.status_code": status,
        "url.path": request.path,
        "labels.route": route,
        "event.duration": int(duration_s * 1_000_000_000),
    }
    reason = rejection_reason.get()
    if reason:
        fields["event.reason"] = reason
    logger.info(
        "%s %s %d %.1f ms%s",
        request.method,
        request.path,
        status,
        duration_s * 1000,
        f" ({reason})" if reason else "",
        extra=fields,
    )
