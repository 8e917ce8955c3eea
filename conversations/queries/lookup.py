"""Look up conversations by id, and the owners and states of many."""

from collections.abc import Iterable, Mapping
from typing import Any

from bson import ObjectId

from conversation_service.errors import DatabaseUnavailable
from conversation_service.mongodb.connection import Document
from conversations.collection import (
    ATTEMPTS,
    CHARACTERS_INDEX,
    ID_INDEX,
    MAJORITY,
    NOT_PURGED,
    await_majority,
    committed,
    conversations,
    find_one,
    own_filter,
)
from conversations.documents import PUBLIC, WITH_HISTORY, complete
from conversations.exceptions import ConversationNotFound, ConversationStateConflict
from conversations.states import ACTIVE, NOT_TRASHED


def get(user_id: str, conversation_id: str, projection: Mapping[str, Any] = PUBLIC) -> Document:
    """Return the user's conversation, or raise ConversationNotFound."""
    document = find_one(own_filter(user_id, conversation_id), projection, hint=ID_INDEX)
    if document is None:
        raise ConversationNotFound
    return complete(document)


def with_history(user_id: str, conversation_id: str) -> Document:
    return get(user_id, conversation_id, WITH_HISTORY)


def latest_with(user_id: str, character_id: str) -> Document | None:
    """Return the latest active conversation with a character that a majority has.

    If only the primary has one, waits for the majority. Uses the index user_characters. Raises
    pymongo.errors.PyMongoError with `timeout` set, or ConversationStateConflict if the
    conversations change in each of ATTEMPTS waits.
    """
    wanted = {"user_id": user_id, "character_id": character_id, "status": ACTIVE}
    latest = {"metadata.last_activity": -1, "_id": -1}
    for _attempt in range(ATTEMPTS):
        found = find_one(wanted, PUBLIC, sort=latest, hint=CHARACTERS_INDEX, readConcern=MAJORITY)
        if found:
            return complete(found)
        if find_one(wanted, {"_id": 1}, hint=CHARACTERS_INDEX) is None:
            return None
        await_majority(user_id)
    raise ConversationStateConflict


def count_up_to(user_id: str, limit: int) -> int:
    """Count a user's conversations that are not in the trash, up to a limit."""
    kept = {"user_id": user_id, "status": {"$in": NOT_TRASHED}}
    return conversations().count_documents(kept, limit=limit)


def states_of(user_id: str, ids: Iterable[ObjectId]) -> dict[ObjectId, str]:
    """Return the status by id, if the user owns it; includes tombstones.

    Waits until a majority has these conversations. Raises DatabaseUnavailable
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
    """Return the owner by id, if it exists; includes tombstones. Never use it to serve a user."""
    rows = committed().find({"_id": {"$in": [*ids]}}, ["user_id"], hint=ID_INDEX)
    return {row["_id"]: row["user_id"] for row in rows}


def ownership(ids: Iterable[str]) -> dict[str, Document]:
    """Return owner, status and LLM settings by id, if the conversation exists."""
    wanted = [ObjectId(id_) for id_ in ids if ObjectId.is_valid(id_)]
    fields = ["user_id", "status", "settings", "settings_given"]
    rows = conversations().find({"_id": {"$in": wanted}, **NOT_PURGED}, fields, hint=ID_INDEX)
    return {str(row["_id"]): row for row in rows}
