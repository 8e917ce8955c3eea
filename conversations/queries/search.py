"""What people write into a search box, and the filter that it means.

Nothing of it becomes an operator: each word is a range of the index user_words, and every other
part a value that is compared. The one regular expression, of tags, has them escaped.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any

from django.utils.translation import gettext_lazy as _
from rest_framework import serializers
from rest_framework.exceptions import ValidationError

from conversation_service.http import fields
from conversations import limits
from conversations.serializers.conversations import ExternalId, Tag
from conversations.states import ARCHIVED
from conversations.words import fold, search_prefixes, split_words, tag_key

WORDS = "search.words"
_ACTIVITY = "metadata.last_activity"
# Behind whatever begins with the same letters.
_LAST = "\U0010ffff"
_OPERATORS = ("tag", "character", "is", "before", "after")
_NEVER = "(?!)"  # as a regular expression
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_PART = re.compile(
    rf"""(?:(?P<name>{"|".join(_OPERATORS)}):)?  # an operator, or none
        (?:"(?P<quoted>[^"]*)"?|(?P<plain>[^\s"]+)|(?=\s|\Z))  # the last quote may be missing
    """,
    re.VERBOSE | re.IGNORECASE,
)

Condition = dict[str, Any]


@dataclass(frozen=True)
class Search:
    """What a conversation must be found by: beginnings of words, tags, and anything else."""

    words: Sequence[str] = ()
    tags: Sequence[str] = ()
    others: Sequence[Condition] = ()
    archived: bool = False

    def beyond_words(self) -> list[Condition]:
        return [*map(tagged, self.tags), *self.others]


NOTHING = Search()


def begins(word: str, path: str = WORDS) -> Condition:
    """Return the condition for a word that begins so: one range of an index over the words."""
    return {path: {"$elemMatch": {"$gte": word, "$lt": word + _LAST}}}


def unindexed(condition: Condition) -> Condition:
    """Return the same condition, but in a form that no index is used for."""
    return {"$nor": [{"$nor": [condition]}]}


def tagged(*tags: str) -> Condition:
    """Return the condition for having one of these tags: none has one of none.

    An index that ends with `tag_line` judges it; in one of `tag_keys` each tag is a key of its own.
    """
    keys = "|".join(re.escape(tag_key(tag)) for tag in tags) or _NEVER
    return {"tag_line": {"$regex": rf"(?:^|\n)(?:{keys})(?:\n|\z)"}}


def each_of(tags: Iterable[str]) -> list[Condition]:
    """Return what follows from having all these tags: same tags have the same words."""
    return [{WORDS: word} for tag in tags if (word := _longest_word(tag))]


def any_of(tags: Iterable[str]) -> list[Condition]:
    """Return what follows from having one of these tags: nothing, if one has no word."""
    longest = [_longest_word(tag) for tag in tags]
    return [{WORDS: {"$in": longest}}] if longest and all(longest) else []


def _longest_word(tag: str) -> str:
    return max(split_words(fold(tag)), key=len, default="")


class SearchField(fields.Line):
    """Words, and operators among them; see the help text of the list's parameter."""

    default_error_messages = {
        "words": _("Search for at most {most} words."),
        "is": _("After is: write pinned or archived."),
        "moment": _("Write a date as 2026-01-15, or a time as 2026-01-15T15:00:00Z."),
    }

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=limits.SEARCH_LENGTH, allow_blank=True, **kwargs)

    def run_validation(self, data: Any = serializers.empty) -> Search:
        given: dict[str, list[str]] = {name: [] for name in ("", *_OPERATORS)}
        for name, value in _parts(super().run_validation(data)):
            given[name].append(value)
        beginnings = [*dict.fromkeys(b for text in given[""] for b in search_prefixes(fold(text)))]
        if len(beginnings) > limits.SEARCH_WORDS:
            self.fail("words", most=limits.SEARCH_WORDS)
        states = {value.casefold() for value in given["is"]}
        if states - {"pinned", ARCHIVED}:
            self.fail("is")
        characters = map(_CHARACTER.run_validation, given["character"])
        others: list[Condition] = [{"character_id": character} for character in characters]
        others += [{"pinned_at": {"$ne": None}}] * ("pinned" in states)
        others += [{_ACTIVITY: {"$lt": self._moment(value)}} for value in given["before"]]
        others += [{_ACTIVITY: {"$gt": self._moment(value)}} for value in given["after"]]
        tags = [_TAG.run_validation(value) for value in given["tag"]]
        return Search(beginnings, tags, others, ARCHIVED in states)

    def _moment(self, value: str) -> datetime:
        try:
            if _DATE.fullmatch(value):
                return datetime.combine(date.fromisoformat(value), time.min, UTC)
            moment: datetime = _MOMENT.run_validation(value)
        except (ValueError, ValidationError):
            self.fail("moment")
        return moment


_TAG, _CHARACTER, _MOMENT = Tag(), ExternalId(), fields.Moment()


def _parts(text: str) -> Iterator[tuple[str, str]]:
    """Return operators with their values, and the rest without a name."""
    for part in _PART.finditer(text):
        name = (part["name"] or "").lower()
        value = part["quoted"] if part["quoted"] is not None else part["plain"] or ""
        if name or value:
            yield name, value
