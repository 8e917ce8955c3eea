"""The statements behind the API: PyMongo on the pool that the ORM uses.

Every one carries `user_id`: whether a conversation is the caller's is decided by the database,
and a sharded cluster sends the statement to one shard. Purged ones are tombstones of the change
feed and exist for nobody.
"""

from typing import Any

from bson import ObjectId
from pymongo import ReturnDocument
from pymongo.collection import Collection

from conversation_service.mongodb.connection import Document, collection
from conversation_service.preconditions import ANY_VERSION, Versions
from conversations import changes
from conversations.changes import Change
from conversations.documents import PUBLIC, resource
from conversations.exceptions import (
    ConversationNotFound,
    ConversationStateConflict,
    ConversationVersionConflict,
    TooManyItems,
)
from conversations.listing import Listing

_ID_INDEX = "_id_"
# Times that a write is tried again after somebody changed what it was about to say no to.
ATTEMPTS = 5


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


def _own(user_id: str, conversation_id: str) -> dict[str, Any]:
    if not ObjectId.is_valid(conversation_id):
        raise ConversationNotFound
    return {"_id": ObjectId(conversation_id), "user_id": user_id, "status": {"$ne": "purged"}}


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
