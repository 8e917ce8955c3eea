"""The actor that makes a revision, as the history shows it."""

from dataclasses import dataclass
from typing import Self

from conversation_service.observability.context import request_id


@dataclass(frozen=True)
class Actor:
    """`by` is "user", or a role and a name, for example "service:message" or "staff:ana"."""

    by: str
    client: str | None
    request_id: str

    @classmethod
    def service(cls, name: str) -> Self:
        return cls(f"service:{name}", None, request_id.get())

    @classmethod
    def staff(cls, name: str) -> Self:
        return cls(f"staff:{name}", "console", request_id.get())
