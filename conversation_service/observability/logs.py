"""Log lines, without bodies, tokens, documents and user names.

No logged value can start a new line, or reach a terminal as a control character.
"""

import atexit
import io
import json
import logging
import re
import sys
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, TextIO

import orjson

from config.logs import FORMATTERS
from conversation_service.observability.context import request_id, traceparent, user_id

# MongoDB errors contain whole documents.
_DOCUMENTS = re.compile(r"(full error|dup key): .*", re.DOTALL)
# Control characters (C0, DEL, C1), line and paragraph separators, invisible marks, marks that
# reverse the text direction, and surrogates, which no stream can write.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)

# The attributes of every record; `request_id` repeats http.request.id. Django adds `request`, which
# has the query string with its search words, and `status_code`.
_NOT_LOGGED = frozenset(logging.makeLogRecord({}).__dict__) | {
    *("message", "asctime", "taskName", "request_id", "request", "status_code"),
}


def user_hash(user: str, key: str) -> str:
    cut = key.encode()[: blake2b.MAX_KEY_SIZE]
    return blake2b(user.encode(), digest_size=8, key=cut).hexdigest()


class AddRequest(logging.Filter):
    """Adds the request to each record, in fields of the Elastic Common Schema.

    A user appears as a keyed hash, 16 hex digits, the same in every line.
    """

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key

    def filter(self, record: logging.LogRecord) -> bool:
        fields = vars(record)
        fields["request_id"] = request_id.get()
        if fields["request_id"].strip("-"):
            fields["http.request.id"] = fields["request_id"]
        if trace_id := traceparent.get()[3:35]:
            fields["trace.id"] = trace_id
        if user := user_id.get():
            fields["user.hash"] = user_hash(user, self.key)
        return True


class RejectedRequests(logging.Filter):
    """Turns Django's errors about suspicious requests into warnings without a traceback.

    Their cause is the client, which gets a 400.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.startswith("django.security."):
            record.levelno, record.levelname = logging.WARNING, "WARNING"
            record.exc_info = None
        return True


class OnlyTracebacks(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return bool(record.exc_info)


class Lines(logging.Formatter):
    """Text: one line per record, with indented tracebacks below."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return _one_line(_without_documents(super().formatMessage(record)))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return _indented(_without_documents(super().formatException(ei)))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802
        return _indented(super().formatStack(stack_info))

    def format(self, record: logging.LogRecord) -> str:
        # logging caches a traceback's text in the record, for the formatters of all handlers.
        record.exc_text = None
        return super().format(record)


class EcsObjects(logging.Formatter):
    """One JSON object per line, with fields of the Elastic Common Schema.

    Fields in `extra` of a record, and in `common` of each record, become nested objects:
    `http.request.id` becomes `{"http": {"request": {"id": …}}}`.
    """

    def __init__(self, common: dict[str, str] | None = None) -> None:
        super().__init__()
        self.common: dict[str, Any] = {}
        for name, value in (common or {}).items():
            _nest(self.common, name, value)

    def format(self, record: logging.LogRecord) -> str:
        created = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields: dict[str, Any] = {
            "@timestamp": created.replace("+00:00", "Z"),
            "log.level": record.levelname.lower(),
            "message": _without_documents(record.getMessage()),
            "ecs.version": "1.6.0",
            "log": {"logger": record.name},
            "process": {"pid": record.process},
        }
        for name, value in vars(record).items():
            if name not in _NOT_LOGGED:
                _nest(fields, name, value)
        if record.exc_info and (error := record.exc_info[1]):
            _nest(fields, "error.type", type(error).__name__)
            _nest(fields, "error.message", _without_documents(str(error)))
            trace = _without_documents(self.formatException(record.exc_info))
            _nest(fields, "error.stack_trace", trace)
        for name, common in self.common.items():
            fields[name] = fields.get(name, {}) | common
        try:
            line = orjson.dumps(fields).decode()
        except TypeError:  # half of a surrogate pair, or an object without a form in JSON
            line = ""
        # The standard library escapes each character outside ASCII: none reaches a terminal.
        return line if line and line.isascii() else json.dumps(fields, default=str)


def _nest(fields: dict[str, Any], name: str, value: Any) -> None:
    """Set a field by its name with dots in an object of objects."""
    *path, last = name.split(".")
    for part in path:
        fields = fields.setdefault(part, {})
    fields[last] = value


class LoggedStream(io.TextIOBase):
    """A standard stream of a command: writes each line as an object, and objects unchanged."""

    def __init__(self, stream: TextIO, logger: str, level: int) -> None:
        self._stream, self._logger, self._level = stream, logger, level
        self._formatter = EcsObjects(FORMATTERS["ecs"]["common"])
        self._rest = ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            if line.startswith('{"@timestamp"'):
                self._stream.write(f"{line}\n")
            elif line.strip():
                self.log(line)
        return len(text)

    def log(self, message: str, exc_info: Any = None) -> None:
        level = logging.ERROR if exc_info else self._level
        record = logging.LogRecord(self._logger, level, "", 0, message, None, exc_info)
        self._stream.write(f"{self._formatter.format(record)}\n")

    def flush(self) -> None:
        self._stream.flush()


def log_output(command: str) -> None:
    """Write what a command prints, and the exception that ends it, as ECS objects."""
    logger = f"manage.{command}"
    output = LoggedStream(sys.stdout, logger, logging.INFO)
    errors = LoggedStream(sys.stderr, logger, logging.WARNING)
    sys.stdout, sys.stderr = output, errors
    sys.excepthook = lambda *error: errors.log("The command failed", error)
    for stream in (output, errors):
        atexit.register(stream.write, "\n")  # a last line without a line break


def _without_documents(text: str) -> str:
    return _DOCUMENTS.sub(r"\1 left out", text)


def _indented(text: str) -> str:
    """Indent each line: a record starts without an indent."""
    return "\n".join(f"  {_one_line(line)}" for line in text.split("\n"))


def _one_line(text: str) -> str:
    r"""Write unsafe characters as Python escape sequences, such as \n or \x1b."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
