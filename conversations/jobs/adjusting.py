"""Adjusts imported values that could affect other users.

A user writes the line: statistics, retention and the history must not trust its times and actors.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings

from conversations.documents import PUBLIC_TIMES
from conversations.limits import MAX_AHEAD
from conversations.serializers.transfer import ORIGIN_LENGTH

# Edits cannot raise it to the highest version that an import reads, so that every export can be
# imported again.
HIGHEST_VERSION = 2**52
IMPORTED = "imported:"
_TIMES = [name for name in PUBLIC_TIMES if name != "purge_at"]


def adjust(values: dict[str, Any], now: datetime) -> list[str]:
    """Change a validated line in place; return the paths that were changed.

    A time more than MAX_AHEAD after `now` becomes `now`; `purge_at` can be later by TRASH_DAYS. A
    version above HIGHEST_VERSION becomes HIGHEST_VERSION. Every actor except the user is marked as
    imported, and the character is unverified until `manage.py verify_characters` has looked it up.
    """
    return [
        *_unverified(values),
        *_renumbered(values),
        *_capped(values, _TIMES, now),
        *_capped(values, ["purge_at"], now + timedelta(days=settings.TRASH_DAYS)),
        *(f"metadata.{name}" for name in _capped(values["metadata"], values["metadata"], now)),
        *(
            f"history.{index}.{name}"
            for index, revision in enumerate(values["history"])
            for name in _revision(revision, now)
        ),
    ]


def _unverified(values: dict[str, Any]) -> Iterator[str]:
    if values["character_status"] != "unverified":
        values["character_status"] = "unverified"
        yield "character_status"


def _renumbered(values: dict[str, Any]) -> Iterator[str]:
    if values["version"] > HIGHEST_VERSION:
        values["version"] = HIGHEST_VERSION
        for index, revision in enumerate(values["history"]):
            revision["version"] = HIGHEST_VERSION - index
        yield "version"


def _capped(values: dict[str, Any], names: Any, latest: datetime) -> Iterator[str]:
    for name in names:
        value = values[name]
        if isinstance(value, datetime) and value > latest + MAX_AHEAD:
            values[name] = latest
            yield name


def _revision(revision: dict[str, Any], now: datetime) -> Iterator[str]:
    by = revision["by"]
    if by != "user" and not by.startswith(IMPORTED):
        revision["by"] = f"{IMPORTED}{by}"[:ORIGIN_LENGTH]
        yield "by"
    yield from _capped(revision, ["at", "previous_at"], now)
    for change in revision["changes"]:
        ahead = settings.TRASH_DAYS if change["path"] == "purge_at" else 0
        for side in _capped(change, ["before", "after"], now + timedelta(days=ahead)):
            yield f"changes.{change['path']}.{side}"
