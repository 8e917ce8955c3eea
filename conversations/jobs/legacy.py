"""Converts the monolith's conversations.

Each value that this service does not accept becomes an issue: repaired, with the old value, or the
reason for which the conversation is rejected.
"""

import math
import unicodedata
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from bson import Decimal128, Int64, ObjectId
from django.db.models import FloatField
from rest_framework.exceptions import ValidationError

from conversation_service import clock
from conversation_service.http.fields import NOT_IN_A_LINE, ExternalId, Text
from conversation_service.mongodb.connection import Document
from conversations import documents, limits
from conversations.serializers.conversations import Tag
from conversations.serializers.fields import input_field
from conversations.states import ARCHIVED
from conversations.words import tag_key

_KNOWN = {
    "_id", "user_id", "character_id", "title", "is_archived", "message_count", "total_tokens",
    "tags", "settings", "created_at", "updated_at",
}  # fmt: skip
_NOTHING: Any = object()
_SECONDS_UNTIL_MILLISECONDS = 100_000_000_000

_NUMBERS: dict[str, Any] = {
    name: setting for name, setting in documents.SETTINGS.items() if setting.maximum is not None
}

_external_id = ExternalId()
_title = input_field(documents.FIELDS["title"])
_tag = Tag()
_stop_sequence = Text(max_length=limits.STOP_SEQUENCE_LENGTH)


@dataclass(frozen=True)
class LegacyIssue:
    """A value that was not accepted: its path, the repair or the reason, and the old value."""

    path: str
    kind: str
    was: Any = None

    @property
    def name(self) -> str:
        return f"{self.path}: {self.kind}"


@dataclass
class Converted:
    """A conversion's result: a document, an existing conversation, or reasons to reject it."""

    id: Any
    document: Document | None = None
    repairs: list[LegacyIssue] = field(default_factory=list)
    reasons: list[LegacyIssue] = field(default_factory=list)
    already_there: bool = False

    def refuse(self, path: str, kind: str) -> None:
        self.document = None
        self.reasons.append(LegacyIssue(path, kind))

    def meet(self, user_id: str) -> None:
        """Record that a user already has a conversation with this id."""
        if self.document and self.document["user_id"] != user_id:
            self.refuse("_id", "taken by another user's conversation")
        self.document, self.already_there = None, not self.reasons


def convert(old: Document) -> Converted:
    """Convert a document from the monolith and list all issues."""
    reading = _Reading(old)
    document = reading.document()
    taken = None if reading.reasons else document
    return Converted(old.get("_id"), taken, reading.repairs, reading.reasons)


class _Reading:
    def __init__(self, old: Document) -> None:
        self._old = old
        self.repairs: list[LegacyIssue] = []
        self.reasons: list[LegacyIssue] = []

    def document(self) -> Document:
        id_ = self.id()
        user_id, character_id = self.external("user_id"), self.external("character_id")
        created_at = self.moment("created_at", id_.generation_time)
        updated_at = self.moment("updated_at", created_at)
        archived = self.archived()
        title, custom = self.title(character_id)
        document = documents.new(
            user_id=user_id,
            character_id=character_id,
            now=clock.now(),
            title=title,
            settings=self.settings(),
            tags=self.tags(),
            custom=custom,
        )
        document["metadata"] |= {
            "message_count": self.count("message_count"),
            "total_tokens": self.count("total_tokens"),
            "last_activity": updated_at,
            "created_at": created_at,
            "updated_at": updated_at,
        }
        for name in sorted(self._old.keys() - _KNOWN):
            self._repaired(name, "unknown, left out", self._old[name])
        state = {"status": ARCHIVED, "archived_at": updated_at} if archived else {}
        return document | state | {"_id": id_}

    def _repaired(self, path: str, kind: str, was: Any = None) -> None:
        self.repairs.append(LegacyIssue(path, kind, was))

    def _refused(self, path: str, kind: str, was: Any = None) -> None:
        self.reasons.append(LegacyIssue(path, kind, was))

    def id(self) -> ObjectId:
        value = self._old.get("_id")
        if isinstance(value, ObjectId):
            return value
        self._refused("_id", "no ObjectId", value)
        return ObjectId()

    def external(self, name: str) -> str:
        value = self._old.get(name)
        if isinstance(value, int | UUID) and not isinstance(value, bool):
            self._repaired(name, "made text", value)
        written = str(value) if isinstance(value, str | ObjectId | int | UUID) else ""
        if _accepted(_external_id, written) == written:
            return written
        self._refused(name, "missing" if value is None else "no id that can be kept", value)
        return ""

    def title(self, character_id: str) -> tuple[str | None, dict[str, str]]:
        value = self._old.get("title")
        if value is None:
            self._repaired("title", "missing, named after the character")
            return None, {}
        if not isinstance(value, str):
            self._repaired("title", "made text", value)
        title = _line(str(value))
        if not title:
            self._repaired("title", "empty, named after the character", value)
            return None, {}
        custom = {}
        if len(title) > limits.TITLE_LENGTH:
            custom["legacy_title"] = title[: limits.CUSTOM_VALUE_LENGTH]
            title = title[: limits.TITLE_LENGTH].rstrip()
            self._repaired("title", "cut, and kept in custom.legacy_title", value)
        elif isinstance(value, str) and title != value:
            self._repaired("title", "white space or characters replaced", value)
        return title, custom

    def archived(self) -> bool:
        value = self._old.get("is_archived", _NOTHING)
        if isinstance(value, bool):
            return value
        if value is _NOTHING or value is None:
            self._repaired("is_archived", "missing, taken as false")
            return False
        archived = value == 1 or str(value).strip().casefold() in {"true", "yes", "1"}
        self._repaired("is_archived", f"not a boolean, taken as {str(archived).lower()}", value)
        return archived

    def count(self, name: str) -> int:
        value: Any = self._old.get(name)
        if type(value) in {int, Int64} and 0 <= value <= limits.MAX_COUNT:
            return int(value)
        if value is None:
            self._repaired(name, "missing, taken as 0")
            return 0
        number = _number(value)
        if number is not None and number == int(number) and 0 <= number <= limits.MAX_COUNT:
            self._repaired(name, "made a whole number", value)
            return int(number)
        self._repaired(name, "no count, taken as 0", value)
        return 0

    def tags(self) -> list[str]:
        value = self._old.get("tags")
        if value is None:
            self._repaired("tags", "missing, taken as none")
            return []
        if isinstance(value, str):
            self._repaired("tags", "split at commas", value)
            value = value.split(",")
        if not isinstance(value, list):
            self._repaired("tags", "no list, taken as none", value)
            return []
        kept: dict[str, str] = {}
        for old in value:
            if tag := self.tag(old):
                if tag_key(tag) in kept:
                    self._repaired("tags", "repeated, left out", old)
                elif len(kept) == limits.TAGS:
                    self._repaired("tags", f"more than {limits.TAGS}, left out", old)
                else:
                    kept[tag_key(tag)] = tag
        return list(kept.values())

    def tag(self, value: Any) -> str | None:
        """Replace the characters that a tag does not accept by spaces, and cut the tag."""
        if isinstance(value, str) and _accepted(_tag, value) == value:
            return value
        written = _line(str(value)) if isinstance(value, str | int | float | ObjectId) else ""
        plain = "".join(c if _accepted(_tag, f"a{c}a") else " " for c in written)
        tag = _line(plain)[: limits.TAG_LENGTH].rstrip()
        self._repaired("tags", "characters replaced, or cut" if tag else "no tag, left out", value)
        return tag

    def settings(self) -> dict[str, Any]:
        value = self._old.get("settings")
        if value is None:
            self._repaired("settings", "missing, taken as today's defaults")
            return {}
        if not isinstance(value, dict):
            self._repaired("settings", "no object, taken as today's defaults", value)
            return {}
        settings: dict[str, Any] = {}
        for name, old in value.items():
            path = f"settings.{name}"
            if name in _NUMBERS:
                settings[name] = self.setting(path, old, _NUMBERS[name])
            elif name == "stop_sequences":
                settings[name] = self.stop_sequences(old)
            else:
                self._repaired(path, "unknown, left out", old)
        for name in _NUMBERS.keys() - value.keys():
            self._repaired(f"settings.{name}", "missing, taken as today's default")
        return settings

    def setting(self, path: str, value: Any, bounds: Any) -> float:
        number = _number(value)
        if number is None:
            self._repaired(path, "no number, taken as today's default", value)
            name = path.removeprefix("settings.")
            default: float = documents.default_settings()[name]
            return default
        if isinstance(value, str):
            self._repaired(path, "made a number", value)
        within: float = min(max(number, bounds.minimum), bounds.maximum)
        if within != number:
            self._repaired(path, "brought within the bounds", value)
            number = within
        if isinstance(bounds.field, FloatField):
            return float(number)
        if number != int(number):
            self._repaired(path, "made a whole number", value)
        return int(number)

    def stop_sequences(self, value: Any) -> list[str]:
        if not isinstance(value, list):
            self._repaired("settings.stop_sequences", "no list, taken as none", value)
            return []
        kept = []
        for old in value:
            if isinstance(old, str) and _accepted(_stop_sequence, old) == old:
                kept.append(old)
            else:
                self._repaired("settings.stop_sequences", "no stop sequence, left out", old)
        for old in kept[limits.STOP_SEQUENCES :]:
            self._repaired(
                "settings.stop_sequences", f"more than {limits.STOP_SEQUENCES}, left out", old
            )
        return kept[: limits.STOP_SEQUENCES]

    def moment(self, name: str, otherwise: datetime) -> datetime:
        value = self._old.get(name)
        if isinstance(value, datetime):
            return value  # in milliseconds and UTC, as here
        if value is None:
            self._repaired(name, _INSTEAD[name].format("missing"))
            return otherwise
        moment = parse_time(value)
        if moment is None:
            self._repaired(name, _INSTEAD[name].format("no time"), value)
            return otherwise
        self._repaired(name, "made a time", value)
        return moment


_INSTEAD = {
    "created_at": "{}, taken from the id",
    "updated_at": "{}, taken from created_at",
}


def _accepted(field: Any, value: Any) -> Any:
    """Return the value that the API would store, or None if the API would reject it."""
    try:
        return field.run_validation(value)
    except ValidationError:
        return None


def _line(value: str) -> str:
    """Return text on a single line, without control characters."""
    plain = "".join(c if unicodedata.category(c) not in NOT_IN_A_LINE else " " for c in value)
    return " ".join(unicodedata.normalize("NFC", plain).split())


def _number(value: Any) -> float | None:
    """Convert a value to a finite number, or return None. Text can contain a number."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal128):
        return None
    try:
        number = float(str(value) if isinstance(value, Decimal128) else value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def parse_time(value: Any) -> datetime | None:
    """Parse ISO 8601 text, by default in UTC, or seconds or milliseconds since 1970."""
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(value.strip())
        elif isinstance(value, int | float) and not isinstance(value, bool):
            in_seconds = abs(value) < _SECONDS_UNTIL_MILLISECONDS
            moment = datetime.fromtimestamp(value if in_seconds else value / 1000, UTC)
        else:
            return None
        moment = moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
