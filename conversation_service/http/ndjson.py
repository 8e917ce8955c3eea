"""NDJSON, a JSON value per line, for bodies that are too long for memory."""

import logging
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, closing
from itertools import islice
from tempfile import SpooledTemporaryFile
from typing import IO, Any

import orjson
from django.http import StreamingHttpResponse, UnreadablePostError
from django.utils.translation import gettext as _
from rest_framework.parsers import BaseParser

from conversation_service.errors import PayloadTooLarge, ServiceError, StorageFull
from conversation_service.http.rendering import JSONNegotiation, dumps

MEDIA_TYPE = "application/x-ndjson"

logger = logging.getLogger(__name__)

_IN_MEMORY = 1024 * 1024  # a longer body is stored in a file
_CHUNK = 64 * 1024

# Bounds of a line. The longest exported line has 7,000 texts, each up to 3,072 bytes, and 100 KiB
# between texts.
MAX_TEXTS = 20_000
MAX_VALUES = 20_000
MAX_TEXT_BYTES = 8 * 1024
MAX_STRUCTURE_BYTES = 512 * 1024


class NDJSONNegotiation(JSONNegotiation):
    acceptable = frozenset({"*/*", "application/*", MEDIA_TYPE})
    readable = frozenset({MEDIA_TYPE})


class NDJSONParser(BaseParser):
    """Stores the whole body, and returns it as a file. A body beyond a bound has no effect.

    The service sends response rows while it handles lines. If it also received lines then, it and a
    client that first sends its whole body would wait for each other.
    """

    media_type = MEDIA_TYPE
    max_bytes = 16 * 1024 * 1024
    # The longest exported line has 10.4 MiB: 50 revisions have 16 custom values and 16 extra
    # settings before and after, with 512 control characters each, and JSON writes a control
    # character as six bytes.
    max_line_bytes = 11 * 1024 * 1024
    max_lines = 10_000

    def parse(
        self,
        stream: Any,
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        try:
            with ExitStack() as on_failure:
                body = on_failure.enter_context(SpooledTemporaryFile(_IN_MEMORY))
                self._copy(stream, body)
                body.seek(0)
                on_failure.pop_all()  # the caller closes it
            return body
        except UnreadablePostError:
            raise
        except OSError as error:
            logger.error("Cannot store a request body: %s", error.strerror)
            raise StorageFull from error

    def _copy(self, stream: Any, body: IO[bytes]) -> None:
        line_ends = line_bytes = 0
        while chunk := stream.read(_CHUNK):
            time.sleep(0)  # under gevent, other requests run between two chunks
            if body.tell() + len(chunk) > self.max_bytes:
                raise PayloadTooLarge(limit_bytes=self.max_bytes)
            line_ends += chunk.count(b"\n")
            has_open_line = not chunk.endswith(b"\n")
            if line_ends + has_open_line > self.max_lines:
                raise PayloadTooLarge(limit_lines=self.max_lines)
            for index, part in enumerate(chunk.split(b"\n")):
                # The first part continues the last line in the chunk before.
                line_bytes = len(part) if index else line_bytes + len(part)
                if line_bytes > self.max_line_bytes:
                    raise PayloadTooLarge(limit_line_bytes=self.max_line_bytes)
            body.write(chunk)


def loads(line: bytes) -> Any:
    """Parse a line. Count its values first: in memory, a value takes up to 30 times its bytes.

    Raises ServiceError for a line that is not JSON, and PayloadTooLarge for a line with more values
    or a longer text than an exported line can have.
    """
    without_escapes = line.replace(rb"\\", b"__").replace(rb"\"", b"__")
    if without_escapes.count(b'"') > 2 * MAX_TEXTS:
        raise PayloadTooLarge(limit_texts=MAX_TEXTS)
    parts = without_escapes.split(b'"')
    structure, texts = b"".join(parts[::2]), parts[1::2]
    if len(structure) > MAX_STRUCTURE_BYTES or max(map(len, texts), default=0) > MAX_TEXT_BYTES:
        raise PayloadTooLarge(limit_text_bytes=MAX_TEXT_BYTES)
    if sum(map(structure.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise PayloadTooLarge(limit_values=MAX_VALUES)
    time.sleep(0)
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        raise ServiceError(_("This line is not valid JSON.")) from None


class _Lines(Iterator[bytes]):
    """A generator's lines. Makes the first line at once; `close()` ends the generator."""

    def __init__(self, lines: Generator[bytes]) -> None:
        self._lines = lines
        self._first: bytes | None = next(lines, None)

    def __next__(self) -> bytes:
        first, self._first = self._first, None
        return next(self._lines) if first is None else first

    def close(self) -> None:
        self._lines.close()


def response(rows: Generator[Any], **headers: str) -> StreamingHttpResponse:
    """Return a response that is sent row by row. `rows` is closed when the response ends.

    The first row is made here, so a failure before it has the usual response. A later failure cuts
    the connection: a response that ends regularly is complete.
    """
    return StreamingHttpResponse(_Lines(_dumped(rows)), content_type=MEDIA_TYPE, headers=headers)


def _dumped(rows: Generator[Any]) -> Generator[bytes]:
    with closing(rows):
        for row in rows:
            line = dumps(row) + b"\n"
            del row  # a slow client can take a minute for a line: keep only the line
            yield line


def batches(rows: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while batch := list(islice(rows, size)):
        yield batch
