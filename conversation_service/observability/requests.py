"""The first middleware: it identifies, counts, times and logs each request."""

import logging
import re
import secrets
from collections.abc import Callable
from functools import cache
from time import perf_counter

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase
from prometheus_client import Counter, Histogram

from conversation_service.observability import context, metrics

logger = logging.getLogger(__name__)

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER_METHOD = "OTHER"
UNMATCHED = "<unmatched>"
# Probes and Prometheus request these every few seconds: neither counted nor logged.
NOT_OBSERVED = ("/health", "/metrics")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_PARAMETER = re.compile(r"<(?:\w+:)?(\w+)>")


class ObserveRequests:
    """Set the context of each request, count and time it, and log it if ACCESS_LOG is on.

    The response has the request's id in `X-Request-ID`. The duration ends when the response's head
    is ready: it excludes the time to send a streamed body.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response
        self.in_progress = 0
        gauge = metrics.HTTP_REQUESTS_IN_PROGRESS
        metrics.every_second["requests"] = lambda: gauge.set(self.in_progress)

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        sent_id = request.META.get("HTTP_X_REQUEST_ID", "")
        request_id = sent_id if _REQUEST_ID.fullmatch(sent_id) else secrets.token_hex(16)
        sent_trace = request.META.get("HTTP_TRACEPARENT", "")
        context.request_id.set(request_id)
        context.traceparent.set(sent_trace if _TRACEPARENT.fullmatch(sent_trace) else "")
        context.user_id.set("")
        context.rejection_reason.set("")
        context.upstream_deadline.set(context.NOT_STARTED)
        if request.path_info.startswith(NOT_OBSERVED):
            response = self.get_response(request)
        else:
            response = self._observe(request)
        context.upstream_deadline.set(None)
        response.headers["X-Request-ID"] = request_id
        return response

    def _observe(self, request: HttpRequest) -> HttpResponseBase:
        started = perf_counter()
        self.in_progress += 1
        try:
            response = self.get_response(request)
        finally:
            self.in_progress -= 1
        duration_s = perf_counter() - started
        method, route = method_and_route(request)
        count, duration = _series(method, route, response.status_code)
        count.inc()
        duration.observe(duration_s)
        if settings.ACCESS_LOG:
            _log(request, route, response.status_code, duration_s)
        return response


def method_and_route(request: HttpRequest) -> tuple[str, str]:
    """Return a request's labels: a known method, and the template of its path.

    For example `GET` and `/api/v1/conversations/{id}`. Clients cannot create new labels.
    """
    method = request.method if request.method in METHODS else OTHER_METHOD
    match = request.resolver_match
    if match and match.route:
        return method, "/" + _PARAMETER.sub(r"{\1}", match.route)
    if request.path_info.startswith(settings.STATIC_URL):
        return method, f"{settings.STATIC_URL}{{path}}"
    return method, UNMATCHED


@cache  # one entry per series; `labels` takes 3 µs
def _series(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    return (
        metrics.HTTP_REQUESTS.labels(method, route, status),
        metrics.HTTP_REQUEST_DURATION.labels(method, route),
    )


def _log(request: HttpRequest, route: str, status: int, duration_s: float) -> None:
    """Log a line without the query string, which can contain search words."""
    fields = {
        "http.request.method": request.method,
        "http.response.status_code": status,
        "url.path": request.path,
        "labels.route": route,
        "event.duration": int(duration_s * 1_000_000_000),
    }
    reason = context.rejection_reason.get()
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
