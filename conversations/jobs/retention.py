"""Retention jobs over all users: archive idle conversations, and purge the trash.

A job reads each batch by an index, the longest due first, and writes with the same conditions
again, because a conversation can change meanwhile. Written conversations no longer match, so an
interrupted job can be run again.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings

from conversation_service import clock
from conversation_service.http.actor import Actor
from conversation_service.mongodb.connection import Document
from conversations.collection import NOT_HELD, conversations
from conversations.states import ACTIVE, DELETED
from conversations.writes import updates, writer
from conversations.writes.updates import Update


@dataclass(frozen=True)
class RetentionJob:
    """An update for the conversations with a time at `time_path` that is not after `until`."""

    time_path: str
    until: datetime
    conditions: Mapping[str, Any]
    update: Update
    index: str

    @property
    def due(self) -> dict[str, Any]:
        return {**self.conditions, self.time_path: {"$lte": self.until}}

    def count(self) -> int:
        return conversations().count_documents(self.due, hint=self.index)

    def count_held(self) -> int:
        """Count the conversations that only a legal hold keeps from being due."""
        held = {**self.due, "hold": {"$ne": None}}
        return conversations().count_documents(held, hint=self.index)

    def each(self, batch_size: int) -> Iterator[Document]:
        """Yield id, user and time for due conversations, the longest due first.

        Each batch has its own statement, so that no cursor outlives a primary or a time limit.
        """
        where: dict[str, Any] = self.due
        while True:
            rows = (
                conversations()
                .find(
                    where,
                    ["user_id", self.time_path],
                    sort=[(self.time_path, 1), ("_id", 1)],
                    limit=batch_size,
                    hint=self.index,
                )
                .to_list()
            )
            yield from rows
            if len(rows) < batch_size:
                return
            at = self.time_of(rows[-1])
            after: list[dict[str, Any]] = [
                {self.time_path: {"$gt": at, "$lte": self.until}},
                {self.time_path: at, "_id": {"$gt": rows[-1]["_id"]}},
            ]
            where = {**self.conditions, "$or": after}

    def apply_to(self, rows: Iterable[Document]) -> int:
        """Write the conversations that are still due, and return their number."""
        targets = [(row["user_id"], row["_id"]) for row in rows]
        return writer.write(targets, self.update, actor=Actor.service("retention"), only=self.due)

    def time_of(self, row: Document) -> datetime:
        value: Any = row
        for name in self.time_path.split("."):
            value = value[name]
        return value  # type: ignore[no-any-return]


def idle_job() -> RetentionJob | None:
    """Archive conversations without activity that are neither pinned nor held.

    Returns None if RETENTION_ARCHIVE_IDLE_DAYS is 0.
    """
    days = settings.RETENTION_ARCHIVE_IDLE_DAYS
    if not days:
        return None
    return RetentionJob(
        "metadata.last_activity",
        clock.now() - timedelta(days=days),
        {"status": ACTIVE, "pinned_at": None, **NOT_HELD},
        updates.ARCHIVE,
        "active_idle",
    )


def trash_job() -> RetentionJob:
    """Purge conversations with a `purge_at` in the past, also pinned conversations."""
    return RetentionJob(
        "purge_at", clock.now(), {"status": DELETED, **NOT_HELD}, updates.purge(), "trash_due"
    )
