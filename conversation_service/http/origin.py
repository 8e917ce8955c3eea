"""Where a change comes from: what the history of a conversation says of it."""

import re
from dataclasses import dataclass

from rest_framework.request import Request

from conversation_service.observability.context import request_id

_CLIENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,63}")


@dataclass(frozen=True)
class Origin:
    """`by` is "user", or a role and a name, as "service:message" or "staff:ana"."""

    by: str
    client: str | None
    request_id: str


def of_user(request: Request) -> Origin:
    """Take the client from X-Client, or else from the first product of User-Agent."""
    sent = request.META.get("HTTP_X_CLIENT") or request.META.get("HTTP_USER_AGENT", "")
    match = _CLIENT.match(sent)
    return Origin("user", match[0] if match else None, request_id.get())


def of_service(name: str) -> Origin:
    return Origin(f"service:{name}", None, request_id.get())


def of_staff(name: str) -> Origin:
    return Origin(f"staff:{name}", "console", request_id.get())
