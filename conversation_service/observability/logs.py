"""What log lines carry, and what they must not."""

import logging
import re
from contextvars import ContextVar

# Set for each request by middleware.RequestId; a greenlet has a context of its own.
request_id: ContextVar[str] = ContextVar("request_id", default="-")

# MongoDB repeats whole documents in its errors, and people's words with them.
_DOCUMENTS = re.compile(r"(full error|dup key): .*")


class AddRequestId(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = request_id.get()
        return True


class WithoutDocuments(logging.Formatter):
    """Cuts what MongoDB's errors quote from messages and tracebacks."""

    def format(self, record: logging.LogRecord) -> str:
        return _DOCUMENTS.sub(r"\1 left out", super().format(record))
