"""Activity reports from the Message service, and their repair.

Totals are absolute, so a report can be lost, repeated or late. Times are compared with the
database's clock, which is the same for every pod.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any

from bson import ObjectId
from pymongo import ReturnDocument, UpdateOne
from pymongo.cursor import Cursor

from conversation_service.errors import ServiceError
from conversation_service.http.actor import Actor
from conversation_service.mongodb.connection import Document
from conversations.collection import (
    ID_INDEX,
    MAJORITY,
    NOT_PURGED,
    committed,
    conversations,
    existing_filter,
    find_one,
    own_filter,
)
from conversations.documents import complete, stored
from conversations.exceptions import ActivityAhead, ConversationNotFound
from conversations.limits import MAX_AHEAD
from conversations.states import ARCHIVED
from conversations.writes.updates import CHANGED_AT, NOW, UNARCHIVE, Expression
from conversations.writes.writer import new_version_of

_TIMES = ("first_message_at", "last_message_at")
_LATEST_TIME = {"$add": [NOW, int(MAX_AHEAD.total_seconds() * 1000)]}
_SEQUENCE = stored("activity_sequence")
_CREATED_AT = stored("metadata.created_at")
_READ = {"activity_sequence": _SEQUENCE, "metadata": 1, "now": NOW}


@dataclass(frozen=True)
class Activity:
    """An activity report: its number, which is higher in later reports, and the totals.

    `totals` has each field of Metadata that Message reports. With `user_id`, the report is for a
    conversation of this user only.
    """

    sequence: int
    totals: Mapping[str, Any]
    user_id: str | None = None

    @classmethod
    def read(cls, sent: Mapping[str, Any]) -> "Activity":
        totals = dict(sent)
        return cls(totals.pop("sequence"), user_id=totals.pop("user_id", None), totals=totals)

    def target(self, conversation_id: str) -> dict[str, Any]:
        """Return the filter for the conversation. Raises ConversationNotFound for a faulty id."""
        if self.user_id is None:
            return existing_filter(conversation_id)
        return own_filter(self.user_id, conversation_id)


# Reports


def store_report(
    conversation_id: str, report: Activity, *, unarchive_by: Actor | None
) -> dict[str, Any]:
    """Store a report if it is later than the stored one; return whether, and what is stored then.

    A report changes `last_activity` and no version. With `unarchive_by`, a report with new messages
    restores an archived conversation: this is a new version by that actor. Raises
    ConversationNotFound, or ActivityAhead if a time is more than MAX_AHEAD ahead of the database's
    clock.
    """
    condition, update = _condition(report), _update(report)
    variables: dict[str, Any] = {}
    if unarchive_by:
        update |= _unarchive_if_new(report.totals["message_count"])
        variables = {"actor": {"$literal": vars(unarchive_by)}, "mark": None}
    existing = report.target(conversation_id)
    written = conversations().find_one_and_update(
        {**existing, **condition},
        [{"$set": update}],
        projection=_READ,
        return_document=ReturnDocument.AFTER,
        hint=ID_INDEX,
        let=variables,
    )
    current = written or find_one(existing, _READ, hint=ID_INDEX, readConcern=MAJORITY)
    if current is None:
        raise ConversationNotFound
    if written is None and (fields := _fields_ahead(current, report)):
        raise ActivityAhead(fields)
    return {
        "applied": written is not None,
        "sequence": current["activity_sequence"],
        "metadata": complete(current)["metadata"],
    }


def store_reports(reports: Sequence[tuple[str, Activity]]) -> list[bool | ServiceError]:
    """Store many reports in two round trips; return for each whether it was stored, or its error.

    Several reports on the same conversation are all sent, ordered by sequence number, as later
    reports can be rejected. PyMongo returns only how many were stored, so each carries the mark
    `batch`.
    """
    batch = ObjectId()
    sent = {
        (ObjectId(id_), report.sequence, report.user_id or ""): report
        for id_, report in reports
        if ObjectId.is_valid(id_)
    }
    statements = [
        UpdateOne(
            {**report.target(str(id_)), **_condition(report)},
            [{"$set": _update(report) | {"activity_batch": {"$literal": batch}}}],
            hint=ID_INDEX,
        )
        for (id_, *_), report in sorted(sent.items(), key=itemgetter(0))
    ]
    if statements:
        conversations().bulk_write(statements, ordered=False)
    wanted: dict[str, Any] = {"_id": {"$in": [*{id_ for id_, *_ in sent}]}, **NOT_PURGED}
    users = {report.user_id for report in sent.values()}
    if None not in users:
        wanted["user_id"] = {"$in": [*users]}
    rows = committed().find(wanted, _READ | {"user_id": 1, "activity_batch": 1})
    found = {str(row["_id"]): row for row in rows}
    results: list[bool | ServiceError] = []
    for id_, report in reports:
        row = found.get(id_.lower())
        if row is None or report.user_id not in {None, row["user_id"]}:
            results.append(ConversationNotFound())
        elif row["activity_sequence"] == report.sequence and row.get("activity_batch") == batch:
            results.append(True)
        else:
            fields = _fields_ahead(row, report)
            results.append(ActivityAhead(fields) if fields else False)
    return results


def _condition(report: Activity) -> dict[str, Any]:
    """Return the filter for a conversation that accepts a report: later, with no time ahead."""
    # Unlike $lt, "not $gte" matches a document without the field.
    is_later = {"$not": {"$gte": report.sequence}}
    return {"activity_sequence": is_later, "$expr": _no_time_ahead(report.totals)}


def _update(report: Activity) -> dict[str, Expression]:
    return {
        **_values(report.totals),
        "changed_at": CHANGED_AT,
        "activity_sequence": {"$literal": report.sequence},
        "activity_batch": None,
    }


def _unarchive_if_new(message_count: int) -> dict[str, Expression]:
    is_new = {
        "$and": [
            {"$eq": ["$status", ARCHIVED]},
            {"$gt": [{"$literal": message_count}, stored("metadata.message_count")]},
        ]
    }
    [template] = UNARCHIVE.templates
    update = {**template.public, **new_version_of(template.public)}
    return {path: {"$cond": [is_new, value, f"${path}"]} for path, value in update.items()}


def _no_time_ahead(totals: Mapping[str, Any]) -> Expression:
    times = [totals[name] for name in _TIMES if totals[name]]
    return {"$lte": [{"$literal": max(times)}, _LATEST_TIME]} if times else True


def _values(totals: Mapping[str, Any]) -> dict[str, Expression]:
    """Return the paths that follow from totals.

    The last activity is the last message, or the creation without a later message. The stored value
    does not count, so a repair can move it back.
    """
    values: dict[str, Expression] = {
        f"metadata.{name}": {"$literal": value} for name, value in totals.items()
    }
    last_message_at = {"$literal": totals["last_message_at"]}
    return values | {"metadata.last_activity": {"$max": [_CREATED_AT, last_message_at]}}


def _fields_ahead(row: Document, report: Activity) -> Sequence[str]:
    """Return the fields for which a report was rejected, if it was.

    A later report that is not stored had a time ahead of the clock when the statement ran, even if
    that time is no longer ahead of `now` in this row.
    """
    if fields := ahead(report.totals, row["now"]):
        return fields
    return ["last_message_at"] if row["activity_sequence"] < report.sequence else []


def ahead(totals: Mapping[str, Any], now: datetime) -> Sequence[str]:
    """Return the fields with times more than MAX_AHEAD after `now`, which may be naive UTC."""
    latest = now.replace(tzinfo=UTC) + MAX_AHEAD
    return [name for name in _TIMES if totals[name] and totals[name] > latest]


# Repair


def rows_to_reconcile(after: ObjectId, user_id: str | None) -> Cursor[Document]:
    """Return ids and sequence numbers ordered by `_id`, for a user or for all users."""
    where: dict[str, Any] = {"_id": {"$gt": after}, **NOT_PURGED}
    if user_id:
        where["user_id"] = user_id
    rows = conversations().find(where, {"activity_sequence": _SEQUENCE}).sort("_id")
    # Each row waits for Message. MongoDB would send 300,000 rows at once, and close a cursor that
    # is not read for ten minutes.
    return rows.batch_size(100)


def repair(
    row: Document, totals: Mapping[str, Any], sequence: int | None, *, dry_run: bool
) -> bool:
    """Store Message's totals and a possible sequence number; return whether they differed.

    Writes no totals that are older than a report which arrived since the row was read, and no times
    ahead of the database's clock.
    """
    values = {**_values(totals), "activity_sequence": _possible_sequence(sequence)}
    conditions = [
        {"$eq": [_SEQUENCE, row["activity_sequence"]]},
        _no_time_ahead(totals),
        {"$or": [{"$ne": [stored(path), value]} for path, value in values.items()]},
    ]
    where = {"_id": row["_id"], **NOT_PURGED, "$expr": {"$and": conditions}}
    if dry_run:
        return find_one(where, {"_id": 1}) is not None
    update = [{"$set": {**values, "changed_at": CHANGED_AT}}]
    return bool(conversations().update_one(where, update).matched_count)


def _possible_sequence(latest: int | None) -> Expression:
    """Return the stored sequence number, lowered if Message cannot have sent it.

    `latest` is Message's own number. If Message has none, the maximum is the present time in
    microseconds: a higher number is neither a count nor a time, and becomes 0, so that every report
    is later.
    """
    if latest is not None:
        return {"$min": [_SEQUENCE, {"$literal": latest}]}
    highest = {"$multiply": [{"$toLong": NOW}, 1_000]}
    return {"$cond": [{"$gt": [_SEQUENCE, highest]}, 0, _SEQUENCE]}
