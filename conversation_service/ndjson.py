"""NDJSON, a JSON value a line: what is too long to be held as a whole, in and out."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from itertools import chain, islice
from tempfile import SpooledTemporaryFile
from typing import IO, Any

from django.http import StreamingHttpResponse
from rest_framework.parsers import BaseParser

from conversation_service.errors import PayloadTooLarge
from conversation_service.rendering import JSONNegotiation, dumps

MEDIA_TYPE = "application/x-ndjson"

_IN_MEMORY = 1024 * 1024  # what is longer goes through a file


class NDJSONNegotiation(JSONNegotiation):
    acceptable = frozenset({"*/*", "application/*", MEDIA_TYPE})
    readable = frozenset({MEDIA_TYPE})


class NDJSONParser(BaseParser):
    """Stores a whole body and returns it as a file: nothing is done if any bound is broken.

    Answers are sent while lines are worked on. Were they also read meanwhile, a client that sends
    everything before it reads anything would wait for us, and we for it.
    """

    media_type = MEDIA_TYPE
    max_bytes = 16 * 1024 * 1024
    max_line_bytes = 8 * 1024 * 1024
    max_lines = 10_000

    def parse(
        self,
        stream: Any,
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        with ExitStack() as on_failure:
            body = on_failure.enter_context(SpooledTemporaryFile(_IN_MEMORY))
            self._copy(stream, body)
            body.seek(0)
            on_failure.pop_all()  # the caller closes it
        return body

    def _copy(self, stream: Any, body: IO[bytes]) -> None:
        lines = 0
        while line := stream.readline(self.max_line_bytes + 1):
            lines += 1
            if len(line) > self.max_line_bytes:
                raise PayloadTooLarge(limit_line_bytes=self.max_line_bytes)
            if lines > self.max_lines:
                raise PayloadTooLarge(limit_lines=self.max_lines)
            if body.tell() + len(line) > self.max_bytes:
                raise PayloadTooLarge(limit_bytes=self.max_bytes)
            body.write(line)


def response(rows: Iterable[Any], **headers: str) -> StreamingHttpResponse:
    """Return an answer that is sent row by row.

    The first row is made here, so that what fails before it is answered like any failure. What
    fails later breaks the connection off: an answer that ends is whole.
    """
    lines = (dumps(row) + b"\n" for row in rows)
    started = chain(list(islice(lines, 1)), lines)
    return StreamingHttpResponse(started, content_type=MEDIA_TYPE, headers=headers)


def batches(rows: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while batch := list(islice(rows, size)):
        yield batch
