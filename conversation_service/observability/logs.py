"""What log lines carry, and what they must not: no body, no token, no document, no user's name."""

import logging
import re
from hashlib import blake2b
from typing import Any

from ecs_logging import StdlibFormatter

from conversation_service.observability.context import request_id, traceparent, user_id

# MongoDB repeats whole documents in its errors, and people's words with them.
_DOCUMENTS = re.compile(r"(full error|dup key): .*")


def user_hash(user: str, key: str) -> str:
    cut = key.encode()[: blake2b.MAX_KEY_SIZE]
    return blake2b(user.encode(), digest_size=8, key=cut).hexdigest()


class AddRequest(logging.Filter):
    """Tells which request a line belongs to, by names of the Elastic Common Schema.

    A user is 16 hex digits, the same in every line, of use only to who has the key.
    """

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = request_id.get()
        fields = {"http.request.id": request_id.get(), "trace.id": traceparent.get()[3:35]}
        if user := user_id.get():
            fields["user.hash"] = user_hash(user, self.key)
        record.__dict__.update((name, value) for name, value in fields.items() if value.strip("-"))
        return True


class Lines(logging.Formatter):
    """For people: one line a record, and tracebacks below."""

    def format(self, record: logging.LogRecord) -> str:
        return _without_documents(super().format(record))


class EcsObjects(StdlibFormatter):
    """For machines: one JSON object a line."""

    def format_to_ecs(self, record: logging.LogRecord) -> dict[str, Any]:
        fields = super().format_to_ecs(record)
        fields["message"] = _without_documents(fields["message"])
        del fields["log"]["original"]  # the message once more
        for name, text in fields.get("error", {}).items():
            fields["error"][name] = _without_documents(text)
        return fields


def _without_documents(text: str) -> str:
    return _DOCUMENTS.sub(r"\1 left out", text)
