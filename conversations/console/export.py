"""A selection as a file, sent row by row and never more than LIMIT."""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from django.http import StreamingHttpResponse

from conversation_service import ndjson
from conversations.models import Conversation

LIMIT = 10_000
COLUMNS = [
    *("id", "user_id", "character_id", "title", "status", "held", "version"),
    *("message_count", "last_activity", "created_at"),
]
# A spreadsheet takes a cell that begins so for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def as_csv(rows: Iterable[Conversation]) -> StreamingHttpResponse:
    # The mark at the beginning makes spreadsheets read UTF-8.
    return _file(_csv_lines(rows), "text/csv; charset=utf-8", "csv")


def as_ndjson(rows: Iterable[Conversation]) -> StreamingHttpResponse:
    lines = (f"{json.dumps(_values(row), ensure_ascii=False)}\n" for row in rows)
    return _file(lines, ndjson.MEDIA_TYPE, "ndjson")


def _file(lines: Iterable[str], content_type: str, suffix: str) -> StreamingHttpResponse:
    name = f'attachment; filename="conversations.{suffix}"'
    headers = {"Content-Disposition": name, "Cache-Control": "private, no-store"}
    return StreamingHttpResponse(
        (line.encode() for line in lines), content_type=content_type, headers=headers
    )


def _csv_lines(rows: Iterable[Conversation]) -> Iterator[str]:
    yield "\ufeff" + _csv_line(COLUMNS)
    for row in rows:
        yield _csv_line(_harmless(value) for value in _values(row).values())


def _csv_line(values: Iterable[Any]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(values)
    return line.getvalue()


def _harmless(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _values(row: Any) -> dict[str, Any]:
    return {name: _plain(getattr(row, name, None)) for name in COLUMNS} | {
        "held": row.hold is not None
    }


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return value if isinstance(value, int) or value is None else str(value)
