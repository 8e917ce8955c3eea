"""NDJSON, a JSON value per line, for bodies that are too long for memory."""

import logging
import time
import zlib
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, closing
from itertools import islice
from tempfile import SpooledTemporaryFile
from typing import IO, Any

from django.http import StreamingHttpResponse, UnreadablePostError
from django.utils.translation import gettext as _
from rest_framework.parsers import BaseParser

from conversation_service.errors import (
    PayloadTooLarge,
    ServiceError,
    StorageFull,
    UnsupportedMediaType,
)
from conversation_service.http import rendering
from conversation_service.http.rendering import JSONNegotiation, dumps

MEDIA_TYPE = "application/x-ndjson"
# The other names of NDJSON that programs send.
ALIASES = (
    "application/ndjson",
    "application/jsonl",
    "application/jsonlines",
    "application/x-jsonl",
    "application/x-jsonlines",
)
GZIP = frozenset({"gzip", "x-gzip"})
_GZIP_START = b"\x1f\x8b"

logger = logging.getLogger(__name__)

_IN_MEMORY = 1024 * 1024  # a longer body is stored in a file
_CHUNK = 64 * 1024
_MAX_MEMBERS = 1_000  # in a gzip body; each takes some microseconds, even without content

# Bounds of a line. The longest exported line has 7,000 texts, each up to 3,072 bytes, and 100 KiB
# between texts.
MAX_TEXTS = 20_000
MAX_VALUES = 20_000
MAX_TEXT_BYTES = 64 * 1024  # in another program, a title can be a whole message
MAX_STRUCTURE_BYTES = 512 * 1024


class NDJSONNegotiation(JSONNegotiation):
    acceptable = frozenset({"*/*", "application/*", MEDIA_TYPE})
    readable = frozenset({MEDIA_TYPE, *ALIASES})
    encodings = frozenset({"identity", *GZIP})


class NDJSONParser(BaseParser):
    """Stores the unpacked body, and returns it as a file. A body beyond a bound has no effect.

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
                encoding = (parser_context or {})["request"].META.get("HTTP_CONTENT_ENCODING", "")
                chunks = iter(lambda: stream.read(_CHUNK), b"")
                if encoding.strip().lower() in GZIP:
                    chunks = _unzipped(chunks, self.max_bytes)
                self._copy(chunks, body)
                body.seek(0)
                on_failure.pop_all()  # the caller closes it
            return body
        except UnreadablePostError:
            raise
        except OSError as error:
            logger.error("Cannot store a request body: %s", error.strerror)
            raise StorageFull from error

    def _copy(self, chunks: Iterator[bytes], body: IO[bytes]) -> None:
        line_ends = line_bytes = 0
        for chunk in chunks:
            time.sleep(0)  # under gevent, other requests run between two chunks
            if body.tell() == 0:
                _check_start(chunk)
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


def _check_start(start: bytes) -> None:
    if start.startswith(_GZIP_START):
        raise UnsupportedMediaType(
            _("The body is gzip data. Pack it only once, and send Content-Encoding: gzip.")
        )
    if is_utf_16(start):
        raise UnsupportedMediaType(_("The body is in UTF-16 or UTF-32. Send it in UTF-8."))


def is_utf_16(start: bytes) -> bool:
    """Return True for UTF-16 and UTF-32: JSON has no NUL, and these have one in ASCII."""
    return start.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) or b"\0" in start[:4]


def _unzipped(chunks: Iterator[bytes], max_bytes: int) -> Iterator[bytes]:
    """Unpack gzip members in chunks of at most _CHUNK bytes.

    Raises PayloadTooLarge above _MAX_MEMBERS members or `max_bytes` packed bytes: members can be
    empty. Raises ServiceError if the body is not gzip, is incomplete, or continues with other data.
    """
    member = None
    received = members = 0
    for packed in chunks:
        received += len(packed)
        if received > max_bytes:
            raise PayloadTooLarge(limit_bytes=max_bytes)
        rest, unpacked = packed, b""
        # A full chunk can have more behind it, even when all its input is read.
        while rest or len(unpacked) == _CHUNK:
            time.sleep(0)
            if member is None:
                members += 1
                if members > _MAX_MEMBERS:
                    raise PayloadTooLarge(limit_gzip_members=_MAX_MEMBERS)
                member = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
            try:
                unpacked = member.decompress(rest, _CHUNK)
            except zlib.error:
                raise ServiceError(_("The body is not valid gzip data.")) from None
            if unpacked:
                yield unpacked
            rest = member.unconsumed_tail
            if member.eof:
                rest, unpacked, member = member.unused_data, b"", None
    if member:
        raise ServiceError(_("The gzip data ends too early. Send the whole body."))


def loads(line: bytes, number: int) -> Any:
    """Parse a line. Count its values first: in memory, a value takes up to 30 times its bytes.

    `number` is that of the line in the body. Raises the errors from rendering.loads, and
    PayloadTooLarge for a line with more values than an exported line can have, or with a text above
    MAX_TEXT_BYTES.
    """
    without_escapes = rendering.without_escaped_quotes(line)
    if without_escapes.count(b'"') > 2 * MAX_TEXTS:
        raise _too_large("limit_texts", MAX_TEXTS)
    parts = without_escapes.split(b'"')
    structure, texts = b"".join(parts[::2]), parts[1::2]
    if max(map(len, texts), default=0) > MAX_TEXT_BYTES:
        raise _too_large("limit_text_bytes", MAX_TEXT_BYTES)
    if len(structure) > MAX_STRUCTURE_BYTES:
        raise _too_large("limit_structure_bytes", MAX_STRUCTURE_BYTES)
    if sum(map(structure.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise _too_large("limit_values", MAX_VALUES)
    time.sleep(0)
    return rendering.loads(line, line=number, structure=structure)


def _too_large(name: str, limit: int) -> PayloadTooLarge:
    message = _("This line is too large: %(name)s is %(limit)d.") % {"name": name, "limit": limit}
    details: dict[str, Any] = {name: limit}
    return PayloadTooLarge(message, **details)


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
