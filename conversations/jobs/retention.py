"""What falls due by itself, over all users: idle conversations, and the end of the trash.

Each batch is read by an index in the order of what is due, and changed by one statement that
checks the same conditions again: somebody may have written since. What was done is not found
again, so a run that was broken off is simply begun anew.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from bson import ObjectId
from django.conf import settings

from conversation_service import clock
from conversation_service.http.ndjson import batches
from conversation_service.http.origin import of_service
from conversation_service.mongodb.connection import Document
from conversation_service.progress import stopped_by_signals, track
from conversations import collection
from conversations.states import ACTIVE, DELETED
from conversations.writes import changes
from conversations.writes.changes import NOT_HELD, Pipeline

_HELD = {"hold": {"$ne": None}}


@dataclass(frozen=True)
class Due:
    """Those whose `clock` lies up to `until`, and what is to be done with them."""

    clock: str
    until: datetime
    conditions: Mapping[str, Any]
    pipeline: Pipeline
    variables: Mapping[str, Any]
    index: str

    def count(self) -> int:
        return self._count(self.conditions)

    def count_held(self) -> int:
        """Count those that would be due but for a hold."""
        return self._count({**self.conditions, **_HELD})

    def _count(self, conditions: Mapping[str, Any]) -> int:
        where = {**conditions, self.clock: {"$lte": self.until}}
        return collection.conversations().count_documents(where, hint=self.index)

    def each(self, batch_size: int) -> Iterator[Document]:
        """Return id, user and clock of each, the longest due first.

        Each batch is a statement of its own, so that none outlives a primary or a time limit.
        """
        where: dict[str, Any] = self._where()
        while True:
            rows = collection.conversations().find(
                where,
                ["user_id", self.clock],
                sort=[(self.clock, 1), ("_id", 1)],
                limit=batch_size,
                hint=self.index,
            )
            read = rows.to_list()
            yield from read
            if len(read) < batch_size:
                return
            where = self._after(read[-1])

    def act_on(self, ids: Iterable[ObjectId]) -> int:
        """Do it where it is still due, and return to how many."""
        due = {"_id": {"$in": [*ids]}, **self._where()}
        done = collection.conversations().update_many(
            due, self.pipeline, hint="_id_", let=self.variables
        )
        return done.modified_count

    def moment(self, row: Document) -> datetime:
        value: Any = row
        for name in self.clock.split("."):
            value = value[name]
        return value  # type: ignore[no-any-return]

    def _where(self) -> dict[str, Any]:
        return {**self.conditions, self.clock: {"$lte": self.until}}

    def _after(self, row: Document) -> dict[str, Any]:
        at = self.moment(row)
        sides: list[dict[str, Any]] = [
            {self.clock: {"$gt": at, "$lte": self.until}},
            {self.clock: at, "_id": {"$gt": row["_id"]}},
        ]
        return {**self.conditions, "$or": sides}


def idle() -> Due | None:
    """Return what is to be archived, neither pinned nor held; None if that is not wanted."""
    days = settings.RETENTION_ARCHIVE_IDLE_DAYS
    if not days:
        return None
    return Due(
        "metadata.last_activity",
        clock.now() - timedelta(days=days),
        {"status": ACTIVE, "pinned_at": None, **NOT_HELD},
        changes.ARCHIVE.template.pipeline,
        changes.ARCHIVE.variables(of_service("retention")),
        "active_idle",
    )


def trash() -> Due:
    """Return what is to be purged; its pins do not matter, as its user has put it there."""
    return Due(
        "purge_at",
        clock.now(),
        {"status": DELETED, **NOT_HELD},
        changes.tombstone(),
        {},
        "trash_due",
    )


def carry_out(due: Due, batch_size: int, *, total: int, what: str, out: Any) -> tuple[int, bool]:
    """Act on all that is due, a batch after the other.

    Returns how many were acted on, and false if Ctrl-C or SIGTERM came before the last batch.
    """
    rows = track(due.each(batch_size), total=total, what=what, out=out)
    done = 0
    with stopped_by_signals() as stopping:
        for batch in batches(rows, batch_size):
            done += due.act_on(row["_id"] for row in batch)
            if stopping:
                return done, False
    return done, True
