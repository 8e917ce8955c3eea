"""All conversations of one user, with their histories."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bson import ObjectId

from conversation_service.mongodb.connection import Document
from conversations.collection import STAFF_USER, conversations
from conversations.documents import WITH_HISTORY, complete
from conversations.states import ANY_STATE

EXPORTED_BYTES = 1024 * 1024  # one batch of an export
_SIZES_AT_ONCE = 50  # conversations whose sizes one statement reads


def each_of(user_id: str, after: ObjectId | None = None) -> Iterator[Document]:
    """Return all of a user's with their logs in the order of `_id`, by the index staff_user.

    Each batch is a statement of its own: a long read neither times out as a whole nor ends with
    the primary. A conversation has up to 3.4 MiB, so their sizes are read first, and a batch has
    EXPORTED_BYTES at most, or one conversation.
    """
    own: dict[str, Any] = {"user_id": user_id, "status": {"$in": ANY_STATE}}
    position: dict[str, Any] = {"_id": {"$gt": after}} if after else {}
    while sizes := _sizes(own | position):
        for first, last in _spans(sizes):
            span = {"_id": {"$gte": first, "$lte": last}}
            rows = conversations().find(
                own | span, WITH_HISTORY, sort=[("_id", 1)], hint=STAFF_USER
            )
            yield from map(complete, rows)
        position = {"_id": {"$gt": last}}


def _sizes(where: Mapping[str, Any]) -> list[Document]:
    return (
        conversations()
        .find(where, {"bytes": {"$bsonSize": "$$ROOT"}}, sort=[("_id", 1)], hint=STAFF_USER)
        .limit(_SIZES_AT_ONCE)
        .to_list()
    )


def _spans(sizes: Sequence[Document]) -> Iterator[tuple[ObjectId, ObjectId]]:
    """Yield the first and the last id of each batch."""
    first = last = sizes[0]["_id"]
    total = 0
    for row in sizes:
        if total and total + row["bytes"] > EXPORTED_BYTES:
            yield first, last
            first, total = row["_id"], 0
        last = row["_id"]
        total += row["bytes"]
    yield first, last
