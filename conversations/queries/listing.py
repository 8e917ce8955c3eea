"""The list: a page of a user's conversations, by any sort and filter."""

from collections.abc import Callable, Mapping
from typing import Any

from bson import ObjectId

from conversation_service.errors import PageTooDeep
from conversation_service.http.cursors import ListCursor
from conversation_service.mongodb.connection import Document, first_batch
from conversations.collection import CHARACTERS_INDEX, conversations
from conversations.documents import FILTER_KEYS, PUBLIC, SORT_KEYS
from conversations.limits import MAX_PAGE_SIZE, MAX_SKIPPED_ROWS, PAGE_SIZE
from conversations.queries import search
from conversations.queries.filters import WORDS, build_filter, page_filter, word_conditions

_KEYS_BY_CHARACTER = {"character_id", "metadata.last_activity", "tag_line"}
# With a filter on these, another index can have fewer conversations than the sort's.
_OTHER_INDEXES = {*SORT_KEYS.values(), "hold.at"}
_NOT_BOUND = {"limit", "cursor", "page", "per_page", "fields", "include_total"}


def list_page(user_id: str, parameters: Mapping[str, Any]) -> tuple[list[Document], dict[str, Any]]:
    """Return the rows that validated ListParameters request, and `pagination` as in the API.

    Reads one row after the page. Raises InvalidCursor, PageTooDeep, or what search.find() raises.
    """
    limit = min(parameters.get("per_page") or parameters.get("limit") or PAGE_SIZE, MAX_PAGE_SIZE)
    skip = (parameters.get("page", 1) - 1) * limit
    if skip > MAX_SKIPPED_ROWS:
        raise PageTooDeep
    # Cursors of 0.1.0 are bound to switches as words.
    bound = sorted(
        (name, str(value).lower() if isinstance(value, bool) else value)
        for name, value in parameters.items()
        if name not in _NOT_BOUND
    )
    binding = repr((user_id, bound))
    cursor = None
    if "cursor" in parameters:
        cursor = ListCursor.decode(parameters["cursor"], binding=binding)
    matching = build_filter(user_id, parameters)

    key = SORT_KEYS[parameters["sort"]]
    found = find(matching, parameters, cursor, skip=skip, limit=limit + 1)
    rows, prev_cursor, next_cursor = split_page(
        found, lambda row: (stored(row, key), row["_id"]), cursor, limit=limit, skip=skip
    )
    total = None
    if parameters["include_total"]:
        total = _count(matching, parameters)
    elif not (cursor or next_cursor) and (rows or not skip):
        total = skip + len(rows)
    return rows, {
        "total_count": total,
        "has_next": next_cursor is not None,
        "has_prev": prev_cursor is not None,
        "next_cursor": next_cursor.encode(binding=binding) if next_cursor else None,
        "prev_cursor": prev_cursor.encode(binding=binding) if prev_cursor else None,
        "limit": limit,
    }


def split_page(
    found: list[Any],
    position: Callable[[Any], tuple[Any, ObjectId]],
    cursor: ListCursor | None,
    *,
    limit: int,
    skip: int = 0,
) -> tuple[list[Any], ListCursor | None, ListCursor | None]:
    """Return a page's rows, and the cursors to the pages before and after it.

    `found` has up to one row more than `limit`, in reverse for a cursor to earlier rows. `position`
    returns a row's sort value and id.
    """
    rows, more = found[:limit], len(found) > limit
    backwards = cursor is not None and cursor.backwards
    if backwards:
        rows.reverse()
    if not rows:
        back = cursor.reversed_cursor() if cursor else None
        return (rows, None, back) if backwards else (rows, back, None)
    has_prev, has_next = (more, True) if backwards else (bool(cursor or skip), more)
    prev_cursor = ListCursor("before", *position(rows[0])) if has_prev else None
    return rows, prev_cursor, ListCursor("after", *position(rows[-1])) if has_next else None


def find(  # noqa: PLR0913
    matching: dict[str, Any],
    parameters: Mapping[str, Any],
    cursor: ListCursor | None,
    *,
    limit: int,
    skip: int = 0,
    projection: dict[str, int] = PUBLIC,
) -> list[Document]:
    """Read rows in the list's order, or in reverse for a cursor to earlier rows."""
    sort = parameters["sort"]
    key, ascending = SORT_KEYS[sort], parameters["order"] == "asc"
    sides = cursor.conditions(key, ascending=ascending) if cursor else []
    direction = 1 if ascending != (cursor is not None and cursor.backwards) else -1
    options: dict[str, Any] = {
        "projection": projection if key.partition(".")[0] in projection else projection | {key: 1},
        "sort": {key: direction, "_id": direction},
        "skip": skip,
        "limit": limit,
    }
    by_activity = sort == "last_activity" and _covered_by_characters(matching)
    index = CHARACTERS_INDEX if by_activity else f"list_{sort}"
    if _covered_by_list_index(matching, key):
        # Without a hint, MongoDB tries each index with `user_id` for each branch.
        options["hint"] = index
    elif words := word_conditions(parameters):
        return search.find(matching, words, sides, list_index=index, **options)
    elif not _paths(matching) & (_OTHER_INDEXES - {key}):
        options["hint"] = index
    return first_batch("conversations", page_filter(matching, sides), **options)


def _count(matching: dict[str, Any], parameters: Mapping[str, Any]) -> int:
    sort = parameters["sort"]
    if _covered_by_list_index(matching, SORT_KEYS[sort]):
        index = CHARACTERS_INDEX if _covered_by_characters(matching) else f"list_{sort}"
        return conversations().count_documents(matching, hint=index)
    if words := word_conditions(parameters):
        return search.count(matching, words)
    return conversations().count_documents(matching)


def _covered_by_list_index(matching: Mapping[str, Any], key: str) -> bool:
    """Return True if the index covers all filters, so that only returned documents are read."""
    return _paths(matching) <= {key, *FILTER_KEYS}


def _covered_by_characters(matching: Mapping[str, Any]) -> bool:
    """Return True if the index user_characters covers all filters except words."""
    return "character_id" in (paths := _paths(matching) - {WORDS}) and paths <= _KEYS_BY_CHARACTER


def _paths(matching: Mapping[str, Any]) -> set[str]:
    conditions = [matching, *matching.get("$and", ())]
    return {path for condition in conditions for path in condition} - {"$and", "user_id", "status"}


def stored(row: Document, key: str) -> Any:
    """Return the stored sort value: an index knows no defaults."""
    value: Any = row
    for name in key.split("."):
        value = value.get(name) if value else None
    return value
