"""The statements behind the API: PyMongo on the pool that the ORM uses.

Every one that serves a person carries `user_id`: whether a conversation is theirs is decided by
the database, and a sharded cluster sends the statement to one shard. Purged ones are tombstones
of the change feed and exist for nobody.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any, Literal

from bson import ObjectId
from pymongo import ReturnDocument, UpdateOne
from pymongo.cursor import Cursor
from pymongo.errors import BulkWriteError, DuplicateKeyError

from conversation_service.http.idempotency import LIFETIME, IdempotencyInProgress, IdempotencyKey
from conversation_service.http.origin import Origin
from conversation_service.http.preconditions import ANY_VERSION, Versions
from conversation_service.mongodb import failures
from conversation_service.mongodb.connection import (
    Document,
    ensure_responsive,
)
from conversation_service.mongodb.monitor import unavailable
from conversations import documents, history, metrics
from conversations.collection import (
    ATTEMPTS,
    ID_INDEX,
    MAJORITY,
    NOT_PURGED,
    committed,
    conversations,
    existing_filter,
    find_one,
    is_id,
    own_filter,
)
from conversations.documents import PUBLIC, WITH_HISTORY, complete, resource, stored
from conversations.exceptions import (
    ActivityAhead,
    ConversationNotFound,
    ConversationStateConflict,
    ConversationVersionConflict,
    LegalHold,
    LimitExceeded,
)
from conversations.queries.lookup import latest_with
from conversations.states import DELETED
from conversations.writes import activity, changes
from conversations.writes.activity import Activity
from conversations.writes.changes import Change, Pipeline, Template

DUPLICATE_KEY = 11_000  # MongoDB's code
_KEYS = "idempotency_keys"
_REPORTED = {
    "activity_sequence": stored("activity_sequence"),
    "metadata": 1,
    "now": changes.NOW,
}
_BATCH = 200
REINDEXED_AT_ONCE = 500


@dataclass(frozen=True)
class Answer:
    """A conversation, and whether it is as it was when the same request came before."""

    document: Document
    replayed: bool = False
    existed: bool = False


@dataclass(frozen=True)
class Reported:
    """What became of a report, and what is stored since."""

    applied: bool
    sequence: int
    metadata: dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What became of one report of a batch."""

    status: int
    applied: bool
    rejected: ActivityAhead | None = None


NO_CONVERSATION = Outcome(HTTPStatus.NOT_FOUND, applied=False)


def insert(document: Document, key: IdempotencyKey | None = None) -> Answer:
    """Insert a new conversation, or return the existing one that its key or `only` stands for.

    Under concurrency the unique indexes idempotency_keys and only_of_character accept one insert.
    If the `_id` is taken, another one is drawn. Raises IdempotencyKeyReused,
    IdempotencyInProgress or, after ATTEMPTS conflicts, ConversationStateConflict.
    """
    ensure_responsive()
    for _attempt in range(ATTEMPTS):
        if key:
            document["keys"] = [documents.remembered(key, document)]
        try:
            conversations().insert_one(document)
        except DuplicateKeyError as error:
            conflict = (error.details or {}).get("keyPattern", {})
            if "_id" in conflict:
                document["_id"] = documents.random_id()
            elif key and "keys.key" in conflict:
                if answer := remembered(document["user_id"], key, document["changed_at"]):
                    return answer
            elif "only" in conflict:
                if found := latest_with(document["user_id"], document["character_id"]):
                    return Answer(found, existed=True)
            else:
                raise
        else:
            metrics.event(metrics.CREATED).inc()
            return Answer(document)
    raise ConversationStateConflict


def remembered(user_id: str, key: IdempotencyKey, now: datetime) -> Answer | None:
    """Return the answer to the request that stored this key, or None if no live key is stored.

    Removes a key that has expired. Raises IdempotencyKeyReused, or IdempotencyInProgress until a
    majority of the replica set has the key: before, a failover would roll back the request's
    write.
    """
    mine = {"user_id": user_id, "keys.key": {"$in": key.scopes}}
    found = find_one(mine, {"keys.$": 1}, hint=_KEYS)
    if found is None:
        return None
    [record] = found["keys"]
    entry = {"key": record["key"], "at": record["at"]}
    same = {"_id": found["_id"], "user_id": user_id, "keys": {"$elemMatch": entry}}
    if record["at"] < (now - LIFETIME).replace(tzinfo=None):
        conversations().update_one(same, {"$pull": {"keys": entry}}, hint=ID_INDEX)
        return None
    current = find_one(same, PUBLIC, hint=ID_INDEX, readConcern=MAJORITY)
    if current is None:
        raise IdempotencyInProgress
    key.check(record["fingerprint"])
    return Answer(complete(record.get("answer", current)), replayed=True)


def insert_all(rows: Sequence[Document]) -> dict[int, int]:
    """Insert what can be inserted; return where the rest stands, with MongoDB's error code."""
    failed: dict[int, int] = {}
    try:
        conversations().insert_many(rows, ordered=False)
    except BulkWriteError as error:
        # The error repeats the documents, which must not reach a log.
        if failures.is_unavailability(error):
            raise unavailable(error) from None
        failed = {one["index"]: one["code"] for one in error.details["writeErrors"]}
    metrics.event(metrics.CREATED).inc(len(rows) - len(failed))
    return failed


def change(  # noqa: PLR0913
    user_id: str,
    conversation_id: str,
    wanted: Change,
    *,
    origin: Origin,
    versions: Versions = ANY_VERSION,
    key: IdempotencyKey | None = None,
) -> Answer:
    """Apply a change in one statement and return the conversation as it then is.

    Where nothing would differ, nothing is written: same version, same clocks. With a key that
    is remembered, the answer is that of then. Raises ConversationNotFound,
    ConversationVersionConflict, ConversationStateConflict, LimitExceeded or IdempotencyKeyReused.
    """
    own = own_filter(user_id, conversation_id)
    template = wanted.template
    where = {
        **own,
        "status": {"$in": template.states},
        **versions.condition(),
        "$expr": template.has_new_key if key else template.would_differ,
    }
    variables = wanted.variables(origin, key)
    for _attempt in range(ATTEMPTS):
        changed = conversations().find_one_and_update(
            where,
            template.remembering_pipeline if key else template.pipeline,
            projection=PUBLIC,
            return_document=ReturnDocument.AFTER,
            hint=ID_INDEX,
            let=variables,
        )
        if changed is not None:
            if template.event:
                metrics.event(template.event).inc()
            return Answer(complete(changed))
        if answer := _diagnose(own, template, variables, versions, key):
            return answer
    raise ConversationStateConflict


def change_all(  # noqa: PLR0913
    user_id: str,
    ids: Iterable[ObjectId],
    wanted: Template,
    pipeline: Pipeline,
    *,
    variables: Mapping[str, Any],
    only: Mapping[str, Any],
) -> None:
    """Change all of a user's that can be changed so and would differ, each as change() does.

    What became of each shows when it is read: what the database refused is as it was. A single
    update of many would be cheaper for the server, but is not sent again when the primary changes.
    """
    where = {
        "status": {"$in": wanted.states},
        "$expr": wanted.applies({"$not": [wanted.is_held()]}, wanted.differs()),
    }
    writes = [
        UpdateOne({"_id": _id, "user_id": user_id, "$and": [where, only]}, pipeline, hint=ID_INDEX)
        for _id in ids
    ]
    if not writes:
        return
    try:
        conversations().bulk_write(writes, ordered=False, let=variables)
    except BulkWriteError as error:
        # The error repeats what was to be written, which must not reach a log.
        if failures.is_unavailability(error):
            raise unavailable(error) from None


def change_all_with(
    character_id: str, wanted: Change, *, origin: Origin, dry_run: bool = False
) -> int:
    """Apply a change, after which they are so no more, to a character's unverified ones.

    Returns how many; with `dry_run` nothing is changed. In batches: all that one statement
    changes bears the time of its start, and the change feed waits a minute for late ones only.
    """
    unverified = {"character_id": character_id, "character_status": "unverified", **NOT_PURGED}
    if dry_run:
        return conversations().count_documents(unverified)
    changed = 0
    while rows := conversations().find(unverified, ["_id"]).limit(_BATCH).to_list():
        batch = {"_id": {"$in": [row["_id"] for row in rows]}, **unverified}
        update = conversations().update_many(
            batch, wanted.template.pipeline, let=wanted.variables(origin)
        )
        changed += update.modified_count
    return changed


def unverified_characters() -> Iterator[str]:
    """Return the characters that were never looked up, by the index unverified_characters."""
    unverified = {"$match": {"character_status": "unverified", "character_id": {"$gt": ""}}}
    rows = conversations().aggregate([unverified, {"$group": {"_id": "$character_id"}}])
    return (row["_id"] for row in rows)


def purge(user_id: str, conversation_id: str, versions: Versions = ANY_VERSION) -> None:
    """Leave nothing but a tombstone, in one statement; only what is in the trash can be purged.

    Raises what change() raises, and LegalHold.
    """
    own = own_filter(user_id, conversation_id)
    for _attempt in range(ATTEMPTS):
        purged = conversations().update_one(
            {**own, "status": DELETED, **changes.NOT_HELD, **versions.condition()},
            changes.tombstone(),
            hint=ID_INDEX,
        )
        if purged.matched_count:
            metrics.event(metrics.PURGED).inc()
            return
        _diagnose(own, changes.PURGE.template, {}, versions)
    raise ConversationStateConflict


def hold(user_id: str, conversation_id: str, *, by: str, reason: str) -> bool:
    """Keep a conversation from being purged, and return whether it was not held already."""
    where = {**own_filter(user_id, conversation_id), **changes.NOT_HELD}
    held = conversations().update_one(where, changes.hold(by, reason), hint=ID_INDEX)
    return bool(held.matched_count) or _there(user_id, conversation_id)


def release(user_id: str, conversation_id: str) -> bool:
    """End a hold, and return whether there was one."""
    where = {**own_filter(user_id, conversation_id), "hold": {"$ne": None}}
    released = conversations().update_one(where, changes.RELEASE, hint=ID_INDEX)
    return bool(released.matched_count) or _there(user_id, conversation_id)


def _there(user_id: str, conversation_id: str) -> Literal[False]:
    """Return False, or raise ConversationNotFound, after an update that matched nothing."""
    own = own_filter(user_id, conversation_id)
    if find_one(own, {"_id": 1}, hint=ID_INDEX, readConcern=MAJORITY) is None:
        raise ConversationNotFound
    return False


def report(conversation_id: str, reported: Activity, *, unarchive: bool) -> Reported:
    """Store a report if it is later than the last one.

    Raises ConversationNotFound, or ActivityAhead if a time is ahead of the database's clock.
    """
    existing = existing_filter(conversation_id)
    updated = conversations().find_one_and_update(
        {**existing, **reported.condition()},
        activity.report(reported, unarchive=unarchive),
        projection=_REPORTED,
        return_document=ReturnDocument.AFTER,
        hint=ID_INDEX,
    )
    current = updated or find_one(existing, _REPORTED, hint=ID_INDEX, readConcern=MAJORITY)
    if current is None:
        raise ConversationNotFound
    if updated is None and (ahead := _ahead(current, reported)):
        raise ActivityAhead(ahead)
    metadata = complete(current)["metadata"]
    return Reported(updated is not None, current["activity_sequence"], metadata)


def report_all(reports: Sequence[tuple[str, Activity]]) -> list[Outcome]:
    """Store many reports in two round trips; return an outcome for each.

    Several reports on one conversation are all sent, in the order of their sequence numbers, as
    the later ones may be rejected. A mark of this call says afterwards which one is stored: the
    driver returns only how many were.
    """
    batch = ObjectId()
    wanted = {
        (ObjectId(id_), reported.sequence): reported for id_, reported in reports if is_id(id_)
    }
    writes = [
        UpdateOne(
            {"_id": _id, **NOT_PURGED, **reported.condition()},
            activity.report(reported, batch=batch),
            hint=ID_INDEX,
        )
        for (_id, _sequence), reported in sorted(wanted.items())
    ]
    if not writes:
        return [NO_CONVERSATION for _report in reports]
    conversations().bulk_write(writes, ordered=False)
    ids = [*{_id for _id, _sequence in wanted}]
    rows = committed().find({"_id": {"$in": ids}, **NOT_PURGED}, _REPORTED | {"activity_batch": 1})
    found = {row["_id"]: row for row in rows}
    return [
        _outcome(found.get(ObjectId(id_)) if is_id(id_) else None, reported, batch)
        for id_, reported in reports
    ]


def _outcome(row: Document | None, reported: Activity, batch: ObjectId) -> Outcome:
    if row is None:
        return NO_CONVERSATION
    is_stored = row["activity_sequence"] == reported.sequence
    if is_stored and row.get("activity_batch") == batch:
        return Outcome(HTTPStatus.OK, applied=True)
    if ahead := _ahead(row, reported):
        return Outcome(HTTPStatus.BAD_REQUEST, applied=False, rejected=ActivityAhead(ahead))
    return Outcome(HTTPStatus.OK, applied=False)


def _ahead(row: Document, reported: Activity) -> Sequence[str]:
    """Return the fields for which a report was rejected, if it was.

    A later report that was not stored had a time ahead of the clock then, even if it is no longer
    ahead of the clock of this row.
    """
    if fields := activity.ahead(reported.totals(), row["now"]):
        return fields
    return ["last_message_at"] if row["activity_sequence"] < reported.sequence else []


def to_reconcile(after: ObjectId, user_id: str | None) -> Cursor[Document]:
    """Return ids and sequences in the order of the ids, of one user or of all."""
    wanted: dict[str, Any] = {"_id": {"$gt": after}, **NOT_PURGED}
    if user_id:
        wanted["user_id"] = user_id
    sequence = {"activity_sequence": stored("activity_sequence")}
    rows = conversations().find(wanted, sequence).sort("_id")
    # Each row waits for Message. MongoDB would send 300,000 at once, and close a cursor that then
    # asks for nothing for ten minutes.
    return rows.batch_size(100)


def repair(
    row: Document, totals: Mapping[str, Any], sequence: int | None, *, dry_run: bool
) -> bool:
    """Set what differs from Message's numbers, and return whether anything did.

    Nothing is set if a report arrived since the row was read, as it is later than these totals,
    or if a time is ahead of the database's clock.
    """
    conditions = [
        {"$eq": [stored("activity_sequence"), row["activity_sequence"]]},
        activity.in_time(totals),
        activity.needs_repair(totals, sequence),
    ]
    where = {"_id": row["_id"], **NOT_PURGED, "$expr": {"$and": conditions}}
    if dry_run:
        return find_one(where, {"_id": 1}) is not None
    repaired = conversations().update_one(where, activity.repair(totals, sequence))
    return bool(repaired.matched_count)


def to_reindex(after: ObjectId) -> Iterator[list[Document]]:
    """Return what search and sorting are derived from and to, in batches by `_id`."""
    while batch := _derived({"_id": {"$gt": after}}):
        yield batch
        after = batch[-1]["_id"]


def reindex(rows: Iterable[Document], *, dry_run: bool) -> int:
    """Derive anew what differs in these rows, and return in how many it did.

    A row whose title or tags are no longer those that were read is read again.
    """
    outdated = {row["_id"]: row for row in rows if not row.items() >= _anew(row).items()}
    if dry_run or not outdated:
        return len(outdated)
    writes = [
        UpdateOne(
            {
                "_id": _id,
                **NOT_PURGED,
                "title": row.get("title"),  # None matches a document without one
                "tags": {"$eq": row.get("tags")},
            },
            {"$set": _anew(row)},
            hint=ID_INDEX,
        )
        for _id, row in outdated.items()
    ]
    done = conversations().bulk_write(writes, ordered=False).matched_count
    if done < len(writes):
        done += reindex(_derived({"_id": {"$in": [*outdated]}}), dry_run=False)
    return done


def _derived(where: dict[str, Any]) -> list[Document]:
    names = ["title", "tags", *documents.derived("", ())]
    cursor = conversations().find({**where, **NOT_PURGED}, names, hint=ID_INDEX).sort("_id")
    return cursor.limit(REINDEXED_AT_ONCE).to_list()


def _anew(row: Document) -> dict[str, Any]:
    known = documents.DEFAULTS | row
    return documents.derived(known["title"], known["tags"])


def _diagnose(
    own: dict[str, Any],
    wanted: Template,
    variables: Mapping[str, Any],
    versions: Versions,
    key: IdempotencyKey | None = None,
) -> Answer | None:
    """Say why a change matched nothing: raise, or answer if there was nothing to do.

    Evaluates the expressions that the change would have written. None means that another write
    came between the change and this read: try again. MongoDB acknowledges an update that matches
    nothing when a majority of the replica set has the data that it did not match, so a read of
    the majority's data sees at least those.
    """
    projection = PUBLIC if versions.accepted is None else WITH_HISTORY
    found = find_one(
        own,
        projection | wanted.judgement(key),
        hint=ID_INDEX,
        let=variables,
        readConcern=MAJORITY,
    )
    if found is None:
        raise ConversationNotFound
    current = complete(found)
    if key and current["remembered"]:
        key.check(current["remembered"]["fingerprint"])
        return Answer(complete(current["remembered"].get("answer", current)), replayed=True)
    if versions.exclude(current["version"]):
        raise ConversationVersionConflict(
            current=resource(current), changes=history.since(current, versions)
        )
    if current["status"] not in wanted.states:
        raise ConversationStateConflict(status=current["status"])
    if current["held"]:
        raise LegalHold
    if current["oversized"]:
        raise LimitExceeded(current["oversized"])
    return None if key or current["differs"] else Answer(current)
