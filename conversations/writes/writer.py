"""Applies updates, to a single conversation and to many.

An update is a single statement for each conversation, and `_diagnosis` is its guard: the statement
matches only if every check passes. The same expression explains afterwards why a statement did not
match, so the checks have the same order everywhere.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal

import bson
from bson import ObjectId
from bson.raw_bson import RawBSONDocument
from pymongo import ReturnDocument, UpdateOne
from pymongo.errors import BulkWriteError

from conversation_service.errors import ServiceError
from conversation_service.http.actor import Actor
from conversation_service.mongodb import failures
from conversation_service.mongodb.connection import Document
from conversation_service.mongodb.monitor import unavailable
from conversations import history, limits, metrics
from conversations.collection import (
    ATTEMPTS,
    ID_INDEX,
    MAJORITY,
    STAFF_USER,
    committed,
    conversations,
    find_one,
    own_filter,
)
from conversations.documents import (
    DEFAULTS,
    PUBLIC,
    REVISIONS,
    WITH_HISTORY,
    complete,
    resource,
    stored,
)
from conversations.exceptions import (
    ConversationNotFound,
    ConversationStateConflict,
    ConversationVersionConflict,
    LegalHold,
    LimitExceeded,
)
from conversations.states import PURGED
from conversations.writes import idempotency
from conversations.writes.idempotency import IdempotencyKey
from conversations.writes.updates import (
    CHANGED_AT,
    NOW,
    Expression,
    Update,
    UpdateTemplate,
    merged,
)

logger = logging.getLogger(__name__)

# The versions that an update accepts; None accepts every version.
Versions = frozenset[int] | None


@dataclass(frozen=True)
class WriteResult:
    """The conversation after a request.

    `written` is True if this request wrote the conversation, `replayed` if an earlier request with
    the same idempotency key did, and `existed` if get_or_create found it.
    """

    document: Document
    written: bool = False
    replayed: bool = False
    existed: bool = False


@dataclass(frozen=True)
class BulkResult:
    """The result for each of many conversations; `version` is None if absent or purged.

    `error` makes the failure of the same request for this conversation alone.
    """

    outcome: Literal["ok", "skipped", "failed"]
    version: int | None = None
    error: Callable[[], ServiceError] | None = None


ABSENT = BulkResult("failed", error=ConversationNotFound)


# The parts of a statement


@dataclass(frozen=True)
class _Statement:
    """The encoded parts that all updates with the same templates share."""

    guard: RawBSONDocument
    pipeline: list[RawBSONDocument]
    diagnosis: RawBSONDocument
    exceeded_limits: RawBSONDocument
    states: Sequence[str]
    event: str | None


@lru_cache(maxsize=512)
def _statement(templates: tuple[UpdateTemplate, ...], *, with_key: bool) -> _Statement:
    template = merged(templates)
    diagnosis = _diagnosis(template, with_key=with_key)
    exceeded = [
        {"$cond": [limit.is_within, [], [{"path": path, "maximum": limit.maximum}]]}
        for path, limit in template.limits.items()
    ]
    return _Statement(
        guard=_encoded({"$eq": [diagnosis, "applicable"]}),
        pipeline=[_encoded(stage) for stage in _pipeline(template, with_key=with_key)],
        diagnosis=_encoded(diagnosis),
        exceeded_limits=_encoded({"$concatArrays": exceeded}),
        states=template.states,
        event=template.event,
    )


def _encoded(part: Mapping[str, Any]) -> RawBSONDocument:
    return RawBSONDocument(bson.encode(part))


def _diagnosis(template: UpdateTemplate, *, with_key: bool) -> Expression:
    """Return an expression for the first check that prevents the update, or "applicable".

    `$$versions` are the accepted versions, or null for any. An update with an idempotency key is
    written even without effect, as it stores the record.
    """
    version = stored("version")
    # First, as a tombstone has no other field that a check could read.
    checks: list[tuple[str, Expression]] = [("absent", {"$eq": ["$status", PURGED]})]
    if with_key:
        checks.append(("replayed", {"$ne": [idempotency.FOUND, None]}))
    accepted = {"$ifNull": ["$$versions", [version]]}
    checks.append(("version", {"$not": [{"$in": [version, accepted]}]}))
    checks.append(("state", {"$not": [{"$in": ["$status", [*template.states]]}]}))
    if template.blocked_by_hold:
        checks.append(("held", {"$ne": [{"$ifNull": ["$hold", None]}, None]}))
    if template.limits:
        are_within = [limit.is_within for limit in template.limits.values()]
        checks.append(("too_large", {"$not": [{"$and": are_within}]}))
    if not with_key:
        checks.append(("no_effect", {"$not": [_has_effect(template)]}))
    branches = [{"case": check, "then": name} for name, check in checks]
    return {"$switch": {"branches": branches, "default": "applicable"}}


def _has_effect(template: UpdateTemplate) -> Expression:
    return {"$or": [{"$ne": [stored(path), value]} for path, value in template.public.items()]}


def _pipeline(template: UpdateTemplate, *, with_key: bool) -> list[dict[str, Any]]:
    """Return the update pipeline: the update, its revision, and the idempotency record."""
    if template.replacement:
        return [{"$replaceWith": template.replacement}]
    new_version = new_version_of(template.public)
    if not with_key:
        return [{"$set": {**template.public, **template.derived, **new_version}}]
    if_effective = {
        path: {"$cond": [_has_effect(template), value, f"${path}"]}
        for path, value in new_version.items()
    }
    return [
        {"$set": {**template.public, **template.derived, **if_effective}},
        idempotency.add_record_stage(),
    ]


def new_version_of(public: Mapping[str, Expression]) -> dict[str, Expression]:
    """Return the paths of a new version and its revision, for an update of these public paths.

    The expressions refer to the variables `$$actor` and `$$mark`.
    """
    # Never before the last update, even if a new primary's clock is behind.
    updated_at = {"$max": [NOW, "$changed_at"]}
    version = {"$add": [stored("version"), 1]}
    fields = [
        {"path": path, "before": stored(path), "after": value} for path, value in public.items()
    ]
    is_different = {"$ne": ["$$this.before", "$$this.after"]}
    revision = {
        "$mergeObjects": [
            {
                "version": version,
                "at": updated_at,
                "previous_at": stored("metadata.updated_at"),
            },
            "$$actor",
            {"mark": {"$ifNull": ["$$mark", "$$REMOVE"]}},
            {"changes": {"$filter": {"input": fields, "cond": is_different}}},
        ]
    }
    return {
        "version": version,
        "metadata.updated_at": updated_at,
        "changed_at": CHANGED_AT,
        "revisions_by_version": _revisions_with({"k": {"$toString": version}, "v": revision}),
        "revisions": [],
    }


def _revisions_with(new: Expression) -> Expression:
    """Return an expression for `revisions_by_version` with the stored revisions and a new one.

    For an object, MongoDB replicates only the new revision and the dropped revision's name. For a
    full array, it would replicate all elements, because they move. The pipeline moves the array's
    revisions into the object, see documents.REVISIONS. A revision without a version gets it by its
    position: the last revision has the present version.
    """
    position = {"$subtract": ["$$this", {"$size": "$$array"}]}
    version = {"$ifNull": ["$$revision.version", {"$add": [stored("version"), 1, position]}]}
    entry = {
        "$let": {
            "vars": {"revision": {"$arrayElemAt": ["$$array", "$$this"]}},
            "in": {"k": {"$toString": version}, "v": "$$revision"},
        }
    }
    moved = {
        "$let": {
            "vars": {"array": stored("revisions")},
            "in": {"$map": {"input": {"$range": [0, {"$size": "$$array"}]}, "in": entry}},
        }
    }
    every = {"$concatArrays": [{"$objectToArray": stored("revisions_by_version")}, moved, [new]]}
    return {"$arrayToObject": {"$slice": [every, -limits.REVISIONS]}}


def _variables(
    update: Update,
    actor: Actor | None = None,
    *,
    versions: Versions = None,
    key: IdempotencyKey | None = None,
    mark: ObjectId | None = None,
) -> dict[str, Any]:
    """Return the `let` for a statement."""
    variables = {
        "values": {"$literal": update.values},
        "versions": None if versions is None else [*versions],
        "mark": mark,
    }
    if actor:
        variables["actor"] = {"$literal": vars(actor)}
    if key:
        variables["key"] = {"$literal": vars(key)}
    return variables


# One conversation


def apply_to_one(  # noqa: PLR0913
    user_id: str,
    conversation_id: str,
    update: Update,
    *,
    actor: Actor,
    versions: Versions = None,
    key: IdempotencyKey | None = None,
) -> WriteResult:
    """Apply an update in one statement by `_id`, and return the conversation afterwards.

    An update without effect is not written: same version, same times. For a recorded key, returns
    the recorded response. Raises ConversationNotFound, IdempotencyKeyReused,
    ConversationVersionConflict, ConversationStateConflict, LegalHold or LimitExceeded.
    """
    statement = _statement(update.templates, with_key=key is not None)
    variables = _variables(update, actor, versions=versions, key=key)
    own = own_filter(user_id, conversation_id)
    for _attempt in range(ATTEMPTS):
        written = conversations().find_one_and_update(
            {**own, "$expr": statement.guard},
            statement.pipeline,
            projection=PUBLIC,
            return_document=ReturnDocument.AFTER,
            hint=ID_INDEX,
            let=variables,
        )
        if written is not None:
            if statement.event:
                metrics.EVENTS.labels(statement.event).inc()
            return WriteResult(written, written=True)
        if result := _explain_no_match(own, statement, variables, versions, key):
            return result
    raise ConversationStateConflict(allowed=statement.states)


def _explain_no_match(
    own: Mapping[str, Any],
    statement: _Statement,
    variables: Mapping[str, Any],
    versions: Versions,
    key: IdempotencyKey | None,
) -> WriteResult | None:
    """Raise the error that explains why a statement did not match, or return the result.

    Returns None if another write came between the statement and this read: try again. MongoDB
    acknowledges an update without a match when a majority in the replica set has the data that did
    not match, so this read with read concern "majority" sees at least that data.
    """
    found = find_one(
        own,
        {
            **(PUBLIC if versions is None else WITH_HISTORY),
            "diagnosis": statement.diagnosis,
            "exceeded_limits": statement.exceeded_limits,
            **({"record": idempotency.FOUND} if key else {}),
        },
        hint=ID_INDEX,
        let=variables,
        readConcern=MAJORITY,
    )
    if found is None:
        raise ConversationNotFound
    current = complete(found)
    match current["diagnosis"]:
        case "replayed" if key:
            key.check(current["record"]["fingerprint"])
            return WriteResult(complete(current["record"].get("answer", current)), replayed=True)
        case "version":
            raise version_conflict(current, versions)
        case "state":
            raise ConversationStateConflict(current["status"], statement.states)
        case "held":
            raise LegalHold
        case "too_large":
            raise LimitExceeded(current["exceeded_limits"])
        case "no_effect":
            return WriteResult(current)
    return None


def version_conflict(current: Document, versions: Versions) -> ConversationVersionConflict:
    """Return the error for a conversation, read with its revisions, that has another version."""
    known = max(versions or {0})
    conflict = ConversationVersionConflict
    return conflict(
        conflict.changed if 0 < known < current["version"] else conflict.unknown,
        current=resource(current),
        changes=history.since(current, known),
    )


# Many conversations


def apply_to_many(
    user_id: str,
    ids: Iterable[ObjectId],
    update: Update,
    *,
    actor: Actor,
    only: Mapping[str, Any] | None = None,
) -> dict[ObjectId, BulkResult]:
    """Apply an update to a user's conversations; return a result for each that exists.

    Two round trips: the statements, then the results. A mark in the new revision or tombstone shows
    which conversations this call wrote, also under concurrency. A conversation that does not match
    the filter `only` is skipped.
    """
    mark = ObjectId()
    states = _statement(update.templates, with_key=False).states
    results: dict[ObjectId, BulkResult] = {}
    pending = {*ids}
    for _attempt in range(ATTEMPTS):
        write(((user_id, id_) for id_ in pending), update, actor=actor, only=only, mark=mark)
        rows = _read_results(user_id, pending, update, mark=mark)
        results |= {row["_id"]: _bulk_result(row, states, applicable="skipped") for row in rows}
        # Another write came between the statement and the read: try again.
        pending = {r["_id"] for r in rows if not r["marked"] and r["diagnosis"] == "applicable"}
        if only is not None or not pending:
            return results
    conflict = BulkResult("failed", error=partial(ConversationStateConflict, allowed=states))
    return results | dict.fromkeys(pending, conflict)


def write(
    targets: Iterable[tuple[str, ObjectId]],
    update: Update,
    *,
    actor: Actor,
    only: Mapping[str, Any] | None = None,
    mark: ObjectId | None = None,
) -> int:
    """Apply an update to each target, a user id and a conversation id; return how many it wrote.

    A conversation stays as it is if a check fails, if it does not match the filter `only`, or if
    the validator rejects the update. PyMongo repeats these statements when the primary changes,
    unlike update_many.
    """
    statement = _statement(update.templates, with_key=False)
    conditions: dict[str, Any] = {"$expr": statement.guard}
    if only:
        conditions["$and"] = [only]
    statements = [
        UpdateOne({"_id": id_, "user_id": user_id, **conditions}, statement.pipeline, hint=ID_INDEX)
        for user_id, id_ in targets
    ]
    if not statements:
        return 0
    variables = _variables(update, actor, mark=mark)
    try:
        written = (
            conversations().bulk_write(statements, ordered=False, let=variables).modified_count
        )
    except BulkWriteError as error:
        # The error contains the statements, which must not reach a log.
        if failures.is_unavailability(error):
            raise unavailable(error) from None
        logger.warning("MongoDB rejected updates: %s", failures.name(error))
        written = error.details["nModified"]
    if statement.event:
        metrics.EVENTS.labels(statement.event).inc(written)
    return written


def dry_run(user_id: str, ids: Iterable[ObjectId], update: Update) -> dict[ObjectId, BulkResult]:
    """Return the results that apply_to_many would return, and write nothing."""
    rows = _read_results(user_id, ids, update)
    states = _statement(update.templates, with_key=False).states
    return {row["_id"]: _bulk_result(row, states, applicable="ok") for row in rows}


def count_outcomes(chosen: Mapping[str, Any], update: Update) -> dict[str, int]:
    """Count the outcomes that an update of all matches would have, by the index staff_user."""
    statement = _statement(update.templates, with_key=False)
    diagnosis = statement.diagnosis
    groups = conversations().aggregate(
        [{"$match": chosen}, {"$group": {"_id": diagnosis, "count": {"$sum": 1}}}],
        hint=STAFF_USER,
        let=_variables(update),
    )
    counts = {"matched": 0, "ok": 0, "skipped": 0, "failed": 0}
    for group in groups:
        row = {"diagnosis": group["_id"], "marked": None}
        outcome = _bulk_result(row, statement.states, applicable="ok").outcome
        counts["matched"] += group["count"]
        counts[outcome] += group["count"]
    return counts


def _read_results(
    user_id: str, ids: Iterable[ObjectId], update: Update, *, mark: ObjectId | None = None
) -> list[Document]:
    """Read diagnoses, and in `marked` the version with the mark, or True for a tombstone."""
    marked = {
        "$first": {
            "$map": {
                "input": {
                    "$filter": {
                        "input": REVISIONS,
                        "cond": {"$eq": ["$$this.mark", "$$mark"]},
                    }
                },
                "in": "$$this.version",
            }
        }
    }
    statement = _statement(update.templates, with_key=False)
    projection = {
        "version": 1,
        "status": 1,
        "diagnosis": statement.diagnosis,
        "exceeded_limits": statement.exceeded_limits,
        "marked": {"$ifNull": [marked, {"$eq": ["$mark", "$$mark"]}]},
    }
    variables = _variables(update, mark=mark)
    own = {"_id": {"$in": [*ids]}, "user_id": user_id}
    return committed().find(own, projection, hint=ID_INDEX, let=variables).to_list()


def _bulk_result(
    row: Document, allowed: Sequence[str], *, applicable: Literal["ok", "skipped"]
) -> BulkResult:
    """Return the result for a row; `allowed` are the states that the update accepts."""
    if row["marked"]:
        is_version = row["marked"] is not True
        return BulkResult("ok", row["marked"] if is_version else None)
    version = row.get("version", DEFAULTS["version"])
    error: Callable[[], ServiceError]
    match row["diagnosis"]:
        case "absent":
            return ABSENT
        case "state":
            error = partial(ConversationStateConflict, row.get("status"), allowed)
        case "held":
            error = LegalHold
        case "too_large":
            error = partial(LimitExceeded, row.get("exceeded_limits", ()))
        case diagnosis:
            return BulkResult(applicable if diagnosis == "applicable" else "skipped", version)
    return BulkResult("failed", version, error)
