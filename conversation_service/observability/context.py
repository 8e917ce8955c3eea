"""The context of the current request. Each greenlet and thread has its own.

Imports nothing: gunicorn's master also logs, and must not import Django.
"""

from contextvars import ContextVar

NOT_STARTED = 0.0

# ObserveRequests sets these.
request_id: ContextVar[str] = ContextVar("request_id", default="-")
# The trace of the request (W3C Trace Context); empty if the client sent none.
traceparent: ContextVar[str] = ContextVar("traceparent", default="")
# time.monotonic() at which the request's time for upstreams ends: NOT_STARTED before the first
# request to an upstream, None outside of a request.
upstream_deadline: ContextVar[float | None] = ContextVar("upstream_deadline", default=None)
# Authentication sets these; empty before it, and for every request that is accepted.
user_id: ContextVar[str] = ContextVar("user_id", default="")
rejection_reason: ContextVar[str] = ContextVar("rejection_reason", default="")
