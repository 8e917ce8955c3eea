"""Creates conversations: new ones, copies, and the documents of an import."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from bson import ObjectId
from django.conf import settings
from pymongo.errors import BulkWriteError, DuplicateKeyError

from conversation_service import clock
from conversation_service.mongodb import failures
from conversation_service.mongodb.connection import Document, ensure_responsive
from conversation_service.mongodb.monitor import unavailable
from conversation_service.upstreams import characters
from conversation_service.upstreams.characters import CharacterServiceUnavailable
from conversations import documents, metrics
from conversations.collection import ATTEMPTS, conversations
from conversations.documents import PUBLIC, WITH_HISTORY
from conversations.exceptions import (
    CharacterNotExists,
    ConversationStateConflict,
    QuotaExceeded,
)
from conversations.queries import lookup
from conversations.states import DELETED, EDITABLE
from conversations.writes import idempotency
from conversations.writes.idempotency import IdempotencyKey
from conversations.writes.writer import Versions, WriteResult, version_conflict

DUPLICATE_KEY = 11_000  # MongoDB's error code

logger = logging.getLogger(__name__)


def create_conversation(
    user_id: str, values: dict[str, Any], key: IdempotencyKey | None, *, get_or_create: bool
) -> WriteResult:
    """Create a conversation, or with `get_or_create` return the character's latest active one.

    An existing conversation needs neither quota nor character. Raises the errors from
    `_new_document` and `_insert`.
    """
    if get_or_create and (active := lookup.latest_with(user_id, values["character_id"])):
        return WriteResult(active, existed=True)
    document = _new_document(user_id, without_nulls(values))
    if get_or_create:
        document["only"] = values["character_id"]  # unique: one active conversation per character
    return _insert(document, key)


def without_nulls(values: Mapping[str, Any]) -> dict[str, Any]:
    """Remove nulls at every depth: a null means the same as an absent value."""
    return {
        name: without_nulls(value) if isinstance(value, dict) else value
        for name, value in values.items()
        if value is not None
    }


def duplicate_conversation(
    user_id: str,
    conversation_id: str,
    title: str | None,
    key: IdempotencyKey | None,
    *,
    versions: Versions,
) -> WriteResult:
    """Create a conversation with the character and the editable fields of another one.

    Messages are not copied. Raises the errors from create_conversation, ConversationNotFound,
    ConversationVersionConflict, and ConversationStateConflict for a conversation in the trash.
    """
    original = lookup.get(user_id, conversation_id, PUBLIC if versions is None else WITH_HISTORY)
    if versions is not None and original["version"] not in versions:
        raise version_conflict(original, versions)
    if original["status"] == DELETED:
        raise ConversationStateConflict(DELETED, EDITABLE)
    names = ("character_id", "settings_given", *documents.EDITABLE_FIELDS)
    copied = {name: original[name] for name in names}
    values = copied | ({"title": title} if title else {})
    document = _new_document(user_id, values) | {"forked_from": ObjectId(conversation_id)}
    if not title:
        document["title_source"] = original["title_source"]
    return _insert(document, key)


def _new_document(user_id: str, values: dict[str, Any]) -> Document:
    """Check quota and character; return the document to insert.

    Concurrent requests can exceed the quota. Raises QuotaExceeded, CharacterNotExists and, with
    CHARACTER_CHECK=strict, CharacterServiceUnavailable.
    """
    limit = settings.MAX_CONVERSATIONS_PER_USER
    if limit and lookup.count_up_to(user_id, limit) >= limit:
        raise QuotaExceeded(limit=limit)
    character = None
    if settings.CHARACTER_CHECK != "off":
        try:
            character = characters.get(values["character_id"])
        except CharacterServiceUnavailable:
            if settings.CHARACTER_CHECK == "strict":
                raise
            logger.warning("A conversation is created without verifying its character")
        else:
            if character is None:
                raise CharacterNotExists(character_id=values["character_id"])
    return documents.new(user_id=user_id, now=clock.now(), character=character, **values)


def _insert(document: Document, key: IdempotencyKey | None) -> WriteResult:
    """Insert a conversation, or return the existing one with the same idempotency key or `only`.

    The unique indexes idempotency_keys and only_of_character accept a single insert under
    concurrency. A random id replaces a taken `_id`. Raises IdempotencyKeyReused,
    IdempotencyInProgress or, after ATTEMPTS conflicts, ConversationStateConflict.
    """
    for _attempt in range(ATTEMPTS):
        if key:
            record = idempotency.record(
                key.fingerprint, document["changed_at"], document.__getitem__
            )
            document["keys"] = [{"key": key.scope, **record}]
        collection = conversations()
        ensure_responsive()
        try:
            collection.insert_one(document)
        except DuplicateKeyError as error:
            conflict = (error.details or {}).get("keyPattern", {})
            if "_id" in conflict:
                document["_id"] = documents.random_id()
            elif key and "keys.key" in conflict:
                if replayed := idempotency.find_response(document["user_id"], key):
                    return WriteResult(replayed, replayed=True)
            elif "only" in conflict:
                if active := lookup.latest_with(document["user_id"], document["character_id"]):
                    return WriteResult(active, existed=True)
            else:
                raise
        else:
            metrics.CREATED.inc()
            return WriteResult(document, written=True)
    raise ConversationStateConflict


def insert_all(rows: Sequence[Document]) -> dict[int, int]:
    """Insert documents of an import; return MongoDB's error code by index for each rejected one.

    `imported` separates the history from elsewhere, which the event log leaves out, from later
    versions.
    """
    now = clock.now()
    for row in rows:
        row["imported"] = {"version": row["version"], "at": now}
    rejected: dict[int, int] = {}
    try:
        conversations().insert_many(rows, ordered=False)
    except BulkWriteError as error:
        # The error contains the documents, which must not reach a log.
        if failures.is_unavailability(error):
            raise unavailable(error) from None
        rejected = {each["index"]: each["code"] for each in error.details["writeErrors"]}
    metrics.CREATED.inc(len(rows) - len(rejected))
    return rejected
