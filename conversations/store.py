"""The statements behind the API: PyMongo on the pool that the ORM uses.

Every one that serves a person carries `user_id`: whether a conversation is theirs is decided by
the database, and a sharded cluster sends the statement to one shard. Purged ones are tombstones
of the change feed and exist for nobody.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bson import ObjectId
from pymongo import ReturnDocument, UpdateOne
from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError

from conversation_service.idempotency import LIFETIME, IdempotencyInProgress, IdempotencyKey
from conversation_service.mongodb.connection import Document, collection
from conversation_service.origin import Origin
from conversation_service.preconditions import ANY_VERSION, Versions
from conversations import changes, documents, history
from conversations.changes import Activity, Change
from conversations.documents import PUBLIC, resource
from conversations.exceptions import (
    ConversationNotFound,
    ConversationStateConflict,
    ConversationVersionConflict,
    TooManyItems,
)
from conversations.listing import Listing

_ID_INDEX = "_id_"
_NOT_PURGED = {"status": {"$ne": "purged"}}
_LATEST = [("metadata.last_activity", -1), ("_id", -1)]
_REPORTED = ["activity_sequence", "metadata"]
# Times that a write is tried again after somebody changed what it was about to say no to.
ATTEMPTS = 5


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


def conversations() -> Collection[Document]:
    return collection("conversations")


def insert(document: Document, key: IdempotencyKey | None = None) -> Answer:
    """Insert a new conversation, unless the key says that this has been done.

    Under concurrency the unique index idempotency_keys lets one through. Raises
    IdempotencyKeyReused or IdempotencyInProgress.
    """
    if key is None:
        conversations().insert_one(document)
        return Answer(document)
    document["keys"] = [documents.remembered(key, document)]
    for _attempt in range(ATTEMPTS):
        try:
            conversations().insert_one(document)
        except DuplicateKeyError as error:
            if _violates(error, "idempotency_keys"):
                if answer := _remembered(document["user_id"], key, document["changed_at"]):
                    return answer
                continue
            raise
        return Answer(document)
    raise IdempotencyInProgress(headers={"Retry-After": "1"})


def only_of_character(document: Document, key: IdempotencyKey | None) -> Answer:
    """Return the user's latest active conversation with that character, or insert this one.

    Of many at once, the unique index only_of_character lets one insert; the others find it.
    """
    wanted = {name: document[name] for name in ("user_id", "character_id")} | {"status": "active"}
    document["only"] = document["character_id"]
    for _attempt in range(ATTEMPTS):
        if found := conversations().find_one(wanted, PUBLIC, sort=_LATEST):
            return Answer(found, existed=True)
        try:
            return insert(document, key)
        except DuplicateKeyError as error:
            if not _violates(error, "only_of_character"):
                raise
    raise IdempotencyInProgress(headers={"Retry-After": "1"})


def _remembered(user_id: str, key: IdempotencyKey, now: datetime) -> Answer | None:
    """Return what the key led to; forget one that has expired, and return None then."""
    mine = {"user_id": user_id, "keys.key": key.scope}
    found = conversations().find_one(mine, {"keys.$": 1})
    if found is None:
        return None
    [record] = found["keys"]
    if record["at"] < (now - LIFETIME).replace(tzinfo=None):
        conversations().update_one(mine, {"$pull": {"keys": {"key": key.scope}}})
        return None
    key.check(record["fingerprint"])
    return Answer(record["answer"], replayed=True)


def _violates(error: DuplicateKeyError, index: str) -> bool:
    return f"index: {index} " in str((error.details or {}).get("errmsg", ""))


def get(user_id: str, conversation_id: str) -> Document:
    """Read one by `_id`, or raise ConversationNotFound."""
    document = conversations().find_one(_own(user_id, conversation_id), PUBLIC, hint=_ID_INDEX)
    if document is None:
        raise ConversationNotFound
    return document


def page(listing: Listing) -> list[Document]:
    """Read a page and one row more, by the index that ends with the listing's sort key."""
    cursor = conversations().find(listing.where(), listing.projection).sort(listing.order())
    return cursor.skip(listing.skip).limit(listing.limit + 1).to_list()


def count(listing: Listing) -> int:
    return conversations().count_documents(listing.matching())


def with_history(user_id: str, conversation_id: str) -> Document:
    """Read one with its log, which no other read loads."""
    projection = [*PUBLIC, "revisions"]
    document = conversations().find_one(_own(user_id, conversation_id), projection, hint=_ID_INDEX)
    if document is None:
        raise ConversationNotFound
    return document


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
    ConversationVersionConflict, ConversationStateConflict, TooManyItems or IdempotencyKeyReused.
    """
    own = _own(user_id, conversation_id)
    where = {
        **own,
        "status": {"$in": wanted.states},
        **versions.condition(),
        "$expr": {"$and": [wanted.fits(), *([] if key else [wanted.differs()])]},
        **(changes.is_new(key) if key else {}),
    }
    for _attempt in range(ATTEMPTS):
        changed = conversations().find_one_and_update(
            where,
            wanted.pipeline(origin, key),
            projection=PUBLIC,
            return_document=ReturnDocument.AFTER,
            hint=_ID_INDEX,
        )
        if changed is not None:
            return Answer(changed)
        if answer := _diagnose(own, wanted, versions, key):
            return answer
    raise ConversationStateConflict


def purge(user_id: str, conversation_id: str, versions: Versions = ANY_VERSION) -> None:
    """Leave nothing but a tombstone, in one statement; only what is in the trash can be purged."""
    own = _own(user_id, conversation_id)
    for _attempt in range(ATTEMPTS):
        purged = conversations().update_one(
            {**own, "status": "deleted", **versions.condition()},
            changes.tombstone(),
            hint=_ID_INDEX,
        )
        if purged.matched_count:
            return
        _diagnose(own, changes.PURGE, versions)
    raise ConversationStateConflict


def report(conversation_id: str, activity: Activity, *, unarchive: bool) -> Reported:
    """Store a report if it is later than the last one. Raises ConversationNotFound."""
    existing = _existing(conversation_id)
    stored = conversations().find_one_and_update(
        {**existing, "activity_sequence": {"$lt": activity.sequence}},
        changes.report(activity, unarchive=unarchive),
        projection=_REPORTED,
        return_document=ReturnDocument.AFTER,
        hint=_ID_INDEX,
    )
    current = stored or conversations().find_one(existing, _REPORTED, hint=_ID_INDEX)
    if current is None:
        raise ConversationNotFound
    return Reported(stored is not None, current["activity_sequence"], current["metadata"])


def report_all(activities: Mapping[str, Activity]) -> dict[str, bool]:
    """Store many reports in two round trips; tell for each existing id whether it was applied.

    A mark of this very call says afterwards which ones were: the driver counts them only.
    """
    batch = ObjectId()
    wanted = {ObjectId(id_): activity for id_, activity in activities.items() if _is_id(id_)}
    if not wanted:
        return {}
    writes = [
        UpdateOne(
            {"_id": _id, **_NOT_PURGED, "activity_sequence": {"$lt": activity.sequence}},
            changes.report(activity, batch=batch),
            hint=_ID_INDEX,
        )
        for _id, activity in wanted.items()
    ]
    conversations().bulk_write(writes, ordered=False)
    marks = conversations().find({"_id": {"$in": [*wanted]}, **_NOT_PURGED}, ["activity_batch"])
    return {str(row["_id"]): row["activity_batch"] == batch for row in marks}


def ownership(ids: Iterable[str]) -> dict[str, Document]:
    """Return owner and status of those that exist, by id."""
    wanted = [ObjectId(id_) for id_ in ids if _is_id(id_)]
    rows = conversations().find(
        {"_id": {"$in": wanted}, **_NOT_PURGED}, ["user_id", "status"], hint=_ID_INDEX
    )
    return {str(row["_id"]): row for row in rows}


def _is_id(conversation_id: str) -> bool:
    return ObjectId.is_valid(conversation_id)


def _existing(conversation_id: str) -> dict[str, Any]:
    if not _is_id(conversation_id):
        raise ConversationNotFound
    return {"_id": ObjectId(conversation_id), **_NOT_PURGED}


def _own(user_id: str, conversation_id: str) -> dict[str, Any]:
    return {**_existing(conversation_id), "user_id": user_id}


def _diagnose(
    own: dict[str, Any], wanted: Change, versions: Versions, key: IdempotencyKey | None = None
) -> Answer | None:
    """Say why a change matched nothing: raise, or answer if there was nothing to do.

    The database judges by the very expressions that it would have written. None means that
    somebody else's write came between the change and this look: try again.
    """
    projection = dict.fromkeys(PUBLIC, 1) | wanted.judgement(key)
    if versions.accepted is not None:
        projection["revisions"] = 1
    current = conversations().find_one(own, projection, hint=_ID_INDEX)
    if current is None:
        raise ConversationNotFound
    if key and current["remembered"]:
        key.check(current["remembered"]["fingerprint"])
        return Answer(current["remembered"]["answer"], replayed=True)
    if versions.exclude(current["version"]):
        raise ConversationVersionConflict(
            current=resource(current), changes=history.since(current, versions)
        )
    if current["status"] not in wanted.states:
        raise ConversationStateConflict(status=current["status"])
    if current["oversized"]:
        raise TooManyItems(current["oversized"])
    return None if key or current["differs"] else Answer(current)
