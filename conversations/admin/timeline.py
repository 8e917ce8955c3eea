"""The history for staff: each version's changes, before and after."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.utils import formats
from django.utils.translation import gettext

from conversation_service.mongodb.connection import Document
from conversations import history
from conversations.documents import FIELDS, REVERTIBLE_FIELDS

EMPTY = "-"


@dataclass(frozen=True)
class Difference:
    label: str
    before: str
    after: str


@dataclass(frozen=True)
class Entry:
    version: int
    at: datetime
    by: str
    client: str | None
    differences: list[Difference]


def history_entries(document: Document) -> list[Entry]:
    """Return a document's revisions, the newest first."""
    return [
        Entry(
            revision["version"],
            revision["at"],
            revision["by"],
            revision["client"],
            [
                difference
                for path, changed in revision["changes"].items()
                for difference in _differences(path, changed["before"], changed["after"])
            ],
        )
        for revision in history.exported(document)
    ]


def reverting(document: Document, then: Document) -> list[Difference]:
    """Return the changes that a revert to a former version would make."""
    paths = ["pinned_at" if name == "pinned" else name for name in REVERTIBLE_FIELDS]
    paths.append("settings_given")
    return [
        difference
        for path in paths
        for difference in _differences(path, document[path], then[path])
    ]


def _differences(path: str, before: Any, after: Any) -> Iterator[Difference]:
    """Compare two values: objects by key, and tags without their order."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in dict.fromkeys([*before, *after]):
            yield from _differences(f"{path}.{key}", before.get(key), after.get(key))
    elif path == "tags":
        gone = [tag for tag in before if tag not in after]
        new = [tag for tag in after if tag not in before]
        if gone or new:
            yield Difference(label(path), shown(gone), shown(new))
    elif before != after:
        yield Difference(label(path), shown(before), shown(after))


def label(path: str) -> str:
    """Return a field's name for staff. A newer release can have stored an unknown field."""
    name, _dot, rest = path.partition(".")
    words = str(FIELDS[name].field.verbose_name if name in FIELDS else name)
    return f"{words}: {rest}" if rest else words


def shown(value: Any) -> str:
    """Format a stored value."""
    if isinstance(value, dict):
        value = [f"{key}: {shown(part)}" for key, part in value.items()]
    match value:
        case None | "" | []:
            return EMPTY
        case bool():
            return gettext("yes") if value else gettext("no")
        case datetime():
            return f"{value:%Y-%m-%d %H:%M:%S}"
        case list():
            return ", ".join(map(str, value))
        case int() | float():
            return formats.number_format(value, force_grouping=True)
        case _:
            return str(value)
