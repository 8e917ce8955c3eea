"""Converts the monolith's conversations.

Each value that this service does not accept becomes an issue: repaired, with the old value, or the
reason for which the conversation is rejected.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

from bson import ObjectId
from django.db.models import FloatField
from rest_framework.exceptions import ValidationError

from conversation_service import clock
from conversation_service.http.fields import ExternalId, Text
from conversation_service.mongodb.connection import Document
from conversation_service.numbers import read_number
from conversations import documents, limits
from conversations.jobs.lenient import SECONDS_UNTIL_MILLISECONDS, one_line
from conversations.serializers.conversations import Tag
from conversations.states import ARCHIVED
from conversations.words import tag_key

T = TypeVar("T")

_KNOWN = {
    "_id", "user_id", "character_id", "title", "is_archived", "message_count", "total_tokens",
    "tags", "settings", "created_at", "updated_at",
}  # fmt: skip
_NUMBERS: dict[str, Any] = {
    name: setting for name, setting in documents.SETTINGS.items() if setting.maximum is not None
}

_external_id = ExternalId()
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

    old: Document
    document: Document | None = None
    repairs: list[LegacyIssue] = field(default_factory=list)
    reasons: list[LegacyIssue] = field(default_factory=list)
    already_there: bool = False

    @property
    def id(self) -> Any:
        return self.old.get("_id")

    def refuse(self, path: str, kind: str, was: Any = None) -> None:
        self.document = None
        self.reasons.append(LegacyIssue(path, kind, was))

    def meet(self, user_id: str) -> None:
        """Record that a user already has a conversation with this id."""
        if self.document and self.document["user_id"] != user_id:
            self.refuse("_id", "taken by another user's conversation")
        self.document, self.already_there = None, not self.reasons

    def note(self, path: str, kind: str, was: Any = None) -> None:
        """Record a repair."""
        self.repairs.append(LegacyIssue(path, kind, was))

    def repaired(self, value: T, path: str, kind: str, was: Any = None) -> T:
        """Record a repair and return the value that replaces the old one."""
        self.note(path, kind, was)
        return value

    def read_document(self) -> Document:
        id_ = self.read_id()
        user_id, character_id = self.read_external("user_id"), self.read_external("character_id")
        created_at = self.read_time("created_at", id_.generation_time, "the id")
        updated_at = self.read_time("updated_at", created_at, "created_at")
        title, custom = self.read_title()
        document = documents.new(
            user_id=user_id,
            character_id=character_id,
            now=clock.now(),
            title=title,
            settings=self.read_settings(),
            tags=self.read_tags(),
            custom=custom,
        )
        document["_id"] = id_
        document["metadata"] |= {
            "message_count": self.read_count("message_count"),
            "total_tokens": self.read_count("total_tokens"),
            "last_activity": updated_at,
            "created_at": created_at,
            "updated_at": updated_at,
        }
        if self.read_archived():
            document |= {"status": ARCHIVED, "archived_at": updated_at}
        for name in sorted(self.old.keys() - _KNOWN):
            self.note(name, "unknown, left out", self.old[name])
        return document

    def read_id(self) -> ObjectId:
        if isinstance(self.id, ObjectId):
            return self.id
        self.refuse("_id", "no ObjectId", self.id)
        return ObjectId()

    def read_external(self, name: str) -> str:
        value = self.old.get(name)
        if isinstance(value, int | UUID) and not isinstance(value, bool):
            self.note(name, "made text", value)
        written = str(value) if isinstance(value, str | ObjectId | int | UUID) else ""
        if _accepted(_external_id, written) != written:
            self.refuse(name, "missing" if value is None else "no id that can be kept", value)
        return written

    def read_title(self) -> tuple[str | None, dict[str, str]]:
        """Return the title and the custom fields."""
        value = self.old.get("title")
        if value is None:
            return self.repaired(None, "title", "missing, named after the character"), {}
        if not isinstance(value, str):
            self.note("title", "made text", value)
        title = one_line(str(value), limits.CUSTOM_VALUE_LENGTH)
        if not title:
            return self.repaired(None, "title", "empty, named after the character", value), {}
        if len(title) > limits.TITLE_LENGTH:
            self.note("title", "cut, and kept in custom.legacy_title", value)
            return title[: limits.TITLE_LENGTH].rstrip(), {"legacy_title": title}
        if isinstance(value, str) and title != value:
            self.note("title", "white space or characters replaced", value)
        return title, {}

    def read_archived(self) -> bool:
        value = self.old.get("is_archived")
        if isinstance(value, bool):
            return value
        if value is None:
            return self.repaired(False, "is_archived", "missing, taken as false")
        archived = value == 1 or str(value).strip().casefold() in {"true", "yes", "1"}
        kind = f"not a boolean, taken as {str(archived).lower()}"
        return self.repaired(archived, "is_archived", kind, value)

    def read_count(self, name: str) -> int:
        value = self.old.get(name)
        if value is None:
            return self.repaired(0, name, "missing, taken as 0")
        number = read_number(value)
        if number is None or number != int(number) or not 0 <= number <= limits.MAX_COUNT:
            return self.repaired(0, name, "no count, taken as 0", value)
        if isinstance(value, int):
            return int(value)
        return self.repaired(int(number), name, "made a whole number", value)

    def read_tags(self) -> list[str]:
        value = self.old.get("tags")
        if value is None:
            return self.repaired([], "tags", "missing, taken as none")
        if isinstance(value, str):
            value = self.repaired(value.split(","), "tags", "split at commas", value)
        if not isinstance(value, list):
            return self.repaired([], "tags", "no list, taken as none", value)
        kept: dict[str, str] = {}
        for old in value:
            tag = self.read_tag(old)
            if tag and tag_key(tag) in kept:
                self.note("tags", "repeated, left out", old)
            elif tag and len(kept) == limits.TAGS:
                self.note("tags", f"more than {limits.TAGS}, left out", old)
            elif tag:
                kept[tag_key(tag)] = tag
        return list(kept.values())

    def read_tag(self, value: Any) -> str:
        """Replace commas and what is not accepted on a line by spaces, and cut the tag."""
        if isinstance(value, str) and _accepted(_tag, value) == value:
            return value
        written = str(value) if isinstance(value, str | int | float | ObjectId) else ""
        tag = one_line(written.replace(",", " "), limits.TAG_LENGTH)
        kind = "characters replaced, or cut" if tag else "no tag, left out"
        return self.repaired(tag, "tags", kind, value)

    def read_settings(self) -> dict[str, Any]:
        value = self.old.get("settings")
        if value is None:
            return self.repaired({}, "settings", "missing, taken as today's defaults")
        if not isinstance(value, dict):
            return self.repaired({}, "settings", "no object, taken as today's defaults", value)
        settings: dict[str, Any] = {}
        for name, old in value.items():
            path = f"settings.{name}"
            if name in _NUMBERS:
                settings[name] = self.read_number(path, old, _NUMBERS[name])
            elif name == "stop_sequences":
                settings[name] = self.read_stop_sequences(path, old)
            else:
                self.note(path, "unknown, left out", old)
        for name in _NUMBERS.keys() - value.keys():
            self.note(f"settings.{name}", "missing, taken as today's default")
        return settings

    def read_number(self, path: str, value: Any, setting: Any) -> float:
        number = read_number(value)
        if number is None:
            default: float = documents.with_defaults({})[path.removeprefix("settings.")]
            return self.repaired(default, path, "no number, taken as today's default", value)
        if isinstance(value, str):
            self.note(path, "made a number", value)
        within: float = min(max(number, setting.minimum), setting.maximum)
        if within != number:
            self.note(path, "brought within the bounds", value)
        if isinstance(setting.field, FloatField):
            return float(within)
        if within != int(within):
            self.note(path, "made a whole number", value)
        return int(within)

    def read_stop_sequences(self, path: str, value: Any) -> list[str]:
        if not isinstance(value, list):
            return self.repaired([], path, "no list, taken as none", value)
        kept: list[str] = []
        for old in value:
            if not isinstance(old, str) or _accepted(_stop_sequence, old) != old:
                self.note(path, "no stop sequence, left out", old)
            elif len(kept) == limits.STOP_SEQUENCES:
                self.note(path, f"more than {limits.STOP_SEQUENCES}, left out", old)
            else:
                kept.append(old)
        return kept

    def read_time(self, name: str, otherwise: datetime, source: str) -> datetime:
        value = self.old.get(name)
        if isinstance(value, datetime):
            return value  # in milliseconds and UTC, as here
        if moment := _parse_time(value):
            return self.repaired(moment, name, "made a time", value)
        found = "missing" if value is None else "no time"
        return self.repaired(otherwise, name, f"{found}, taken from {source}", value)


def convert(old: Document) -> Converted:
    """Convert a document from the monolith and list all issues."""
    converted = Converted(old)
    document = converted.read_document()
    converted.document = None if converted.reasons else document
    return converted


def _accepted(field: Any, value: Any) -> Any:
    """Return the value that the API would store, or None if the API would reject it."""
    try:
        return field.run_validation(value)
    except ValidationError:
        return None


def _parse_time(value: Any) -> datetime | None:
    """Parse ISO 8601 text, by default in UTC, or seconds or milliseconds since 1970."""
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(value.strip())
        elif isinstance(value, int | float) and not isinstance(value, bool):
            in_seconds = abs(value) < SECONDS_UNTIL_MILLISECONDS
            moment = datetime.fromtimestamp(value if in_seconds else value / 1000, UTC)
        else:
            return None
        moment = moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
