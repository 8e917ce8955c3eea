"""The change feed: a single statement for each page."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from bson import DatetimeMS, ObjectId
from django.conf import settings

from conversation_service.http.cursors import milliseconds
from conversation_service.mongodb.connection import Document
from conversations.collection import committed
from conversations.documents import PUBLIC, resource
from conversations.exceptions import ChangesCursorExpired
from conversations.queries import feed_cursor
from conversations.queries.feed_cursor import OVERLAP, SNAPSHOT, ChangeKey, FeedCursor
from conversations.states import PURGED

INDEX = "user_changes"
# The types of a change. A purged conversation is gone; a trashed one is an upsert.
UPSERT, GONE = "upsert", "deleted"


@dataclass(frozen=True)
class FeedPage:
    """Changes after a cursor: each conversation at most once, and in its present state."""

    rows: list[Document]
    start: FeedCursor
    next: FeedCursor
    has_more: bool
    now_ms: int

    @property
    def changes(self) -> list[dict[str, Any]]:
        return [_change(row) for row in self.rows]

    def steps(self) -> Iterator[tuple[dict[str, Any], FeedCursor]]:
        """Yield each change with the cursor that continues after it."""
        cursor = self.start
        for number, row in enumerate(self.rows, 1):
            cursor = cursor.advanced([_key(row)], now_ms=self.now_ms, more=True)
            yield _change(row), self.next if number == len(self.rows) else cursor


def read_page(user_id: str, cursor: FeedCursor, limit: int) -> FeedPage:
    """Read changes that were not sent, by the index user_changes.

    Reads the page's documents, one more, and the documents that `cursor` lists as sent. Raises
    ChangesCursorExpired if a tombstone that the reader has not received may be gone.
    """
    pipeline: list[dict[str, Any]] = [
        {"$match": _unsent(user_id, cursor)},
        {"$sort": {"changed_at": 1, "_id": 1}},
        {"$limit": limit + 1},
        {"$project": PUBLIC | {"changed_at": 1}},
        # The primary's time before the rows were read.
        {"$unionWith": {"pipeline": [{"$documents": [{"now_ms": {"$toLong": "$$NOW"}}]}]}},
    ]
    # A secondary may be behind by more than OVERLAP; a failover may roll back the primary's data.
    *found, clock = committed().aggregate(pipeline, hint=INDEX, batchSize=limit + 3)
    now_ms = clock["now_ms"]
    # If a primary's clock was behind, a tombstone lasts a little less than TOMBSTONE_DAYS.
    tombstones_last = timedelta(days=settings.TOMBSTONE_DAYS) - OVERLAP
    if cursor.since and timedelta(milliseconds=now_ms - cursor.since[0]) > tombstones_last:
        raise ChangesCursorExpired(snapshot_cursor=feed_cursor.encode(user_id, SNAPSHOT))
    if cursor.returns_to_since(now_ms):
        return read_page(user_id, FeedCursor(cursor.since), limit)
    rows, more = found[:limit], len(found) > limit
    end = cursor.advanced([_key(row) for row in rows], now_ms=now_ms, more=more)
    return FeedPage(rows, cursor, end, more, now_ms)


def _unsent(user_id: str, cursor: FeedCursor) -> dict[str, Any]:
    mine: dict[str, Any] = {"user_id": user_id}
    if cursor.is_snapshot:
        mine["status"] = {"$ne": PURGED}
    if cursor.sent:
        mine["$nor"] = [
            {"changed_at": DatetimeMS(ms), "_id": ObjectId(id_)} for ms, id_ in cursor.sent
        ]
    ms, id_ = cursor.after
    moment = DatetimeMS(ms)
    if not id_:
        # A snapshot starts with documents that lack `changed_at`: they are first in the index.
        return {**mine, "changed_at": {"$gte": moment} if ms else {"$not": {"$lt": moment}}}
    same_time = moment if ms else {"$in": [None, moment]}
    return {
        "$or": [
            {**mine, "changed_at": {"$gt": moment}},
            {**mine, "changed_at": same_time, "_id": {"$gt": ObjectId(id_)}},
        ]
    }


def _key(row: Document) -> ChangeKey:
    """Return a row's key in the feed; a row without `changed_at` is at the start."""
    changed_at = row.get("changed_at")
    return milliseconds(changed_at) if changed_at else 0, str(row["_id"])


def _change(row: Document) -> dict[str, Any]:
    if row["status"] == PURGED:
        return {"type": GONE, "id": row["_id"], "deleted_at": row["changed_at"]}
    return {"type": UPSERT, "conversation": resource(row)}
