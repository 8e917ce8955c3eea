"""What changed for a user since they last asked: one statement a page."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from bson import ObjectId
from django.conf import settings

from conversation_service.http import pagination
from conversation_service.mongodb.connection import Document
from conversations import collection
from conversations.documents import PUBLIC, resource
from conversations.exceptions import ChangesCursorExpired
from conversations.queries import feed_cursor as cursors
from conversations.queries.feed_cursor import OVERLAP, SNAPSHOT, Cursor, Place
from conversations.states import PURGED

INDEX = "user_changes"
# The types of a change. A purged conversation is gone; a trashed one is an upsert.
UPSERT, GONE = "upsert", "deleted"
# Tombstones of a primary whose clock was behind last a little less than they should.
_REMEMBERED_MS = (timedelta(days=settings.TOMBSTONE_DAYS) - OVERLAP) / timedelta(milliseconds=1)


@dataclass(frozen=True)
class Page:
    """Changes after a cursor, each conversation at most once and as it is now."""

    rows: list[Document]
    start: Cursor
    next: Cursor
    has_more: bool
    now_ms: int

    @property
    def changes(self) -> list[dict[str, Any]]:
        return [_change(row) for row in self.rows]

    def steps(self) -> Iterator[tuple[dict[str, Any], Cursor]]:
        """Return each change with the cursor behind it."""
        cursor = self.start
        for number, row in enumerate(self.rows, 1):
            cursor = cursor.advanced([_place(row)], now_ms=self.now_ms, more=True)
            yield _change(row), self.next if number == len(self.rows) else cursor


def page(user_id: str, cursor: Cursor, limit: int) -> Page:
    """Read what was not sent yet, by the index user_changes.

    Reads as many documents as it returns, one more, and those that `cursor` remembers. Raises
    ChangesCursorExpired if a tombstone could be gone that the reader does not know of.
    """
    found, now_ms = _read(user_id, cursor, limit)
    if cursor.since and now_ms - cursor.since[0] > _REMEMBERED_MS:
        raise ChangesCursorExpired(snapshot_cursor=cursors.seal(user_id, SNAPSHOT))
    if cursor.is_to_return(now_ms):
        return page(user_id, Cursor(cursor.since), limit)
    rows, has_more = found[:limit], len(found) > limit
    places = [_place(row) for row in rows]
    behind = cursor.advanced(places, now_ms=now_ms, more=has_more)
    return Page(rows, cursor, behind, has_more, now_ms)


def _read(user_id: str, cursor: Cursor, limit: int) -> tuple[list[Document], int]:
    """Return up to limit + 1 rows, and the primary's time from before they were read."""
    pipeline: list[dict[str, Any]] = [
        {"$match": _unsent(user_id, cursor)},
        {"$sort": {"changed_at": 1, "_id": 1}},
        {"$limit": limit + 1},
        {"$project": PUBLIC | {"changed_at": 1}},
        {"$unionWith": {"pipeline": [{"$documents": [{"now": "$$NOW"}]}]}},
    ]
    # A secondary may be behind by more than OVERLAP; a failover may roll back the primary's data.
    *rows, clock = collection.committed().aggregate(pipeline, hint=INDEX, batchSize=limit + 3)
    return rows, pagination.milliseconds(clock["now"])


def _unsent(user_id: str, cursor: Cursor) -> dict[str, Any]:
    mine: dict[str, Any] = {"user_id": user_id}
    if cursor.is_snapshot:
        mine["status"] = {"$ne": PURGED}
    if cursor.sent:
        mine["$nor"] = [
            {"changed_at": cursors.moment(place), "_id": ObjectId(place[1])}
            for place in cursor.sent
        ]
    moment, id_ = cursors.moment(cursor.after), cursor.after[1]
    if not id_:
        # A snapshot begins with documents that have no `changed_at`: the index has them first.
        later = {"$gte": moment} if cursor.after[0] else {"$not": {"$lt": moment}}
        return {**mine, "changed_at": later}
    same = moment if cursor.after[0] else {"$in": [None, moment]}
    return {
        "$or": [
            {**mine, "changed_at": {"$gt": moment}},
            {**mine, "changed_at": same, "_id": {"$gt": ObjectId(id_)}},
        ]
    }


def _place(row: Document) -> Place:
    """Return where a row is in the feed; one without `changed_at` is at its beginning."""
    changed_at = row.get("changed_at")
    return pagination.milliseconds(changed_at) if changed_at else 0, str(row["_id"])


def _change(row: Document) -> dict[str, Any]:
    if row["status"] == PURGED:
        return {"type": GONE, "id": row["_id"], "deleted_at": row["changed_at"]}
    return {"type": UPSERT, "conversation": resource(row)}
