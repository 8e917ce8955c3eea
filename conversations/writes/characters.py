"""Verifies characters after the creation, if Characters was unavailable then."""

from collections.abc import Iterator
from typing import Any

from bson import ObjectId

from conversation_service.http.actor import Actor
from conversation_service.upstreams import characters
from conversation_service.upstreams.characters import CharacterServiceUnavailable
from conversations.collection import NOT_PURGED, conversations
from conversations.documents import stored
from conversations.states import ANY_STATE
from conversations.writes import writer
from conversations.writes.edits import title_values
from conversations.writes.updates import STORED_TAG_WORDS, Update, UpdateTemplate

BATCH = 200

_IS_AUTOMATIC = {"$eq": ["$title_source", "auto"]}
# An automatic title becomes the character's name.
_VERIFIED = UpdateTemplate(
    {
        "character_status": "verified",
        "title": {"$cond": [_IS_AUTOMATIC, "$$values.title", stored("title")]},
    },
    {
        "character_name": "$$values.title",
        "title_key": {"$cond": [_IS_AUTOMATIC, "$$values.title_key", "$title_key"]},
        "search": {
            "$cond": [
                _IS_AUTOMATIC,
                {"$concatArrays": ["$$values.title_words", STORED_TAG_WORDS]},
                "$search",
            ]
        },
    },
    states=ANY_STATE,
)
_MISSING = Update((UpdateTemplate({"character_status": "missing"}, states=ANY_STATE),))


def get_character_or_none(character_id: str) -> dict[str, str] | None:
    """Return the character for `include=character`, or None if Characters is unavailable."""
    try:
        character = characters.get(character_id)
    except CharacterServiceUnavailable:
        return None
    return vars(character) if character else None


def unverified_characters() -> Iterator[str]:
    """Return unverified character ids, by the index unverified_characters."""
    unverified = {"$match": {"character_status": "unverified", "character_id": {"$gt": ""}}}
    rows = conversations().aggregate([unverified, {"$group": {"_id": "$character_id"}}])
    return (row["_id"] for row in rows)


def count_unverified(character_id: str) -> int:
    return conversations().count_documents(_unverified(character_id))


def mark_verified(character_id: str, name: str | None, *, actor: Actor) -> int:
    """Mark a character's unverified conversations as verified, or as missing without a name.

    Returns how many were written; conversations that the validator rejects stay unverified. Works
    in batches: a statement's `$$NOW` is its start, and the change feed waits a minute for late
    writes.
    """
    update = _MISSING if name is None else Update((_VERIFIED,), title_values(name))
    unverified = _unverified(character_id)
    written = 0
    rejected: list[ObjectId] = []
    while True:
        remaining = {**unverified, "_id": {"$nin": rejected}}
        rows = conversations().find(remaining, ["user_id"]).limit(BATCH).to_list()
        if not rows:
            return written
        targets = [(row["user_id"], row["_id"]) for row in rows]
        batch_written = writer.write(targets, update, actor=actor, only=unverified)
        written += batch_written
        if batch_written < len(rows):
            ids = [row["_id"] for row in rows]
            rejected += conversations().distinct("_id", {**unverified, "_id": {"$in": ids}})


def _unverified(character_id: str) -> dict[str, Any]:
    return {"character_id": character_id, "character_status": "unverified", **NOT_PURGED}
