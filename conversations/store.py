"""The statements behind the API: PyMongo on the pool that the ORM uses.

Every one that serves a person carries `user_id`: whether a conversation is theirs is decided by
the database, and a sharded cluster sends the statement to one shard. Purged ones are tombstones
of the change feed and exist for nobody.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bson import ObjectId
from pymongo import ReturnDocument, UpdateOne
from pymongo.collection import Collection

from conversation_service.mongodb.connection import Document, collection
from conversation_service.preconditions import ANY_VERSION, Versions
from conversations import changes
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
_REPORTED = ["activity_sequence", "metadata"]
# Times that a write is tried again after somebody changed what it was about to say no to.
ATTEMPTS = 5


@dataclass(frozen=True)
class Reported:
    """What became of a report, and what is stored since."""

    applied: bool
    sequence: int
    metadata: dict[str, Any]


def conversations() -> Collection[Document]:
    return collection("conversations")


def insert(document: Document) -> None:
    conversations().insert_one(document)


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


def change(
    user_id: str, conversation_id: str, wanted: Change, versions: Versions = ANY_VERSION
) -> Document:
    """Apply a change in one statement and return the conversation as it then is.

    Where nothing would differ, nothing is written: same version, same clocks. Raises
    ConversationNotFound, ConversationVersionConflict, ConversationStateConflict or TooManyItems.
    """
    own = _own(user_id, conversation_id)
    where = {
        **own,
        "status": {"$in": wanted.states},
        **versions.condition(),
        "$expr": {"$and": [wanted.differs(), wanted.fits()]},
    }
    for _attempt in range(ATTEMPTS):
        changed = conversations().find_one_and_update(
            where,
            wanted.pipeline(),
            projection=PUBLIC,
            return_document=ReturnDocument.AFTER,
            hint=_ID_INDEX,
        )
        if changed is not None:
            return changed
        current = _diagnose(own, wanted, versions)
        if not current.pop("differs"):
            return current
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


def _diagnose(own: dict[str, Any], wanted: Change, versions: Versions) -> Document:
    """Say why a change matched nothing, or return the conversation with `differs`.

    The database judges by the very expressions that it would have written. Where `differs` is
    true, somebody else's write came between the change and this look: try again.
    """
    projection = dict.fromkeys(PUBLIC, 1) | wanted.judgement()
    current = conversations().find_one(own, projection, hint=_ID_INDEX)
    if current is None:
        raise ConversationNotFound
    if versions.exclude(current["version"]):
        raise ConversationVersionConflict(current=resource(current))
    if current["status"] not in wanted.states:
        raise ConversationStateConflict(status=current["status"])
    if oversized := current.pop("oversized"):
        raise TooManyItems(oversized)
    return current
