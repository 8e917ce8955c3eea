"""Selected conversations as a CSV or NDJSON file, sent row by row, LIMIT rows at most."""

import csv
import io
import json
import unicodedata
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from django.http import StreamingHttpResponse

from conversation_service.http import ndjson
from conversations.models import Conversation

LIMIT = 10_000
COLUMNS = [
    *("id", "user_id", "character_id", "title", "status", "held", "version"),
    *("message_count", "last_activity", "created_at"),
]
# A spreadsheet may split a line at any of these, according to locale and user.
_SEPARATORS = frozenset(",;\t\r\n\v\f\x1c\x1d\x1e\x85\u2028\u2029")
_FORMULA_SIGNS = frozenset("=+-@\N{MINUS SIGN}")
# Blank, although Unicode calls them letters or symbols.
_BLANK_LETTERS = frozenset("\u115f\u1160\u2800\u3164\uffa0")


def as_csv(rows: Iterable[Conversation]) -> StreamingHttpResponse:
    # The byte order mark at the start makes spreadsheets read UTF-8.
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
        yield _csv_line(_inert(value) for value in _values(row).values())


def _csv_line(values: Iterable[Any]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(values)
    return line.getvalue()


def _inert(value: Any) -> Any:
    """Write an apostrophe before each sign that could begin a formula in a spreadsheet.

    A cell can begin after any separator in a text, not only at the text's beginning. Quotes, blanks
    and invisible characters between the separator and the sign are ignored, as spreadsheets remove
    some of them. The text keeps all its characters.
    """
    if not isinstance(value, str):
        return value
    characters = []
    cell_begins = True
    for character in value:
        if cell_begins and _is_formula_sign(character):
            characters.append("'")
        characters.append(character)
        if character in _SEPARATORS:
            cell_begins = True
        elif cell_begins:
            cell_begins = _is_ignored(character)
    return "".join(characters)


def _is_formula_sign(character: str) -> bool:
    """Return True for a sign and for its other forms, such as the full-width ones."""
    return unicodedata.normalize("NFKC", character)[0] in _FORMULA_SIGNS


def _is_ignored(character: str) -> bool:
    """Return True for quotes, separators, control, format and combining characters."""
    if unicodedata.normalize("NFKC", character) == '"' or character in _BLANK_LETTERS:
        return True
    return unicodedata.category(character)[0] in {"C", "M", "Z"}


def _values(row: Any) -> dict[str, Any]:
    return {name: _plain(getattr(row, name, None)) for name in COLUMNS} | {
        "held": row.hold is not None
    }


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return value if isinstance(value, int) or value is None else str(value)
