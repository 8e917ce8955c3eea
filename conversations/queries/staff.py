"""The console's list: conversations by any filter, for one user or for all users.

For one user, these are the API's list and search with more filters. For all users, the staff
indexes give the order. They do not cover every filter: a rare combination reads many conversations,
so BUDGET_S bounds each page.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import pymongo
from bson import ObjectId
from pymongo.errors import PyMongoError

from conversation_service.errors import DatabaseUnavailable
from conversation_service.http.cursors import ListCursor
from conversation_service.mongodb.connection import Document, first_batch
from conversations import limits
from conversations.collection import ID_INDEX, NOT_HELD, STAFF_USER, conversations
from conversations.documents import SORT_KEYS
from conversations.queries import listing, search
from conversations.queries.filters import conditions, page_filter, word_conditions
from conversations.serializers.search import NO_SEARCH
from conversations.states import ANY_STATE, ARCHIVED, DELETED, PURGED
from conversations.words import PREFIX_RANGE_END, sort_key

Filters = Mapping[str, Any]

BUDGET_S = 3.0
TOMBSTONES = 100
UNVERIFIED = "unverified"
# The sorts for all users. An id begins with its creation time.
_SORTS_OF_ALL = {"created_at": "_id", "title": "title_key"}


class QueryTooSlow(DatabaseUnavailable):
    """A query was stopped after its budget."""


@contextmanager
def budget(seconds: float) -> Iterator[None]:
    """Limit the time of the statements in the block. Raises QueryTooSlow."""
    try:
        with pymongo.timeout(seconds):
            yield
    except PyMongoError as error:
        if error.timeout:
            raise QueryTooSlow from error
        raise


class Sort(NamedTuple):
    name: str
    ascending: bool


def sorts(filters: Filters) -> Sequence[str]:
    """Return the sorts that an index has with these filters."""
    return [*SORT_KEYS] if "user_id" in filters else [*_SORTS_OF_ALL]


def build_filter(filters: Filters) -> dict[str, Any]:
    """Return the MongoDB filter.

    `filters` has the names of the API's list, and `ids`, `states`, `character_status`, `held`,
    `title` (a prefix), `trashed_after` and `trashed_before`.
    """
    own = {"user_id": filters["user_id"]} if "user_id" in filters else {}
    if "ids" in filters:
        own["_id"] = {"$in": filters["ids"]}
    archived = filters.get("search", NO_SEARCH).archived
    states = [*filters.get("states", ANY_STATE)]
    if archived:
        states = [state for state in states if state == ARCHIVED]
    bounds = {"$gt": filters.get("trashed_after"), "$lt": filters.get("trashed_before")}
    trashed = {operator: moment for operator, moment in bounds.items() if moment}
    if trashed:
        states = [state for state in states if state == DELETED]
    matching = {**own, "status": {"$in": states}, **conditions({"tags_match": "all", **filters})}
    if status := filters.get("character_status"):
        matching["character_status"] = status
        matching.setdefault("character_id", {"$gte": ""})  # the index unverified_characters
    if "held" in filters:
        matching |= {"hold.at": {"$gt": limits.EPOCH}} if filters["held"] else NOT_HELD
    if "title" in filters:
        start = sort_key(filters["title"])
        matching["title_key"] = {"$gte": start, "$lt": start + PREFIX_RANGE_END}
    if trashed:
        matching["deleted_at"] = trashed
    return matching


def page(
    filters: Filters, sort: Sort, cursor: ListCursor | None, *, limit: int
) -> tuple[list[ObjectId], ListCursor | None, ListCursor | None]:
    """Return a page's ids, and the cursors to the pages before and after it.

    Raises QueryTooSlow.
    """
    if "ids" in filters:
        return sorted(matching_ids(filters, filters["ids"]), reverse=True), None, None
    matching = build_filter(filters)
    with budget(BUDGET_S):
        if "user_id" in filters:
            key = SORT_KEYS[sort.name]
            parameters = {"tags_match": "all", "sort": sort.name, **filters}
            parameters["order"] = "asc" if sort.ascending else "desc"
            found = listing.find(
                matching, parameters, cursor, limit=limit + 1, projection={"_id": 1}
            )
        else:
            key = _SORTS_OF_ALL[sort.name]
            found = _find_of_all(matching, key, sort.ascending, cursor, limit + 1)
    rows, previous, following = listing.split_page(
        found, lambda row: (listing.stored(row, key), row["_id"]), cursor, limit=limit
    )
    return [row["_id"] for row in rows], previous, following


def _find_of_all(
    matching: dict[str, Any], key: str, ascending: bool, cursor: ListCursor | None, limit: int
) -> list[Document]:
    """Read all users' rows by an index, in reverse for a cursor to earlier rows.

    Equal titles have the newest first, as in the index staff_title.
    """
    forward = ascending != (cursor is not None and cursor.backwards)
    direction = 1 if forward else -1
    by_title = key == "title_key"
    order = {key: direction, "_id": -direction} if by_title else {"_id": direction}
    sides: list[dict[str, Any]] = []
    if cursor:
        inclusive = "e" if cursor.side in {"from", "upto"} else ""
        id_range = {f"{'$gt' if order['_id'] == 1 else '$lt'}{inclusive}": cursor.id}
        sides = [{"_id": id_range}]
        if by_title:
            beyond = {"$gt" if forward else "$lt": cursor.value}
            sides = [{key: beyond}, {key: cursor.value, "_id": id_range}]
    options: dict[str, Any] = {"projection": {"_id": 1, key: 1}, "sort": order, "limit": limit}
    if by_title:
        options["hint"] = "staff_title"
    elif "hold.at" in matching:
        options["hint"] = "staff_held"
    elif matching.get("character_status") != UNVERIFIED:
        options["hint"] = "staff_status"
    # Else MongoDB chooses between that index and unverified_characters.
    return first_batch("conversations", page_filter(matching, sides), **options)


def next_ids(filters: Filters, after: ObjectId | None, limit: int) -> list[ObjectId]:
    """Return a user's next ids in order, after an id.

    Without words, by the index staff_user. Raises QueryTooSlow.
    """
    matching = build_filter(filters)
    if after:
        matching = {"$and": [matching, {"_id": {"$gt": after}}]}
    hint = None if filters.get("search") else STAFF_USER
    with budget(BUDGET_S):
        rows = conversations().find(matching, ["_id"], sort=[("_id", 1)], limit=limit, hint=hint)
        return [row["_id"] for row in rows]


def count(filters: Filters) -> int:
    """Count a user's matching conversations. Raises QueryTooSlow."""
    matching = build_filter(filters)
    words = word_conditions({"tags_match": "all", **filters}) if filters.get("search") else []
    with budget(BUDGET_S):
        if words:
            return search.count(matching, words)
        return conversations().count_documents(matching, hint=STAFF_USER)


def matching_ids(filters: Filters, ids: Sequence[ObjectId]) -> list[ObjectId]:
    """Filter ids: return the ids with a matching conversation."""
    where = {"$and": [build_filter(filters), {"_id": {"$in": [*ids]}}]}
    return [row["_id"] for row in conversations().find(where, ["_id"], hint=ID_INDEX)]


def is_user(user_id: str) -> bool:
    """Return True if the user has a conversation or a tombstone."""
    where = {"user_id": user_id}
    return conversations().find_one(where, ["_id"], hint=STAFF_USER) is not None


def tombstones_by_id(ids: Sequence[str]) -> dict[str, Document]:
    """Return the tombstones of these ids, if they have one. Other texts are ignored."""
    wanted = [ObjectId(id_) for id_ in ids if ObjectId.is_valid(id_)]
    rows = conversations().find({"_id": {"$in": wanted}, "status": PURGED}, hint=ID_INDEX)
    return {str(row["_id"]): row for row in rows}


def tombstones(user_id: str) -> list[Document]:
    """Return a user's tombstones, up to TOMBSTONES, the last purged first."""
    where = {"user_id": user_id, "status": PURGED}
    rows = conversations().find(where, sort=[("_id", -1)], limit=TOMBSTONES, hint=STAFF_USER)
    return sorted(rows, key=lambda row: row["changed_at"], reverse=True)
