"""A conversation as a dict: the stored document, with defaults, and the API resource."""

import os
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any

from bson import ObjectId
from django.conf import settings

from conversation_service.mongodb.connection import Document
from conversation_service.upstreams.characters import Character
from conversations import limits
from conversations.declaration import CREATION_TIME, declarations, defaults
from conversations.models import Conversation, LLMSettings, Metadata
from conversations.states import ACTIVE, ARCHIVED
from conversations.words import derived

FIELDS = declarations(Conversation)
SETTINGS = declarations(LLMSettings)
METADATA = declarations(Metadata)

# The projection for clients. It excludes the history and idempotency keys.
PUBLIC = dict.fromkeys((name for name, field in FIELDS.items() if field.is_public), 1)
_public_values = itemgetter(*PUBLIC)
RESOURCE_FIELDS = ["id", "object", *PUBLIC, "is_archived", "retention"]
EDITABLE_FIELDS = [name for name, field in FIELDS.items() if field.is_editable]
# An edit replaces their values. writes/edits.py handles the other fields individually.
PLAIN_FIELDS = [n for n in EDITABLE_FIELDS if n not in {"title", "settings", "tags", "custom"}]
# The names that a revert accepts. "pinned" restores `pinned_at`.
REVERTIBLE_FIELDS = [*EDITABLE_FIELDS, "pinned"]

# Names by type, for the console and for commands.
METADATA_TIMES = [name for name, field in METADATA.items() if field.is_time]
COUNTERS = [name for name in METADATA if name not in METADATA_TIMES]
_ACTIVITY = [*COUNTERS, "first_message_at", "last_message_at"]
PUBLIC_TIMES = [name for name in PUBLIC if FIELDS[name].is_time]

# The value that a reader sees if a stored document lacks a field, without `_CREATION_TIMES`.
# Defaults do not depend on a deployment's ceilings.
DEFAULTS = defaults(Conversation)
_CREATION_TIMES = [name for name, field in METADATA.items() if field.default is CREATION_TIME]
# Settings that releases after 0.1.0 added.
_LATER_SETTINGS = [name for name, field in SETTINGS.items() if field.since]
_NULLABLE = {name: None for name, field in FIELDS.items() if field.field.null}
_LISTS_AND_OBJECTS = [name for name, value in DEFAULTS.items() if isinstance(value, list | dict)]
_LIST_SETTINGS = [n for n, value in DEFAULTS["settings"].items() if isinstance(value, list)]
WITH_CEILING = [name for name, field in SETTINGS.items() if field.ceiling_variable]

# A tombstone's mark names the actor that purged the conversation. It is an id, because the previous
# release's validator accepts no other field. A user's bulk run has a random mark.
ACTORS_BY_MARK = {
    ObjectId("000000000000000000000001"): "user",
    ObjectId("000000000000000000000002"): "service:retention",
}

# Each has its compound index in schema.py, in which `_id` follows it.
SORT_KEYS = {
    "last_activity": "metadata.last_activity",
    "created_at": "metadata.created_at",
    "updated_at": "metadata.updated_at",
    "title": "title_key",
}
# They follow `_id` in those indexes, so that the indexes cover these filters.
FILTER_KEYS = ["character_id", "pinned_at", "tag_line"]


def ceiling(name: str, model: str | None) -> int | None:
    """Return the maximum that users can set for a setting and a model; None without a ceiling."""
    field = SETTINGS[name]
    if field.ceiling_variable and not settings.MODEL_CEILINGS:
        return getattr(settings, field.ceiling_variable)  # type: ignore[no-any-return]
    return next((c.maximum for c in field.ceilings if c.applies_to(model)), None)


def with_defaults(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the LLM settings for a new conversation: `given`, and defaults within the ceilings."""
    found = {**DEFAULTS["settings"], **given}
    for name in _LIST_SETTINGS:
        if name not in given:
            found[name] = [*found[name]]
    for name in WITH_CEILING:
        if name not in given and (most := ceiling(name, found["model"])):
            found[name] = min(found[name], most)
    return found


def clamped_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that exceed their model's present ceilings, each as its ceiling."""
    ceilings = {name: ceiling(name, settings["model"]) for name in WITH_CEILING}
    return {name: most for name, most in ceilings.items() if most and settings[name] > most}


def names_given(settings: Mapping[str, Any]) -> list[str]:
    """Return the LLM settings' names in the order of declaration."""
    return [name for name in SETTINGS if name in settings]


def stored_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return LLM settings as a document has them: a later setting is absent at its default.

    Pods that run release 0.1.0 cannot revert settings if the document has a setting that they do
    not know.
    """
    found = {**settings}
    for name in _LATER_SETTINGS:
        if name in found and found[name] == DEFAULTS["settings"][name]:
            del found[name]
    return found


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
    **plain: Any,
) -> Document:
    """Return a new conversation's document; `plain` are values for further fields.

    Without a title it gets the character's name, or, if no character is given, the first
    200 characters of the character's id. All LLM settings are stored: a later default never changes
    an old conversation.
    """
    given = settings or {}
    automatic = character.name if character else character_id[: limits.TITLE_LENGTH]
    return {
        "_id": ObjectId(),
        **_NULLABLE,
        **DEFAULTS,
        **{name: DEFAULTS[name].copy() for name in _LISTS_AND_OBJECTS},
        "user_id": user_id,
        "character_id": character_id,
        "character_name": character.name if character else None,
        "character_status": "verified" if character else "unverified",
        "title": title or automatic,
        "title_source": "user" if title else "auto",
        "status": ACTIVE,
        "settings": stored_settings(with_defaults(given)),
        "settings_given": names_given(given),
        "tags": list(tags),
        **derived(title or automatic, tags),
        "custom": custom or {},
        "metadata": DEFAULTS["metadata"] | dict.fromkeys(_CREATION_TIMES, now),
        "changed_at": now,
        **plain,
    }


def random_id() -> ObjectId:
    """Return an id with the present time and 8 random bytes.

    ObjectId() increments a counter: after a collision it could collide again.
    """
    return ObjectId(int(time.time()).to_bytes(4, "big") + os.urandom(8))


def complete(document: Document) -> Document:
    """Add defaults for missing fields to a document that was read with the PUBLIC projection.

    A missing `created_at` is the time in the id. Fields from a newer release stay.
    """
    metadata = document.get("metadata") or {}
    created_at = metadata.get("created_at")
    created_at = created_at or document["_id"].generation_time.replace(tzinfo=None)
    times = dict.fromkeys(_CREATION_TIMES, created_at)
    return {
        **DEFAULTS,
        **document,
        "settings": DEFAULTS["settings"] | (document.get("settings") or {}),
        "metadata": DEFAULTS["metadata"] | times | metadata,
    }


def stored(path: str) -> Any:
    """Return an expression for the value at a path that complete() would return."""
    if path == "status":
        return "$status"  # every document has it
    name, _, inner = path.partition(".")
    if inner in _CREATION_TIMES:
        return {"$ifNull": [f"${path}", "$metadata.created_at", {"$toDate": "$_id"}]}
    default = DEFAULTS[name][inner] if inner else DEFAULTS[name]
    return {"$ifNull": [f"${path}", {"$literal": default}]}


# The history as a list, the oldest revision first. The object `revisions_by_version` has all
# revisions up to this release's last update. Pods that run release 0.1.0 append later revisions to
# the array `revisions`, which keeps the newest limits.REVISIONS. This list has the same limit, so
# it never has a gap.
REVISIONS = {
    "$slice": [
        {
            "$concatArrays": [
                {
                    "$map": {
                        "input": {"$objectToArray": stored("revisions_by_version")},
                        "in": "$$this.v",
                    }
                },
                stored("revisions"),
            ]
        },
        -limits.REVISIONS,
    ]
}
# PUBLIC and the history.
WITH_HISTORY = PUBLIC | {"revisions": REVISIONS}


def resource(document: Document) -> dict[str, Any]:
    """Return the API resource for a document that was read with the PUBLIC projection."""
    document = complete(document)
    return {
        "id": document["_id"],
        "object": "conversation",
        **dict(zip(PUBLIC, _public_values(document), strict=True)),
        "is_archived": document["status"] == ARCHIVED,
        "retention": retention(document),
    }


def is_fixed_by_version(resource: Mapping[str, Any]) -> bool:
    """Return False if a resource has content that can change without a new version.

    That is the activity, as soon as there is any, and the time of an automatic archiving.
    """
    metadata, next_action = resource["metadata"], resource["retention"]
    created_at, last_activity = metadata["created_at"], metadata["last_activity"]
    if any(metadata[name] for name in _ACTIVITY) or not created_at or not last_activity:
        return False
    # A `created_at` from the id has whole seconds.
    is_idle = last_activity - created_at < timedelta(seconds=1)
    return is_idle and (next_action is None or next_action["policy"] == "purge")


def purged_by(tombstone: Document) -> str | None:
    """Return a purge's actor as in a revision; None for release 0.1.0, which stored no mark."""
    mark = tombstone.get("mark")
    return ACTORS_BY_MARK.get(mark, "user") if mark else None


def retention(document: Document) -> dict[str, Any] | None:
    """Return the next automatic action on a conversation and its earliest time, or None.

    A legal hold does not change the result, because users must not notice a hold. The latest time
    is the last millisecond in the year 9999.
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
