"""The shape of a conversation: as stored, and as clients read it."""

import os
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any

from bson import ObjectId
from django.conf import settings

from conversation_service.http.idempotency import IdempotencyKey
from conversation_service.mongodb.connection import Document
from conversation_service.upstreams.characters import Character
from conversations import limits
from conversations.states import ACTIVE, ARCHIVED
from conversations.words import fold, sort_key, split_words, tag_key

# What a client may see, as a projection. History, keys and what only indexes need are read by name.
PUBLIC = dict.fromkeys(
    (
        "user_id",
        "character_id",
        "character_status",
        "title",
        "title_source",
        "status",
        "pinned_at",
        "settings",
        "tags",
        "custom",
        "metadata",
        "archived_at",
        "deleted_at",
        "purge_at",
        "forked_from",
        "version",
    ),
    1,
)
_public = itemgetter(*PUBLIC)

# The value that a reader sees if a stored document lacks a field. No defaults: `_id`, `user_id` and
# `status`, which every document has, and _METADATA_TIMES, see complete(). The defaults do not
# depend on a deployment's ceilings.
DEFAULTS: dict[str, Any] = {
    "character_id": "unknown",
    "character_status": "unverified",
    "title": "Untitled",
    "title_source": "user",  # so that no character's name replaces it
    "pinned_at": None,
    "settings": {name: bounds.default for name, bounds in limits.LLM_SETTINGS.items()}
    | {"stop_sequences": []},
    "tags": [],
    "custom": {},
    "metadata": {
        "message_count": 0,
        "total_tokens": 0,
        "total_input_tokens": 0,
        "total_output_tokens": 0,
        "first_message_at": None,
        "last_message_at": None,
    },
    "archived_at": None,
    "deleted_at": None,
    "purge_at": None,
    "forked_from": None,
    "version": 1,
    "activity_sequence": 0,
    "revisions": [],
    "keys": [],
}
_METADATA_TIMES = ("last_activity", "created_at", "updated_at")

RESOURCE_FIELDS = ["id", "object", *PUBLIC, "is_archived", "retention"]

# Each has its compound index, see schema.py, in which `_id` follows it.
SORT_KEYS = {
    "last_activity": "metadata.last_activity",
    "created_at": "metadata.created_at",
    "updated_at": "metadata.updated_at",
    "title": "title_key",
}
# What follows `_id` there: the index alone tells whether a list has a row.
FILTER_KEYS = ["character_id", "pinned_at", "tag_line"]


def default_settings() -> dict[str, Any]:
    """Return the LLM settings of a new conversation, within this deployment's ceilings."""
    numbers = {name: bounds.default_for_new for name, bounds in limits.LLM_SETTINGS.items()}
    return numbers | {"stop_sequences": []}


def new(  # noqa: PLR0913
    *,
    user_id: str,
    character_id: str,
    now: datetime,
    character: Character | None = None,
    title: str | None = None,
    settings: dict[str, Any] | None = None,
    tags: Sequence[str] = (),
    custom: dict[str, str] | None = None,
) -> Document:
    """Return the document of a conversation that begins now.

    Without a title it gets the character's name, or the first 200 characters of the character's
    id if no character is given. All LLM settings are stored, so that a later change of a default
    never changes an old conversation.
    """
    automatic = character.name if character else character_id[: limits.TITLE_LENGTH]
    return {
        "_id": ObjectId(),
        "user_id": user_id,
        "character_id": character_id,
        "character_name": character.name if character else None,
        "character_status": "verified" if character else "unverified",
        "title": title or automatic,
        "title_source": "user" if title else "auto",
        "status": ACTIVE,
        "previous_status": None,
        "pinned_at": None,
        "settings": default_settings() | (settings or {}),
        "tags": list(tags),
        **derived(title or automatic, tags),
        "custom": custom or {},
        "metadata": DEFAULTS["metadata"] | dict.fromkeys(_METADATA_TIMES, now),
        "archived_at": None,
        "deleted_at": None,
        "purge_at": None,
        "forked_from": None,
        "version": 1,
        "changed_at": now,
        "activity_sequence": 0,
        "activity_batch": None,
        "revisions": [],
        "keys": [],
        "only": None,
        "hold": None,
    }


def random_id() -> ObjectId:
    """Return an id of now whose other 8 bytes are random.

    ObjectId() counts up from the last id of the process, so it would try every id of a block that
    is taken.
    """
    return ObjectId(int(time.time()).to_bytes(4, "big") + os.urandom(8))


def derived(title: str, tags: Sequence[str]) -> dict[str, Any]:
    """Return what titles and tags are sorted, compared and searched by."""
    keys = [tag_key(tag) for tag in tags]
    return {
        "title_key": sort_key(title),
        "tag_keys": keys,
        "tag_line": tag_line(keys),
        "search": [searchable(title), *map(searchable, tags)],
    }


def remembered(key: IdempotencyKey, document: Document) -> dict[str, Any]:
    """Return the record of a key that led to a new document; see changes.py for the others."""
    return {
        "key": key.scope,
        "fingerprint": key.fingerprint,
        "at": document["changed_at"],
        "answer": {name: document[name] for name in ("_id", *PUBLIC)},
    }


def complete(document: Document) -> Document:
    """Return a document that was read with the PUBLIC projection, with defaults for lacking fields.

    A document without `created_at` was created when its id was made. Fields of a newer release
    stay as they are.
    """
    try:  # on every row of every list: this costs 0.5 µs
        _public(document)
        _each_setting(document["settings"])
        _each_of_metadata(document["metadata"])
    except (KeyError, TypeError):  # TypeError: null instead of an object
        return _completed(document)
    return document


_each_setting = itemgetter(*DEFAULTS["settings"])
_each_of_metadata = itemgetter(*DEFAULTS["metadata"], *_METADATA_TIMES)


def _completed(document: Document) -> Document:
    metadata = document.get("metadata") or {}
    created_at = metadata.get("created_at") or document["_id"].generation_time.replace(tzinfo=None)
    return {
        **DEFAULTS,
        **document,
        "settings": DEFAULTS["settings"] | (document.get("settings") or {}),
        "metadata": DEFAULTS["metadata"] | dict.fromkeys(_METADATA_TIMES, created_at) | metadata,
    }


def stored(path: str) -> Any:
    """Return an expression for the value that a reader sees at a path, see complete()."""
    if path == "status":
        return "$status"  # every document has it
    name, _, inner = path.partition(".")
    if inner in _METADATA_TIMES:
        return {"$ifNull": [f"${path}", "$metadata.created_at", {"$toDate": "$_id"}]}
    default = DEFAULTS[name][inner] if inner else DEFAULTS[name]
    return {"$ifNull": [f"${path}", {"$literal": default}]}


# With the history, which no list reads.
WITH_HISTORY = PUBLIC | {"revisions": stored("revisions")}


def resource(document: Document) -> dict[str, Any]:
    """Return what the API shows of a document that was read with the PUBLIC projection."""
    document = complete(document)
    return {
        "id": document["_id"],
        "object": "conversation",
        **dict(zip(PUBLIC, _public(document), strict=True)),
        "is_archived": document["status"] == ARCHIVED,
        "retention": retention(document),
    }


def retention(document: Document) -> dict[str, Any] | None:
    """Return what will become of a conversation by itself, and when at the earliest.

    It depends only on what its user may see: a legal hold must not show. A time after the year
    9999 becomes the last moment of that year.
    """
    if purge_at := document["purge_at"]:
        return {"policy": "purge", "acts_at": purge_at}
    days = settings.RETENTION_ARCHIVE_IDLE_DAYS
    if days and document["status"] == ACTIVE and document["pinned_at"] is None:
        try:
            idle_at = document["metadata"]["last_activity"] + timedelta(days=days)
        except OverflowError:
            idle_at = _LAST_MOMENT
        return {"policy": "archive_idle", "acts_at": idle_at}
    return None


_LAST_MOMENT = datetime.max.replace(microsecond=999_000, tzinfo=UTC)


def tag_line(keys: Iterable[str]) -> str:
    """Return the keys of tags in one string: of an array, an index covers and judges nothing.

    A line each, in order; no key has a line break.
    """
    return "\n".join(sorted(keys))


def searchable(text: str) -> dict[str, list[str]]:
    """Return the words of a text, as an element of `search` holds them.

    There is one for the title, then one for each tag: a pipeline can take a tag away together
    with its words.
    """
    return {"words": split_words(fold(text))}
