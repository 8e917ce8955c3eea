"""What the Message service reports of a conversation, and the pipelines that store it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bson import ObjectId

from conversations.changes import Expression, Pipeline, differ, later, literal, unique
from conversations.documents import stored


@dataclass(frozen=True)
class Activity:
    """What the Message service reports of a conversation: totals, and which report it is."""

    sequence: int
    message_count: int
    total_tokens: int
    total_input_tokens: int
    total_output_tokens: int
    first_message_at: datetime | None
    last_message_at: datetime | None

    def totals(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "sequence"}


def report(
    activity: Activity, *, unarchive: bool = False, batch: ObjectId | None = None
) -> Pipeline:
    """Return the pipeline that stores a report; the filter lets only a later one through.

    Totals are absolute, so a report may be lost, repeated or late. It moves `last_activity` but
    no version: only `unarchive`, which brings an archived conversation with new messages back,
    is a change that counts as one.
    """
    update = {
        **_repaired(activity.totals()),
        "activity_sequence": literal(activity.sequence),
        "activity_batch": literal(batch),
    }
    if unarchive:
        update |= _unarchive_if_new(activity.message_count)
    return [{"$set": update}]


def repair(totals: Mapping[str, Any]) -> Pipeline:
    """Return the pipeline that sets totals, whoever counted them."""
    return [{"$set": _repaired(totals)}]


def _repaired(totals: Mapping[str, Any]) -> dict[str, Expression]:
    last = {"$max": ["$metadata.last_activity", literal(totals["last_message_at"])]}
    return {**_totals(totals), "metadata.last_activity": last, "changed_at": unique()}


def totals_differ(totals: Mapping[str, Any]) -> Expression:
    return differ(_totals(totals))


def _totals(totals: Mapping[str, Any]) -> dict[str, Expression]:
    return {f"metadata.{name}": literal(value) for name, value in totals.items()}


def _unarchive_if_new(message_count: int) -> dict[str, Expression]:
    is_new = {
        "$and": [
            {"$eq": ["$status", "archived"]},
            {"$gt": [literal(message_count), stored("metadata.message_count")]},
        ]
    }
    change = {
        "status": "active",
        "archived_at": None,
        "version": {"$add": [stored("version"), 1]},
        "metadata.updated_at": later(),
    }
    return {path: {"$cond": [is_new, new, f"${path}"]} for path, new in change.items()}
