"""The export: all conversations that a user has, with their histories."""

from collections.abc import Iterator, Sequence
from typing import Any

from bson import ObjectId

from conversation_service.mongodb.connection import Document
from conversations.collection import STAFF_USER, conversations
from conversations.documents import WITH_HISTORY, complete
from conversations.states import ANY_STATE

EXPORTED_BYTES = 1024 * 1024  # the largest batch, unless a single conversation is larger
_SIZES_AT_ONCE = 50  # conversations


def iter_conversations(user_id: str, after: ObjectId | None = None) -> Iterator[Document]:
    """Yield a user's conversations with their revisions by `_id`, from the index staff_user.

    Each batch is a separate statement, so a long export survives MONGODB_TIMEOUT_MS and a new
    primary. A conversation has up to 3.4 MiB: the sizes are read first, and a batch has up to
    EXPORTED_BYTES or a single conversation.
    """
    own: dict[str, Any] = {"user_id": user_id, "status": {"$in": ANY_STATE}}
    later: dict[str, Any] = {"_id": {"$gt": after}} if after else {}
    by_id: dict[str, Any] = {"sort": [("_id", 1)], "hint": STAFF_USER}
    size = {"bytes": {"$bsonSize": "$$ROOT"}}
    find = conversations().find
    while sizes := find(own | later, size, limit=_SIZES_AT_ONCE, **by_id).to_list():
        for first, last in _spans(sizes):
            span = {"_id": {"$gte": first, "$lte": last}}
            yield from map(complete, find(own | span, WITH_HISTORY, **by_id))
        later = {"_id": {"$gt": last}}


def _spans(sizes: Sequence[Document]) -> Iterator[tuple[ObjectId, ObjectId]]:
    """Yield each batch's first and last id."""
    first = last = sizes[0]["_id"]
    total = 0
    for row in sizes:
        if total and total + row["bytes"] > EXPORTED_BYTES:
            yield first, last
            first, total = row["_id"], 0
        last = row["_id"]
        total += row["bytes"]
    yield first, last
