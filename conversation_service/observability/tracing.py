# ruff: noqa: PLC0415 - what exports is not imported unless it is used
"""The trace that a request belongs to (W3C Trace Context), passed on to neighbours and logs.

With OTEL_EXPORTER_OTLP_ENDPOINT set, spans are recorded of requests, of the commands to MongoDB
and Redis, and of what neighbours are asked. OpenTelemetry's own middleware for Django is not used:
it judges the Host header of every call, and records query strings, with people's words in them.
"""

import re
from collections.abc import Callable
from http import HTTPStatus

from django.conf import settings
from django.core.exceptions import MiddlewareNotUsed
from django.http import HttpRequest, HttpResponseBase

from conversation_service.observability.context import traceparent
from conversation_service.observability.routes import NOT_OBSERVED, method_of, route_of

_VALID = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def accepted(sent: str) -> str:
    """Return a traceparent as it was sent, or nothing if it is not one."""
    return sent if _VALID.fullmatch(sent) else ""


def start(*, service: str, version: str) -> None:
    """Record and send spans from here on.

    For each worker, before it has a MongoClient. OpenTelemetry reads its other settings
    (OTEL_TRACES_SAMPLER …) from the environment.
    """
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.pymongo import PymongoInstrumentor
    from opentelemetry.instrumentation.redis import RedisInstrumentor
    from opentelemetry.instrumentation.requests import RequestsInstrumentor
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create({"service.name": service, "service.version": version})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    PymongoInstrumentor().instrument()
    RedisInstrumentor().instrument()
    RequestsInstrumentor().instrument()


class TraceRequests:
    """Record a span of each request, by its template and without its query string."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        if not settings.OTEL_EXPORTER_OTLP_ENDPOINT:
            raise MiddlewareNotUsed
        from opentelemetry import propagate, trace

        self.get_response = get_response
        self.propagate = propagate
        self.kind = trace.SpanKind.SERVER
        self.failed = trace.StatusCode.ERROR
        self.tracer = trace.get_tracer(__name__)

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if request.path_info.startswith(NOT_OBSERVED):
            return self.get_response(request)
        parent = self.propagate.extract({"traceparent": traceparent.get()})
        with self.tracer.start_as_current_span("request", parent, self.kind) as span:
            # As it came, where OTEL_SDK_DISABLED or OTEL_PROPAGATORS leave nothing to pass on.
            carrier = {"traceparent": traceparent.get()}
            self.propagate.inject(carrier)
            traceparent.set(carrier["traceparent"])
            response = self.get_response(request)
            method, route = method_of(request), route_of(request)
            span.update_name(f"{method} {route}")
            if response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
                span.set_status(self.failed)
            span.set_attributes(
                {
                    "http.request.method": method,
                    "http.route": route,
                    "http.response.status_code": response.status_code,
                    "url.path": request.path,
                }
            )
            return response
