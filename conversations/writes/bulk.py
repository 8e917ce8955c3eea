"""Bulk actions: their updates, and the steps of a run by filter."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bson import ObjectId

from conversations.collection import STAFF_USER, committed, conversations
from conversations.writes import edits, updates
from conversations.writes.updates import Update

STEP = 100
SAMPLE = 20


def update_for(action: str, tags: Sequence[str] = ()) -> Update:
    """Return the update for a bulk action; see serializers.bulk.ACTIONS."""
    if action == "tag":
        return edits.edit({"tags_add": tags})
    if action == "untag":
        return edits.edit({"tags_remove": tags})
    return {
        "archive": updates.ARCHIVE,
        "restore": updates.RESTORE,
        "trash": updates.trash(),
        "purge": updates.purge(),
        "pin": updates.PIN,
        "unpin": updates.UNPIN,
    }[action]


@dataclass(frozen=True)
class BulkCursor:
    """The state of a run by filter.

    The run ends at `last` and skips conversations that changed after `began`. `after` is the id
    where the previous step ended.
    """

    after: ObjectId | None
    last: ObjectId
    began: datetime

    def conditions(self) -> dict[str, Any]:
        later = {"$gt": self.after} if self.after else {}
        # Unlike $lte, "not $gt" matches a document without `changed_at`.
        unchanged = {"$not": {"$gt": self.began}}
        return {"_id": {**later, "$lte": self.last}, "changed_at": unchanged}


def start(chosen: Mapping[str, Any]) -> BulkCursor | None:
    """Return the cursor for a new run, by the primary's clock, or None if the filter is empty."""
    last = committed().find_one(
        chosen, {"_id": 1, "now": "$$NOW"}, sort=[("_id", -1)], hint=STAFF_USER
    )
    return BulkCursor(None, last["_id"], last["now"]) if last else None


def next_ids(chosen: Mapping[str, Any], cursor: BulkCursor) -> list[ObjectId]:
    """Return the next STEP ids in order, by the index staff_user."""
    where = {**chosen, **cursor.conditions()}
    rows = committed().find(where, ["_id"], sort=[("_id", 1)], limit=STEP, hint=STAFF_USER)
    return [row["_id"] for row in rows]


def sample_ids(chosen: Mapping[str, Any]) -> list[ObjectId]:
    rows = conversations().find(chosen, ["_id"], sort=[("_id", 1)], limit=SAMPLE, hint=STAFF_USER)
    return [row["_id"] for row in rows]
