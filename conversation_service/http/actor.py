"""The actor that makes a revision, as the history shows it."""

import re
from dataclasses import dataclass
from typing import Self

from rest_framework.request import Request

from conversation_service.observability.context import request_id

_CLIENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,63}")


@dataclass(frozen=True)
class Actor:
    """`by` is "user", or a role and a name, for example "service:message" or "staff:ana"."""

    by: str
    client: str | None
    request_id: str

    @classmethod
    def user(cls, request: Request) -> Self:
        """Read the client from X-Client, or from the first product in User-Agent."""
        sent = request.META.get("HTTP_X_CLIENT") or request.META.get("HTTP_USER_AGENT", "")
        match = _CLIENT.match(sent)
        return cls("user", match[0] if match else None, request_id.get())

    @classmethod
    def service(cls, name: str) -> Self:
        return cls(f"service:{name}", None, request_id.get())

    @classmethod
    def staff(cls, name: str) -> Self:
        return cls(f"staff:{name}", "console", request_id.get())
