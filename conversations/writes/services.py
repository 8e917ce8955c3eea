"""Operations with two parties: the conversations, and the characters of another service."""

import logging
from typing import Any

from bson import ObjectId
from django.conf import settings

from conversation_service import clock
from conversation_service.http.idempotency import IdempotencyKey
from conversation_service.mongodb.connection import Document
from conversation_service.upstreams import characters
from conversation_service.upstreams.characters import Character, CharacterServiceUnavailable
from conversations import documents
from conversations.exceptions import (
    CharacterNotExists,
    ConversationStateConflict,
    QuotaExceeded,
)
from conversations.queries import lookup
from conversations.states import DELETED
from conversations.writes import store
from conversations.writes.store import Answer

logger = logging.getLogger(__name__)


def begin(
    user_id: str, values: dict[str, Any], key: IdempotencyKey | None, *, or_get: bool
) -> Answer:
    """Begin a conversation; with `or_get`, answer the latest active one with that character.

    Raises QuotaExceeded and what _look_up raises, but neither where nothing has to be created.
    """
    if key and (answer := store.remembered(user_id, key, clock.now())):
        return answer
    if or_get and (found := lookup.latest_with(user_id, values["character_id"])):
        return Answer(found, existed=True)
    document = _new(user_id, values)
    if or_get:
        document["only"] = values["character_id"]  # a unique index accepts one for each character
    return store.insert(document, key)


def duplicate(
    user_id: str, conversation_id: str, title: str | None, key: IdempotencyKey | None
) -> Answer:
    """Begin another conversation with the same character, title, settings, tags and custom.

    What was said in the first one stays there. Raises what begin() raises, and
    ConversationStateConflict for one in the trash.
    """
    if key and (answer := store.remembered(user_id, key, clock.now())):
        return answer
    original = lookup.get(user_id, conversation_id)
    if original["status"] == DELETED:
        raise ConversationStateConflict(status=DELETED)
    copied = ("character_id", *documents.EDITABLE_FIELDS)
    values = {name: original[name] for name in copied} | ({"title": title} if title else {})
    copy = _new(user_id, values) | {"forked_from": ObjectId(conversation_id)}
    if not title:
        copy["title_source"] = original["title_source"]
    return store.insert(copy, key)


def shown(character_id: str) -> dict[str, str] | None:
    """Return the character for `include=character`, which is not worth a failure."""
    try:
        character = characters.get(character_id)
    except CharacterServiceUnavailable:
        return None
    return vars(character) if character else None


def _new(user_id: str, values: dict[str, Any]) -> Document:
    _check_quota(user_id)
    character = _look_up(values["character_id"])
    return documents.new(user_id=user_id, now=clock.now(), character=character, **values)


def _check_quota(user_id: str) -> None:
    """The limit is checked before the insert: two at once may exceed it by one, harmlessly."""
    limit = settings.MAX_CONVERSATIONS_PER_USER
    if limit and lookup.count_up_to(user_id, limit) >= limit:
        raise QuotaExceeded(limit=limit)


def _look_up(character_id: str) -> Character | None:
    """Return the character, or None for one that is not checked, or could not be just now.

    Raises CharacterNotExists and, where CHARACTER_CHECK is strict, CharacterServiceUnavailable.
    """
    if settings.CHARACTER_CHECK == "off":
        return None
    try:
        character = characters.get(character_id)
    except CharacterServiceUnavailable:
        if settings.CHARACTER_CHECK == "strict":
            raise
        logger.warning("A conversation begins with a character that could not be looked up")
        return None
    if character is None:
        raise CharacterNotExists(character_id=character_id)
    return character
