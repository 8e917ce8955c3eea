"""Files, sent row by row: up to LIMIT selected conversations, or all a user's conversations."""

import csv
import io
import json
import unicodedata
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from django.http import StreamingHttpResponse

from conversation_service.http import ndjson
from conversations.jobs import exporting
from conversations.models import Conversation

LIMIT = 10_000
COLUMNS = [
    *("id", "user_id", "character_id", "title", "status", "held", "version"),
    *("message_count", "last_activity", "created_at"),
]
# Spreadsheets can split a line at these characters, depending on locale and user.
_SEPARATORS = frozenset(",;\t\r\n\v\f\x1c\x1d\x1e\x85\u2028\u2029")
_FORMULA_SIGNS = frozenset("=+-@\N{MINUS SIGN}")
# Blank, although Unicode calls them letters or symbols.
_BLANK_LETTERS = frozenset("\u115f\u1160\u2800\u3164\uffa0")


def as_csv(rows: Iterable[Conversation]) -> StreamingHttpResponse:
    # The byte order mark at the start makes spreadsheets read UTF-8.
    return _file(csv_lines(rows), "text/csv; charset=utf-8", "csv")


def as_ndjson(rows: Iterable[Conversation]) -> StreamingHttpResponse:
    lines = (f"{json.dumps(_values(row), ensure_ascii=False)}\n" for row in rows)
    return _file(lines, ndjson.MEDIA_TYPE, "ndjson")


def whole_user(user_id: str) -> StreamingHttpResponse:
    """Return all a user's conversations with their histories, as the API's export does.

    Raises RateLimitExceeded or TransfersExhausted.
    """
    return ndjson.response(exporting.rows(user_id), **_headers("ndjson"))


def _file(lines: Iterable[str], content_type: str, suffix: str) -> StreamingHttpResponse:
    return StreamingHttpResponse(
        (line.encode() for line in lines), content_type=content_type, headers=_headers(suffix)
    )


def _headers(suffix: str) -> dict[str, str]:
    name = f'attachment; filename="conversations.{suffix}"'
    return {"Content-Disposition": name, "Cache-Control": "private, no-store"}


def csv_lines(rows: Iterable[Conversation]) -> Iterator[str]:
    yield "\ufeff" + _csv_line(COLUMNS)
    for row in rows:
        yield _csv_line(without_formulas(value) for value in _values(row).values())


def _csv_line(values: Iterable[Any]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(values)
    return line.getvalue()


def without_formulas(value: Any) -> Any:
    """Write an apostrophe before each sign that could begin a formula in a spreadsheet.

    A cell can begin at the start and after any separator. Quotes, blanks and invisible characters
    before the sign do not count, because spreadsheets remove some of them.
    """
    if not isinstance(value, str):
        return value
    characters = []
    cell_begins = True
    for character in value:
        # NFKC replaces other forms, such as full-width signs.
        plain = unicodedata.normalize("NFKC", character)
        if cell_begins and plain[0] in _FORMULA_SIGNS:
            characters.append("'")
        characters.append(character)
        if character in _SEPARATORS:
            cell_begins = True
        elif cell_begins:
            # Control, format and combining characters, and separators.
            is_invisible = unicodedata.category(character)[0] in {"C", "M", "Z"}
            cell_begins = is_invisible or plain == '"' or character in _BLANK_LETTERS
    return "".join(characters)


def _values(row: Any) -> dict[str, Any]:
    values = {}
    for name in COLUMNS:
        value = row.hold is not None if name == "held" else getattr(row, name, None)
        if isinstance(value, datetime):
            value = value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        values[name] = value if isinstance(value, int) or value is None else str(value)
    return values
