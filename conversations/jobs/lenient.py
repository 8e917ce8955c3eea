"""Reads lenient lines: conversations from other programs, which know no counters or history.

A value beyond a limit depends on the data: it is adjusted, and the result names it. A value of
another type, or an unknown field, depends on the program that wrote the line: it is an error.
"""

import json
import re
import unicodedata
from collections.abc import Mapping
from datetime import datetime
from hashlib import blake2b
from itertools import islice
from typing import Any

from bson import ObjectId
from django.db.models import CharField
from django.utils.translation import gettext_lazy as _
from rest_framework.exceptions import ValidationError
from rest_framework.fields import Field

from conversation_service.http.exception_handler import MAX_FIELD_ERRORS
from conversation_service.http.fields import NOT_IN_A_LINE
from conversation_service.mongodb.connection import Document
from conversation_service.visibility import is_visible
from conversations import documents, limits
from conversations.jobs.adjusting import changed_paths
from conversations.serializers.fields import Object
from conversations.serializers.transfer import lenient
from conversations.states import ARCHIVED
from conversations.words import tag_key
from conversations.writes.create import without_nulls

_TIMES = ("created_at", "last_activity")
# As seconds, this is the year 5138; as milliseconds, 1973.
SECONDS_UNTIL_MILLISECONDS = 100_000_000_000
_FIELDS: Any = lenient.fields
# The maximum that an import reads: tags, stop sequences and keys of an object in a line, and
# characters in a tag. Each takes up to 50 µs.
_TAGS_READ = 2 * limits.TAGS
_STOP_SEQUENCES_READ = 4 * limits.STOP_SEQUENCES
_KEYS_READ = 8 * limits.CUSTOM_KEYS
_TAG_LENGTH_READ = 2 * limits.TAG_LENGTH
# Fields that only exported lines have.
_ONLY_EXPORTED = {"id", "object", "metadata", "version", "history"}


def is_lenient(line: Any) -> bool:
    return isinstance(line, dict) and _ONLY_EXPORTED.isdisjoint(line)


def read(
    user_id: str,
    line: dict[str, Any],
    character_id: str | None,
    now: datetime,
    *,
    sent: Mapping[str, Any],
) -> tuple[Document, list[str]]:
    """Return the document for a lenient line, and the names of the values that were adjusted.

    `character_id` is the default for a line without one. `sent` is the line before unpaired
    surrogates were replaced. Raises ValidationError.
    """
    adjusted_line = _adjust({name: value for name, value in line.items() if value is not None})
    if sent.get("external_id") != adjusted_line.get("external_id"):  # another conversation
        raise ValidationError({"external_id": _("Use an id without unpaired surrogates.")})
    if character_id is not None:
        adjusted_line.setdefault("character_id", character_id)
    values = {k: v for k, v in lenient.run_validation(adjusted_line).items() if v is not None}
    # The validation also normalises texts, as it does for a request.
    normalised = {name: value for name, value in values.items() if name not in _TIMES}
    adjusted = [*changed_paths(sent, adjusted_line | normalised)]
    for name in _TIMES:
        if name in values and values[name] <= limits.EPOCH:
            del values[name]
            adjusted.append(name)
        elif name in values and values[name] > now + limits.MAX_AHEAD:
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
    return document, list(dict.fromkeys(adjusted))[:MAX_FIELD_ERRORS]


def external_object_id(user_id: str, external_id: str) -> ObjectId:
    """Return the id of the user's conversation with an external id, always the same.

    Its time is before 2004, so no new conversation gets it.
    """
    key = blake2b(user_id.encode()).digest()
    digest = blake2b(external_id.encode(), key=key, digest_size=12).digest()
    return ObjectId(bytes([digest[0] & 0x3F]) + digest[1:])


def _adjust(line: Mapping[str, Any]) -> dict[str, Any]:
    """Return a line with its values within the limits. Values of another type stay."""
    new = dict(line)
    title, tags, settings, custom = map(line.get, ("title", "tags", "settings", "custom"))
    if isinstance(title, str):
        new["title"] = one_line(title, limits.TITLE_LENGTH) or None
    if isinstance(tags, list) and all(isinstance(tag, str) for tag in tags):
        new["tags"] = _tags(tags)
    if isinstance(settings, dict):
        new["settings"] = _settings(settings)
    if isinstance(custom, dict):
        new["custom"] = _entries(_FIELDS["custom"], custom)
    for name in _TIMES:
        value = line.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            new[name] = seconds(value)
    return new


def seconds(number: float) -> float | None:
    """Return a time in seconds since 1970, or None for a number that is no time.

    A number from SECONDS_UNTIL_MILLISECONDS on has a shorter unit: milliseconds, microseconds or
    nanoseconds. 0 and negative numbers stand for a missing time.
    """
    for _unit in range(3):
        if number >= SECONDS_UNTIL_MILLISECONDS:
            number /= 1_000
    return number if 0 < number < SECONDS_UNTIL_MILLISECONDS else None


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


def _settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out settings that the API would reject: the conversation gets their defaults.

    A number outside its bounds gets no nearest bound: -1 often means "unlimited". A model's name
    that is cut is another name.
    """
    fields = _FIELDS["settings"].fields
    new = dict(settings)
    for name, value in settings.items():
        declared = documents.SETTINGS.get(name)
        if declared is None or isinstance(value, bool):
            continue
        kind = str if isinstance(declared.field, CharField) else (int, float)
        if declared.entries and isinstance(value, dict):
            new[name] = _entries(fields[name], value)
        elif declared.max_items and isinstance(value, list):
            read, child = value[:_STOP_SEQUENCES_READ], fields[name].child
            kept = [v for v in read if not isinstance(v, str) or _accepts(child, v)]
            new[name] = kept[: declared.max_items]
        elif isinstance(value, kind) and not _accepts(fields[name], value):
            new[name] = None
    return new


def _entries(field: Object, values: Mapping[str, Any]) -> dict[str, Any]:
    """Keep the first entries that an object accepts.

    In `custom`, texts are cut, and numbers and booleans become text. In `extra`, a value that is
    cut would be another option, so it is left out.
    """
    kept: dict[str, Any] = {}
    for key, sent in islice(values.items(), _KEYS_READ):
        value: Any = sent
        if len(kept) == field.entries.max_keys:
            break
        if value is None or not re.fullmatch(field.entries.key, key):
            continue
        is_accepted = _accepts(field.child, value)
        if not (is_accepted or field.entries.any_scalar) and isinstance(value, str | int | float):
            text = value if isinstance(value, str) else json.dumps(value)
            longest = field.entries.max_length
            text = unicodedata.normalize("NFC", text.replace("\0", "")[: 2 * longest])
            value, is_accepted = text[:longest], True
        if is_accepted:
            kept[key] = value
    return kept


def _accepts(field: Field, value: Any) -> bool:
    try:
        field.run_validation(value)
    except ValidationError:
        return False
    return True
