"""A client's search text: words and operators."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any

from django.utils.translation import gettext_lazy as _
from rest_framework import serializers
from rest_framework.exceptions import ValidationError

from conversation_service.http import fields
from conversations import limits
from conversations.serializers.conversations import Tag
from conversations.states import ARCHIVED
from conversations.words import fold, search_prefixes

_ACTIVITY = "metadata.last_activity"
_PINNED = "pinned"
_OPERATORS = ("tag", "character", "is", "before", "after")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_PART = re.compile(
    rf"""(?:(?P<name>{"|".join(_OPERATORS)}):)?  # an operator, or none
        (?:"(?P<quoted>[^"]*)"?|(?P<plain>[^\s"]+)|(?=\s|\Z))  # the last quote may be missing
    """,
    re.VERBOSE | re.IGNORECASE,
)


@dataclass(frozen=True)
class Search:
    """A parsed search text: word prefixes, tags, and conditions for the other operators.

    List cursors are bound to its repr(): renaming the class or a field makes the search cursors
    that clients hold invalid.
    """

    words: Sequence[str] = ()
    tags: Sequence[str] = ()
    others: Sequence[dict[str, Any]] = ()
    archived: bool = False


NO_SEARCH = Search()


class SearchField(fields.Line):
    """Words and operators, as the help text for `search` describes them."""

    default_error_messages = {
        "words": _("Search for at most {most} words."),
        "is": _("After is: write pinned or archived."),
        "moment": _("Write a date as 2026-01-15, or a time as 2026-01-15T15:00:00Z."),
    }

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=limits.SEARCH_LENGTH, allow_blank=True, **kwargs)

    def run_validation(self, data: Any = serializers.empty) -> Search:
        given: dict[str, list[str]] = {name: [] for name in ("", *_OPERATORS)}
        for part in _PART.finditer(super().run_validation(data)):
            name = (part["name"] or "").lower()
            value = part["quoted"] if part["quoted"] is not None else part["plain"] or ""
            if name or value:
                given[name].append(value)
        prefixes = [*dict.fromkeys(p for text in given[""] for p in search_prefixes(fold(text)))]
        if len(prefixes) > limits.SEARCH_WORDS:
            self.fail("words", most=limits.SEARCH_WORDS)
        flags = {value.casefold() for value in given["is"]}
        if flags - {_PINNED, ARCHIVED}:
            self.fail("is")
        characters = map(_CHARACTER.run_validation, given["character"])
        others: list[dict[str, Any]] = [{"character_id": character} for character in characters]
        others += [{"pinned_at": {"$ne": None}}] * (_PINNED in flags)
        others += [{_ACTIVITY: {"$lt": self._moment(value)}} for value in given["before"]]
        others += [{_ACTIVITY: {"$gt": self._moment(value)}} for value in given["after"]]
        tags = [_TAG.run_validation(value) for value in given["tag"]]
        return Search(prefixes, tags, others, ARCHIVED in flags)

    def _moment(self, value: str) -> datetime:
        try:
            if _DATE.fullmatch(value):
                return datetime.combine(date.fromisoformat(value), time.min, UTC)
            moment: datetime = _MOMENT.run_validation(value)
        except (ValueError, ValidationError):
            self.fail("moment")
        return moment


_TAG, _CHARACTER, _MOMENT = Tag(), fields.ExternalId(), fields.Moment()
