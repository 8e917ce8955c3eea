"""What is known of the request that is being answered; a greenlet has a context of its own.

Imports nothing: gunicorn's master logs too, before Django may be imported.
"""

from contextvars import ContextVar

# Set by middleware.RequestId.
request_id: ContextVar[str] = ContextVar("request_id", default="-")
# The trace that it belongs to (W3C Trace Context); empty if the caller sent none.
traceparent: ContextVar[str] = ContextVar("traceparent", default="")
# Set by authentication; empty before.
user_id: ContextVar[str] = ContextVar("user_id", default="")
# Why the request gets 401, see rejections.py; empty for every other request.
rejection_reason: ContextVar[str] = ContextVar("rejection_reason", default="")
