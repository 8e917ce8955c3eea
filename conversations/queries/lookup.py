"""Reads of single conversations, and of the owners and states of several."""

from collections.abc import Iterable

from bson import ObjectId

from conversation_service.errors import DatabaseUnavailable
from conversation_service.mongodb.connection import Document
from conversations.collection import (
    ATTEMPTS,
    ID_INDEX,
    MAJORITY,
    NOT_PURGED,
    await_majority,
    committed,
    conversations,
    find_one,
    is_id,
    own_filter,
)
from conversations.documents import PUBLIC, WITH_HISTORY, complete
from conversations.exceptions import ConversationNotFound, ConversationStateConflict
from conversations.queries.listing import BY_CHARACTER
from conversations.states import ACTIVE, NOT_TRASHED

LATEST = {"metadata.last_activity": -1, "_id": -1}


def get(user_id: str, conversation_id: str) -> Document:
    """Read one by `_id`, or raise ConversationNotFound."""
    document = find_one(own_filter(user_id, conversation_id), PUBLIC, hint=ID_INDEX)
    if document is None:
        raise ConversationNotFound
    return complete(document)


def with_history(user_id: str, conversation_id: str) -> Document:
    """Read one with its log, which no other read loads."""
    document = find_one(own_filter(user_id, conversation_id), WITH_HISTORY, hint=ID_INDEX)
    if document is None:
        raise ConversationNotFound
    return complete(document)


def latest_with(user_id: str, character_id: str) -> Document | None:
    """Return the latest active conversation that a majority of the replica set has.

    If only the primary has one, waits for the majority. Uses the index user_characters. Raises
    pymongo.errors.PyMongoError with `timeout` set, or ConversationStateConflict if the
    conversations change in each of ATTEMPTS waits.
    """
    wanted = {"user_id": user_id, "character_id": character_id, "status": ACTIVE}
    for _attempt in range(ATTEMPTS):
        if found := find_one(wanted, PUBLIC, sort=LATEST, hint=BY_CHARACTER, readConcern=MAJORITY):
            return complete(found)
        if find_one(wanted, {"_id": 1}, hint=BY_CHARACTER) is None:
            return None
        await_majority(user_id)
    raise ConversationStateConflict


def count_up_to(user_id: str, limit: int) -> int:
    """Count a user's conversations that are not in the trash, up to a limit."""
    kept = {"user_id": user_id, "status": {"$in": NOT_TRASHED}}
    return conversations().count_documents(kept, limit=limit)


def states_of(user_id: str, ids: Iterable[ObjectId]) -> dict[ObjectId, str]:
    """Return the status of those ids that are a user's; also that of tombstones.

    Waits until a majority of the replica set has these conversations. Raises DatabaseUnavailable
    if the primary changes meanwhile, or pymongo.errors.PyMongoError with `timeout` set.
    """
    mine = {"_id": {"$in": [*ids]}, "user_id": user_id}
    rows = conversations().find(mine, ["status"], hint=ID_INDEX)
    states = {row["_id"]: row["status"] for row in rows}
    if states:
        await_majority(user_id)
        if committed().count_documents(mine, hint=ID_INDEX) < len(states):
            raise DatabaseUnavailable
    return states


def owners_of(ids: Iterable[ObjectId]) -> dict[ObjectId, str]:
    """Return whose those ids are that exist, tombstones included. Never for a person's request."""
    rows = committed().find({"_id": {"$in": [*ids]}}, ["user_id"], hint=ID_INDEX)
    return {row["_id"]: row["user_id"] for row in rows}


def ownership(ids: Iterable[str]) -> dict[str, Document]:
    """Return owner and status of those that exist, by id."""
    wanted = [ObjectId(id_) for id_ in ids if is_id(id_)]
    rows = conversations().find(
        {"_id": {"$in": wanted}, **NOT_PURGED}, ["user_id", "status"], hint=ID_INDEX
    )
    return {str(row["_id"]): row for row in rows}
