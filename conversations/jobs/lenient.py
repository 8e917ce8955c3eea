"""Reads lenient lines: conversations from other programs, which know no counters or history."""

import unicodedata
from collections.abc import Mapping
from datetime import datetime
from hashlib import blake2b
from typing import Any

from bson import ObjectId

from conversation_service.http.fields import NOT_IN_A_LINE
from conversation_service.mongodb.connection import Document
from conversation_service.visibility import is_visible
from conversations import documents, limits
from conversations.serializers.transfer import SECONDS_UNTIL_MILLISECONDS, lenient
from conversations.states import ARCHIVED
from conversations.words import tag_key
from conversations.writes.create import without_nulls

_TIMES = ("created_at", "last_activity")
_BEYOND = 1_000 * SECONDS_UNTIL_MILLISECONDS
# The maximum that an import reads: tags in a line, and characters in a tag.
_TAGS_READ = 2 * limits.TAGS
_TAG_LENGTH_READ = 2 * limits.TAG_LENGTH
# Fields that only exported lines have.
_ONLY_EXPORTED = {"id", "object", "metadata", "version", "history"}


def is_lenient(line: Any) -> bool:
    return isinstance(line, dict) and _ONLY_EXPORTED.isdisjoint(line)


def read(
    user_id: str, line: dict[str, Any], character_id: str | None, now: datetime
) -> tuple[Document, list[str]]:
    """Return the document for a lenient line, and the names of the values that were adjusted.

    `character_id` is the default for a line without one. A value beyond a limit is adjusted; a
    value without a meaning, such as a title that is a number, raises ValidationError: a repeated
    import cannot correct it.
    """
    line = {name: value for name, value in line.items() if value is not None}
    if character_id is not None:
        line.setdefault("character_id", character_id)
    adjusted = _adjust(line)
    values = {k: v for k, v in lenient.run_validation(line).items() if v is not None}
    for name in _TIMES:
        if name in values and values[name] > now + limits.MAX_AHEAD:
            values[name] = now
            adjusted.append(name)
    created_at = values.pop("created_at", min(now, values.get("last_activity", now)))
    last_activity = values.pop("last_activity", created_at)
    if last_activity < created_at:
        last_activity = created_at
        adjusted.append("last_activity")
    external_id = values.pop("external_id", None)
    status, pinned = values.pop("status", None), values.pop("pinned", False)
    settings = without_nulls(values.pop("settings", {}))
    document = documents.new(user_id=user_id, now=now, settings=settings, **values)
    document["metadata"] |= {
        "created_at": created_at,
        "updated_at": created_at,
        "last_activity": last_activity,
    }
    if status == ARCHIVED:
        document |= {"status": ARCHIVED, "archived_at": last_activity}
    if pinned:
        document["pinned_at"] = last_activity
    if external_id is not None:
        document["_id"] = external_object_id(user_id, external_id)
    return document, list(dict.fromkeys(adjusted))


def external_object_id(user_id: str, external_id: str) -> ObjectId:
    """Return the id of the user's conversation with an external id, always the same.

    Its time is before 2004, so no new conversation gets it.
    """
    key = blake2b(user_id.encode()).digest()
    digest = blake2b(external_id.encode(), key=key, digest_size=12).digest()
    return ObjectId(bytes([digest[0] & 0x3F]) + digest[1:])


def _adjust(line: dict[str, Any]) -> list[str]:
    """Bring a line's values within the limits, in place. Return the names of changed values.

    Values of another type stay, for the validation.
    """
    before = dict(line)
    title, tags, settings = line.get("title"), line.get("tags"), line.get("settings")
    if isinstance(title, str):
        line["title"] = one_line(title, limits.TITLE_LENGTH) or None
    if isinstance(tags, list) and all(isinstance(tag, str) for tag in tags):
        line["tags"] = _tags(tags)
    for name in _TIMES:
        value = line.get(name)
        if isinstance(value, int | float) and SECONDS_UNTIL_MILLISECONDS <= value < _BEYOND:
            line[name] = value / 1_000
    adjusted = [name for name, value in line.items() if value != before[name]]
    if isinstance(settings, dict):
        line["settings"], changed = _settings(settings)
        adjusted += [f"settings.{name}" for name in changed]
    return adjusted


def one_line(text: str, length: int) -> str:
    """Return a text on one line, without control characters, in NFC, of at most `length`.

    Returns "" for a text without a visible character.
    """
    text = " ".join(text[: 64 * length].split())
    text = "".join(" " if unicodedata.category(c) in NOT_IN_A_LINE else c for c in text)
    # NFC takes a time that grows with the square of a row of marks: cut before and after.
    text = unicodedata.normalize("NFC", " ".join(text.split())[: 2 * length])
    text = text[:length].rstrip()
    return text if is_visible(text) else ""


def _tags(tags: list[str]) -> list[str]:
    """Replace commas and what is not accepted on a line by spaces; keep the first tags."""
    kept: dict[str, str] = {}
    for tag in tags[:_TAGS_READ]:
        plain = one_line(tag[:_TAG_LENGTH_READ].replace(",", " "), limits.TAG_LENGTH)
        if plain:
            kept.setdefault(tag_key(plain), plain)
    return [*kept.values()][: limits.TAGS]


def _settings(settings: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the settings within their bounds, and the names of adjusted settings.

    A number outside its bounds gets the default: -1 often means "unlimited", and the nearest bound
    is 1. Stop sequences that are too long are left out.
    """
    longest = limits.STOP_SEQUENCE_LENGTH
    read = dict(settings)
    for name in settings.keys() & documents.SETTINGS.keys():
        value, declared = settings[name], documents.SETTINGS[name]
        if declared.max_items is not None and isinstance(value, list):
            read[name] = [v for v in value if not isinstance(v, str) or len(v) <= longest]
            del read[name][declared.max_items :]
        elif isinstance(value, int | float) and not isinstance(value, bool):
            low, high = declared.minimum, declared.maximum
            if (low is not None and value < low) or (high is not None and value > high):
                read[name] = None
    return read, [name for name, value in settings.items() if read[name] != value]
