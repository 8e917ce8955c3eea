"""What the Message service reports of a conversation, and the pipelines that store it.

Times are compared with the clock of the database, which is the same for every pod. No query reads
a report's own clock as the present.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from bson import ObjectId

from conversations.documents import stored
from conversations.states import ACTIVE, ARCHIVED
from conversations.writes.changes import NOW, Expression, Pipeline, differ, later, literal, unique

# How far the clock of another service may be ahead of the database.
MAX_AHEAD = timedelta(minutes=5)
_MAX_AHEAD_MS = int(MAX_AHEAD.total_seconds() * 1000)
_TIMES = ("first_message_at", "last_message_at")


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

    def condition(self) -> dict[str, Any]:
        """Return the filter that a conversation matches if it accepts this report.

        The report is later than the stored one, and its times are not ahead of the database.
        """
        # Unlike $lt, "not $gte" matches a document without the field.
        later_than_stored = {"$not": {"$gte": self.sequence}}
        return {"activity_sequence": later_than_stored, "$expr": in_time(self.totals())}


def in_time(totals: Mapping[str, Any]) -> Expression:
    """Return whether no time of these totals is more than MAX_AHEAD ahead of the database."""
    times = [totals[name] for name in _TIMES if totals[name]]
    limit = {"$add": [NOW, _MAX_AHEAD_MS]}
    return {"$lte": [literal(max(times)), limit]} if times else literal(True)


def ahead(totals: Mapping[str, Any], now: datetime) -> Sequence[str]:
    """Return the fields whose times are more than MAX_AHEAD ahead of a time, which may be naive."""
    limit = now.replace(tzinfo=UTC) + MAX_AHEAD
    return [name for name in _TIMES if totals[name] and totals[name] > limit]


def report(
    activity: Activity, *, unarchive: bool = False, batch: ObjectId | None = None
) -> Pipeline:
    """Return the pipeline that stores a report; Activity.condition() is its filter.

    Totals are absolute, so a report may be lost, repeated or late. It sets `last_activity` but
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


def repair(totals: Mapping[str, Any], sequence: int | None) -> Pipeline:
    """Return the pipeline that sets the totals that Message counted, and a sensible sequence."""
    return [{"$set": {**_repaired(totals), "activity_sequence": _sequence(sequence)}}]


def needs_repair(totals: Mapping[str, Any], sequence: int | None) -> Expression:
    values = {**_totals(totals), "metadata.last_activity": _last_activity(totals)}
    return differ({**values, "activity_sequence": _sequence(sequence)})


def _sequence(known: int | None) -> Expression:
    """Return the stored sequence number, lowered if Message cannot have reached it.

    Message's own number, if it is known, is the highest possible one. Otherwise it is the present
    in microseconds: a number above it is neither a count of reports nor a time. After 0, every
    report is a later one.
    """
    number = stored("activity_sequence")
    if known is not None:
        return {"$min": [number, literal(known)]}
    highest = {"$multiply": [{"$toLong": NOW}, 1_000]}
    return {"$cond": [{"$gt": [number, highest]}, 0, number]}


def _repaired(totals: Mapping[str, Any]) -> dict[str, Expression]:
    return {
        **_totals(totals),
        "metadata.last_activity": _last_activity(totals),
        "changed_at": unique(),
    }


def _last_activity(totals: Mapping[str, Any]) -> Expression:
    """The last message, or the creation if there is no message after it.

    The time before does not count, so that a correction can move it back.
    """
    return {"$max": [stored("metadata.created_at"), literal(totals["last_message_at"])]}


def _totals(totals: Mapping[str, Any]) -> dict[str, Expression]:
    return {f"metadata.{name}": literal(value) for name, value in totals.items()}


def _unarchive_if_new(message_count: int) -> dict[str, Expression]:
    is_new = {
        "$and": [
            {"$eq": ["$status", ARCHIVED]},
            {"$gt": [literal(message_count), stored("metadata.message_count")]},
        ]
    }
    change = {
        "status": ACTIVE,
        "archived_at": None,
        "version": {"$add": [stored("version"), 1]},
        "metadata.updated_at": later(),
    }
    return {path: {"$cond": [is_new, new, f"${path}"]} for path, new in change.items()}
