"""The trace that a request belongs to (W3C Trace Context), to be passed on to neighbours."""

import re
from contextvars import ContextVar

# Set for each request by middleware.RequestId; empty if the caller sent none.
traceparent: ContextVar[str] = ContextVar("traceparent", default="")

_VALID = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def accepted(sent: str) -> str:
    """Return a traceparent as it was sent, or nothing if it is not one."""
    return sent if _VALID.fullmatch(sent) else ""
