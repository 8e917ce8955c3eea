"""Adjusts values of exported lines that could affect other users, and names normalised values.

A user writes the line: statistics, retention and the history must not trust its times and actors.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings

from conversation_service.errors import MAX_ECHO
from conversations.documents import EDITABLE_FIELDS, PUBLIC_TIMES
from conversations.limits import MAX_AHEAD
from conversations.serializers.transfer import ORIGIN_LENGTH

# Edits cannot raise this to the highest version that an import reads: every export can be imported.
HIGHEST_VERSION = 2**52
IMPORTED = "imported:"
_TIMES = [name for name in PUBLIC_TIMES if name != "purge_at"]


def changed_paths(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """Yield the path of each value that differs, within objects by key, cut to MAX_ECHO."""
    for name, value in before.items():
        new = after.get(name)
        if isinstance(value, dict) and isinstance(new, dict):
            yield from (f"{name}.{path}"[:MAX_ECHO] for path in changed_paths(value, new))
        elif value != new:
            yield name


def adjust(line: Mapping[str, Any], values: dict[str, Any], now: datetime) -> list[str]:
    """Change the values of a validated line in place; return the paths that were changed.

    The validation has normalised texts, as for a PATCH: their paths are returned, too. A time more
    than MAX_AHEAD after `now` becomes `now`; `purge_at` can be later by TRASH_DAYS. A `purge_at`
    that has passed gets the whole time in the trash, because the next `manage.py purge_trash`
    would purge the conversation. A `first_message_at` after `last_message_at` becomes that time. A
    version above HIGHEST_VERSION becomes HIGHEST_VERSION. Every actor except the user is marked as
    imported. The character is unverified until `manage.py verify_characters` has verified it.
    """
    adjusted = [*changed_paths({name: line[name] for name in EDITABLE_FIELDS}, values)]
    if values["character_status"] != "unverified":
        values["character_status"] = "unverified"
        adjusted.append("character_status")
    if values["version"] > HIGHEST_VERSION:
        values["version"] = HIGHEST_VERSION
        for index, revision in enumerate(values["history"]):
            revision["version"] = HIGHEST_VERSION - index
        adjusted.append("version")
    latest_purge = now + timedelta(days=settings.TRASH_DAYS)
    adjusted += _capped(values, _TIMES, now)
    adjusted += _capped(values, ["purge_at"], latest_purge)
    if values["purge_at"] and values["purge_at"] <= now:
        values["purge_at"] = latest_purge
        adjusted.append("purge_at")
    metadata = values["metadata"]
    adjusted += [f"metadata.{name}" for name in _capped(metadata, metadata, now)]
    first, last = metadata["first_message_at"], metadata["last_message_at"]
    if first and last and first > last:
        metadata["first_message_at"] = last
        adjusted.append("metadata.first_message_at")
    for index, revision in enumerate(values["history"]):
        at = f"history.{index}"
        by = revision["by"]
        if by != "user" and not by.startswith(IMPORTED):
            revision["by"] = f"{IMPORTED}{by}"[:ORIGIN_LENGTH]
            adjusted.append(f"{at}.by")
        adjusted += [f"{at}.{name}" for name in _capped(revision, ["at", "previous_at"], now)]
        for change in revision["changes"]:
            path = change["path"]
            if path in EDITABLE_FIELDS:
                sent = line["history"][index]["changes"][path]
                adjusted += [f"{at}.changes.{path}.{side}" for side in changed_paths(sent, change)]
            latest = latest_purge if path == "purge_at" else now
            for side in _capped(change, ["before", "after"], latest):
                adjusted.append(f"{at}.changes.{path}.{side}")
    return adjusted


def _capped(values: dict[str, Any], names: Any, latest: datetime) -> Iterator[str]:
    for name in names:
        value = values[name]
        if isinstance(value, datetime) and value > latest + MAX_AHEAD:
            values[name] = latest
            yield name
