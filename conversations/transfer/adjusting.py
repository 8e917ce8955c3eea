"""Values of a line that an import does not take over as they are.

A user writes the line. Nobody else's list, statistics or timeline may depend on its claims.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings

from conversations.transfer.serializers import ORIGIN_LENGTH

# Clocks of clients and of other deployments may be ahead of ours by this.
AHEAD = timedelta(minutes=5)
# Leaves more room to rise than edits can use, so that every export can be imported again.
HIGHEST_VERSION = 2**52
IMPORTED = "imported:"
_TIMES = ("pinned_at", "archived_at", "deleted_at")


def adjust(values: dict[str, Any], now: datetime) -> list[str]:
    """Change a validated line in place; return the paths of the values that were changed.

    Times that lie ahead of `now` become `now`, a time of purging the latest that the trash allows.
    A version above HIGHEST_VERSION becomes that. Actors but the user are marked as imported, and
    a character is unverified until `manage.py verify_characters` has looked it up.
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
        if isinstance(value, datetime) and value > latest + AHEAD:
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
