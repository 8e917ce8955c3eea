"""Finds the events that the log lacks, from the revisions, and appends them."""

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
    "activity_sequence": 1,
    **dict.fromkeys(("metadata.created_at", "metadata.updated_at"), 1),
    "revisions": WITH_HISTORY["revisions"],
}
_PUBLISHER = "service:events"
# MongoDB's error codes if the history is not an array or an object: $concatArrays, $objectToArray.
_NO_HISTORY = {28664, 40390}


@dataclass(frozen=True)
class Seen:
    """A conversation in the change stream: its insert's version, its lowest version, activity."""

    inserted: int | None = None
    lowest: int | None = None
    has_activity: bool = False


@dataclass(frozen=True)
class Published:
    appended: int
    has_gap: bool  # the change stream has skipped a version


def publish(
    conversations: Mapping[ObjectId, Seen],
    horizon: datetime,
    session: ClientSession,
) -> Published:
    """Append these conversations' missing events, in the mapping's order, then by version.

    For a conversation without an event in the log, only changes since `horizon` are published:
    MongoDB may have deleted the events for earlier changes. Statements: two find and an aggregation
    for all, and a transaction if events are missing. All use `session`, which must know a cluster
    time with these changes.

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
        # A tombstone may already be deleted.
        if document := documents.get(id_):
            published = last.get(id_)
            events += _missing_or_resync(document, published, seen.inserted, horizon)
            events += _activity(document, horizon) if seen.has_activity else []
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

    `inserted` is the insert's version if the change stream has shown the insert. The conversation
    is then new, even if its pod's clock was behind.

    A resync replaces versions without a revision: the oldest of many, or the versions in which pods
    of release 0.1.0 have unarchived a conversation with a new message.
    """
    if document["status"] == states.PURGED:
        if published or document["changed_at"] >= horizon:
            by = purged_by(document) or "user"
            yield _event(document, None, log.PURGED, document["changed_at"], by=by)
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
    for revision in revisions:
        if published and revision["version"] > published + 1:
            last_missed = revision["version"] - 1
            yield _resync(document, revision["previous_at"], published + 1, last_missed)
        yield _edited(document, revision)
        published = revision["version"]
    newest = document["version"]
    if published and isinstance(newest, int) and newest > published:  # it can be damaged
        yield _resync(document, document["changed_at"], published + 1, newest)


def _birth(document: Document, inserted: int | None) -> tuple[int, datetime]:
    """Return the insert's version and time.

    An import stores both in `imported`, as the history before it is from elsewhere. Release 0.1.0
    stored no such field: for its imports, only the change stream has the version.
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
    """Return the event's type for a revision's change of the status, if any."""
    if status is None:
        return log.UPDATED
    if status["before"] == states.DELETED:
        return log.RESTORED
    return {states.ARCHIVED: log.ARCHIVED, states.DELETED: log.TRASHED}.get(
        status["after"], log.RESTORED
    )


def _activity(document: Document, horizon: datetime) -> list[NewEvent]:
    """Return an event for the latest activity report, which stands for all earlier ones.

    It has no version: the highest version in the log is the last published one.
    """
    sequence, at = document.get("activity_sequence"), document.get("changed_at")
    if document.get("status") == states.PURGED or not sequence:
        return []
    if not isinstance(sequence, int) or not isinstance(at, datetime) or at < horizon:
        return []
    id_ = f"{document['_id']}_a{sequence}"
    owner = {"user_id": None} | document
    event = _event(owner, None, log.ACTIVITY, at, by=_PUBLISHER, _id=id_)
    return [event] if log.is_well_formed(event) else []


def _resync(document: Document, at: datetime, first_missed: int, last_missed: int) -> NewEvent:
    return _event(
        document,
        last_missed,
        log.RESYNC,
        at,
        by=_PUBLISHER,
        first_missed=first_missed,
        last_missed=last_missed,
    )
