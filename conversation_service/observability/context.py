"""The context of the current request, for each greenlet and thread.

gunicorn's master also logs: this module must not import Django.
"""

from contextvars import ContextVar

NOT_STARTED = 0.0

# ObserveRequests sets these.
NO_REQUEST = "-"  # the id outside a request, for example in a command
request_id: ContextVar[str] = ContextVar("request_id", default=NO_REQUEST)
# The trace of the request (W3C Trace Context); empty if the client sent none.
traceparent: ContextVar[str] = ContextVar("traceparent", default="")
# When the request's time for upstreams ends, by time.monotonic(): NOT_STARTED before the first
# request to an upstream, None outside a request.
upstream_deadline: ContextVar[float | None] = ContextVar("upstream_deadline", default=None)
# Authentication sets these. `rejection_reason` stays empty if the token is accepted.
user_id: ContextVar[str] = ContextVar("user_id", default="")
rejection_reason: ContextVar[str] = ContextVar("rejection_reason", default="")
