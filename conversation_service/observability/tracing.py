# ruff: noqa: PLC0415 - OpenTelemetry is imported only if it is used
"""Traces of requests (W3C Trace Context).

With OTEL_EXPORTER_OTLP_ENDPOINT set, the service records spans for requests, for commands to
MongoDB and Redis, and for requests to upstreams. It does not use OpenTelemetry's middleware for
Django, which rejects requests by their Host header, and records query strings with search words.
Spans have no URLs, errors and exceptions: their texts contain ids, and documents of users.
"""

from collections.abc import Callable, Sequence
from http import HTTPStatus

from django.conf import settings
from django.core.exceptions import MiddlewareNotUsed
from django.http import HttpRequest, HttpResponseBase

from conversation_service.observability.context import traceparent
from conversation_service.observability.requests import NOT_OBSERVED, method_and_route

_URLS = frozenset({"http.url", "http.target", "url.full", "url.path", "url.query"})


def start(*, service: str, version: str) -> None:
    """Record and send spans. Each worker calls this before it creates its MongoClient."""
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.pymongo import PymongoInstrumentor
    from opentelemetry.instrumentation.redis import RedisInstrumentor
    from opentelemetry.instrumentation.requests import RequestsInstrumentor
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult

    class Exporter(OTLPSpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            return super().export([without_texts(span) for span in spans])

    def without_texts(span: ReadableSpan) -> ReadableSpan:
        attributes = span.attributes or {}
        return ReadableSpan(
            span.name,
            span.context,
            span.parent,
            span.resource,
            {name: value for name, value in attributes.items() if name not in _URLS},
            links=span.links,
            kind=span.kind,
            status=trace.Status(span.status.status_code),
            start_time=span.start_time,
            end_time=span.end_time,
            instrumentation_scope=span.instrumentation_scope,
        )

    # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES take precedence.
    resource = Resource.create({"service.name": service, "service.version": version})
    resource = resource.merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(Exporter()))
    trace.set_tracer_provider(provider)
    PymongoInstrumentor().instrument()
    RedisInstrumentor().instrument()
    RequestsInstrumentor().instrument()


class TraceRequests:
    """Record a span for each request, named by its route, without the query string."""

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
            # With OTEL_SDK_DISABLED or other OTEL_PROPAGATORS, the sent value is passed on.
            carrier = {"traceparent": traceparent.get()}
            self.propagate.inject(carrier)
            traceparent.set(carrier["traceparent"])
            response = self.get_response(request)
            method, route = method_and_route(request)
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
