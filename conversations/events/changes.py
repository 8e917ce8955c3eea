"""The events of conversations: which ones are missing in the log, and their publication."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bson import Int64, ObjectId
from pymongo.client_session import ClientSession
from pymongo.errors import OperationFailure

from conversation_service.mongodb.connection import Document
from conversations import history, states
from conversations.collection import ID_INDEX, committed
from conversations.documents import WITH_HISTORY, complete, purged_by
from conversations.events import log
from conversations.events.log import NewEvent
from conversations.history import Revision

logger = logging.getLogger(__name__)

_READ = {
    **dict.fromkeys(("user_id", "status", "version", "changed_at", "mark", "imported"), 1),
    **dict.fromkeys(("metadata.created_at", "metadata.updated_at"), 1),
    "revisions": WITH_HISTORY["revisions"],
}
_PUBLISHER = "service:events"
# MongoDB's error codes if the history is not an array or an object: $concatArrays, $objectToArray.
_NO_HISTORY = {28664, 40390}


@dataclass(frozen=True)
class Seen:
    """Versions of a conversation that the change stream has shown.

    `inserted` is the version of an insert. `lowest` is the lowest version of all.
    """

    inserted: int | None = None
    lowest: int | None = None


@dataclass(frozen=True)
class Published:
    appended: int
    has_gap: bool  # the change stream has skipped a version


def publish(
    conversations: Mapping[ObjectId, Seen],
    horizon: datetime,
    session: ClientSession,
) -> Published:
    """Append the missing events of these conversations, in the order of the mapping.

    Events of a conversation are appended in the order of its versions. Of a conversation without
    an event in the log, only changes since `horizon` are published: MongoDB may have deleted the
    events of earlier changes. Two find and an aggregation for all; a transaction if some are
    missing. All use `session`, which knows a cluster time with these changes.

    A damaged document delays no other conversation: its missing versions are one resync.
    """
    ids = {"$in": [*conversations]}
    documents = {row["_id"]: row for row in _read([*conversations], session)}
    last = {
        row["_id"]: row["version"]
        for row in log.event_log().aggregate(
            [
                {"$match": {"conversation_id": ids}},
                {"$group": {"_id": "$conversation_id", "version": {"$max": "$version"}}},
            ],
            hint="event_versions",
            session=session,
        )
    }
    events: list[NewEvent] = []
    has_gap = False
    for id_, seen in conversations.items():
        # MongoDB may have deleted a tombstone.
        if document := documents.get(id_):
            published = last.get(id_)
            events += _missing_or_resync(document, published, seen.inserted, horizon)
            has_gap |= bool(published and seen.lowest and seen.lowest > published + 1)
    return Published(log.append(events, session), has_gap)


def _read(ids: Sequence[ObjectId], session: ClientSession) -> list[Document]:
    """Read conversations with their history, which is None if MongoDB cannot compute it."""
    try:
        where = {"_id": {"$in": ids}}
        return committed().find(where, _READ, hint=ID_INDEX, session=session).to_list()
    except OperationFailure as error:
        if error.code not in _NO_HISTORY:
            raise
    if len(ids) > 1:
        half = len(ids) // 2
        return _read(ids[:half], session) + _read(ids[half:], session)
    plain = _READ | {"revisions": {"$literal": None}}
    row = committed().find_one({"_id": ids[0]}, plain, session=session)
    return [row] if row else []


def _missing_or_resync(
    document: Document, published: int | None, inserted: int | None, horizon: datetime
) -> list[NewEvent]:
    """Return the missing events. If the document is damaged, return a resync, or log an error.

    The validator does not know the types in a revision, and can be off while documents are written.
    """
    try:
        events = [*missing(document, published, inserted, horizon)]
        reason = "a value of a wrong type"
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        reason = type(error).__name__
    else:
        if all(map(log.is_well_formed, events)):
            return events
    version: Any
    version, at = document.get("version"), document.get("changed_at")
    if type(version) in {int, Int64} and isinstance(at, datetime):
        if version <= (published or 0) or (published is None and at < horizon):
            return []
        missed = {"first_missed": (published or 0) + 1, "last_missed": version}
        owner = {"user_id": None} | document
        resync = _event(owner, version, log.RESYNC, at, by=_PUBLISHER, **missed)
        if log.is_well_formed(resync):
            text = "The document %s is damaged (%s): a resync replaces its missing events"
            logger.error(text, document["_id"], reason)
            return [resync]
    text = "The document %s is damaged (%s): its changes cannot be published"
    logger.error(text, document["_id"], reason)
    return []


def missing(
    document: Document, published: int | None, inserted: int | None, horizon: datetime
) -> Iterator[NewEvent]:
    """Yield the events after the last published version, or since `horizon` if there is none.

    `inserted` is the version of the insert if the change stream has shown the insert: the
    conversation is then new, even if the clock of its pod was behind.
    """
    if document["status"] == states.PURGED:
        if published or document["changed_at"] >= horizon:
            yield _purged(document)
        return
    document = complete(document)
    first, at = _birth(document, inserted)
    if published is None and (inserted or at >= horizon):
        yield _event(document, first, log.CREATED, at)
        published = first
    revisions = [r for r in reversed(history.exported(document)) if r["version"] > first]
    if published is None:
        revisions = [revision for revision in revisions if revision["at"] >= horizon]
        if revisions and revisions[0]["previous_at"] >= horizon:
            published = first  # versions since the horizon are missing before the oldest revision
    else:
        revisions = [revision for revision in revisions if revision["version"] > published]
    if revisions and published and revisions[0]["version"] > published + 1:
        yield _resync(document, revisions[0], first_missed=published + 1)
    for revision in revisions:
        yield _edited(document, revision)


def _birth(document: Document, inserted: int | None) -> tuple[int, datetime]:
    """Return the version and the time of the insert.

    `imported` has both for an imported conversation: its history is from elsewhere. A document that
    a pod of release 0.1.0 imported lacks the field: then only the change stream knows.
    """
    imported = document.get("imported")
    if imported:
        return imported["version"], imported["at"]
    return inserted or 1, document["metadata"]["created_at"]


def _event(
    document: Document, version: int | None, kind: str, at: datetime, **values: Any
) -> NewEvent:
    suffix = log.PURGED_SUFFIX if version is None else f"v{version}"
    event: Any = {
        "_id": f"{document['_id']}_{suffix}",
        "type": kind,
        "at": at,
        "conversation_id": document["_id"],
        "user_id": document["user_id"],
        "version": version,
        "fields": [],
        "by": "user",
        "client": None,
        "request_id": "",
    }
    return {**event, **values}  # type: ignore[typeddict-item]


def _purged(tombstone: Document) -> NewEvent:
    by = purged_by(tombstone) or "user"
    return _event(tombstone, None, log.PURGED, tombstone["changed_at"], by=by)


def _edited(document: Document, revision: Revision) -> NewEvent:
    return _event(
        document,
        revision["version"],
        _type_of_edit(revision["changes"].get("status")),
        revision["at"],
        fields=[*revision["changes"]],
        by=revision["by"],
        client=revision["client"],
        request_id=revision["request_id"],
    )


def _type_of_edit(status: Mapping[str, Any] | None) -> str:
    """Return the event's type for the change of the status, if any."""
    if status is None:
        return log.UPDATED
    if status["before"] == states.DELETED:
        return log.RESTORED
    return {states.ARCHIVED: log.ARCHIVED, states.DELETED: log.TRASHED}.get(
        status["after"], log.RESTORED
    )


def _resync(document: Document, oldest: Revision, *, first_missed: int) -> NewEvent:
    last_missed = oldest["version"] - 1
    return _event(
        document,
        last_missed,
        log.RESYNC,
        oldest["previous_at"],
        by=_PUBLISHER,
        first_missed=first_missed,
        last_missed=last_missed,
    )
