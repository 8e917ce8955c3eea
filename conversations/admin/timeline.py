"""The history for staff: each version's changes, before and after."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.utils import formats
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from conversation_service.errors import Message
from conversation_service.mongodb.connection import Document
from conversations import history, states
from conversations.documents import FIELDS, REVERTIBLE_FIELDS, purged_by

EMPTY = "-"
CHARACTER_STATUSES: dict[str, Message] = {
    "verified": _("verified"),
    "unverified": _("unverified"),
    "missing": _("missing"),
}
CHARACTER_NOTES: dict[str, Message] = {
    "unverified": _(
        "The Characters service has not confirmed the character yet: it did not respond at the "
        "creation, or the conversation was imported. manage.py verify_characters looks it up."
    ),
    "missing": _("The Characters service has no character with this id."),
}
# The API's values in words for staff.
_WORDS: Mapping[str, Mapping[str, Message]] = {
    "status": states.LABELS,
    "character_status": CHARACTER_STATUSES,
    "title_source": {"auto": _("the character's name"), "user": _("its user")},
}


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
    request_id: str
    events: list[str]
    differences: list[Difference]


@dataclass(frozen=True)
class Tombstone:
    """A purged conversation's data, which are stored until `until`."""

    id: str
    user_id: str
    at: str
    by: str
    until: str


def tombstone(document: Document) -> Tombstone:
    return Tombstone(
        str(document["_id"]),
        document["user_id"],
        shown(document["changed_at"]),
        actor(purged_by(document)),
        shown(document["expires_at"]),
    )


def history_entries(document: Document) -> list[Entry]:
    """Return a document's revisions, the newest first."""
    return [history_entry(revision) for revision in history.exported(document)]


def history_entry(revision: history.Revision) -> Entry:
    changes = dict(revision["changes"])
    events = []
    if moved := changes.get("status"):
        events.append(move_in_words(moved["before"], moved["after"]))
        for path in _STATE_PATHS:
            changes.pop(path, None)
    pinned = changes.get("pinned_at", {"before": None, "after": None})
    if (pinned["before"] is None) != (pinned["after"] is None):
        del changes["pinned_at"]
        events.append(gettext("unpinned") if pinned["after"] is None else gettext("pinned"))
    return Entry(
        revision["version"],
        revision["at"],
        actor(revision["by"]),
        revision["client"],
        revision["request_id"],
        events,
        [
            difference
            for path, changed in changes.items()
            for difference in _differences(path, changed["before"], changed["after"])
        ],
    )


# The paths that a state change writes.
_STATE_PATHS = ("status", "archived_at", "deleted_at", "purge_at")


def move_in_words(before: Any, after: Any) -> str:
    """Return a state change in words."""
    match before, after:
        case _, states.DELETED:
            return gettext("moved to the trash")
        case states.DELETED, states.ARCHIVED:
            return gettext("restored from the trash to the archive")
        case states.DELETED, _:
            return gettext("restored from the trash")
        case _, states.ARCHIVED:
            return gettext("moved to the archive")
        case _:
            return gettext("restored from the archive")


def oldest_at(document: Document) -> datetime:
    """Return the time of the oldest version that can be computed."""
    revisions = history.exported(document)
    found: datetime = document["metadata"]["created_at"]
    if revisions and history.oldest_version(document) > 1:
        found = revisions[-1]["previous_at"]
    return found


def actor(by: str | None) -> str:
    """Return the actor of a revision or purge in words."""
    role, _colon, name = (by or "").partition(":")
    match role:
        case "user":
            return gettext("its user")
        case "staff":
            return gettext("%(name)s (staff)") % {"name": name}
        case "service" if name == "retention":
            return gettext("the retention, automatically")
        case "service":
            return gettext("the service %(name)s") % {"name": name}
        case "":
            return gettext("not recorded")
        case _:  # from a newer release
            return by or EMPTY


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
        yield Difference(label(path), in_words(path, before), in_words(path, after))


def in_words(path: str, value: Any) -> str:
    """Format a field's value; the API's words are replaced by words for staff."""
    words = _WORDS.get(path, {}).get(value) if isinstance(value, str) else None
    return str(words) if words else shown(value)


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
