"""A client's search text: words and operators."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from typing import Any

from rest_framework import serializers
from rest_framework.exceptions import ValidationError

from conversation_service.http import fields
from conversations import limits
from conversations.serializers.conversations import Tag
from conversations.states import ARCHIVED
from conversations.words import Clause, look_up

_ACTIVITY = "metadata.last_activity"
_PINNED = "pinned"
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
# Control characters, line separators, and the sign for bytes that are not UTF-8.
_NOT_TYPED = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffd]")
_TYPOGRAPHIC_QUOTES = str.maketrans(dict.fromkeys("“”„‟«»\uff02", '"'))
_PART = re.compile(
    r"""(?:(?P<name>tag|character|is|before|after)[:\uff1a])?  # an operator, or none
        (?:"(?P<quoted>[^"]*)"?|(?P<plain>\S+)|(?=\s|\Z))  # the last quote may be missing
    """,
    re.VERBOSE | re.IGNORECASE,
)


@dataclass(frozen=True)
class Search:
    """A parsed search text: words, tags, and conditions for the other operators.

    `words`, `former` and `ignored` are those of words.Lookup; `ignored` includes operators.

    List cursors are bound to its repr(): renaming the class or a field makes the search cursors
    that clients hold invalid.
    """

    words: Sequence[Clause] = ()
    tags: Sequence[str] = ()
    others: Sequence[dict[str, Any]] = ()
    archived: bool = False
    former: Sequence[str] = field(default=(), repr=False)
    ignored: Sequence[str] = field(default=(), repr=False)


NO_SEARCH = Search()


class SearchField(fields.Text):
    """Words and operators, as the help text for `search` describes them.

    Accepts every text: an incomplete or invalid operator is searched as words.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=limits.SEARCH_LENGTH, allow_blank=True, **kwargs)

    def run_validation(self, data: Any = serializers.empty) -> Search:
        if not isinstance(data, str):
            return super().run_validation(data)  # type: ignore[no-any-return]
        operators: dict[tuple[str, Any], None] = {}
        words: list[str] = []
        ignored: list[str] = []
        for part in _PART.finditer(_NOT_TYPED.sub(" ", data).translate(_TYPOGRAPHIC_QUOTES)):
            name = (part["name"] or "").lower()
            value = part["quoted"] if part["quoted"] is not None else part["plain"] or ""
            try:
                operator = (name, _PARSERS[name](value))
            except (KeyError, ValueError, ValidationError):
                words.append(part[0])
                continue
            if operator in operators:
                continue
            if len(operators) < limits.SEARCH_OPERATORS:
                operators[operator] = None
            else:
                ignored.append(part[0][: limits.IGNORED_LENGTH])
        given = {name: [v for n, v in operators if n == name] for name in _PARSERS}
        lookup = look_up(" ".join(words), signs=not operators)
        others: list[dict[str, Any]] = [{"character_id": id_} for id_ in given["character"]]
        others += [{"pinned_at": {"$ne": None}}] * (_PINNED in given["is"])
        others += [{_ACTIVITY: {"$lt": moment}} for moment in given["before"]]
        others += [{_ACTIVITY: {"$gt": moment}} for moment in given["after"]]
        return Search(
            lookup.clauses,
            given["tag"],
            others,
            ARCHIVED in given["is"],
            lookup.former,
            [*ignored, *lookup.ignored][: limits.IGNORED_WORDS],
        )


def _flag(value: str) -> str:
    flag = value.casefold()
    if flag not in {_PINNED, ARCHIVED}:
        raise ValueError
    return flag


def _moment(value: str) -> datetime:
    if _DATE.fullmatch(value):
        return datetime.combine(date.fromisoformat(value), time.min, UTC)
    moment: datetime = _MOMENT.run_validation(value)
    return moment


_TAG, _CHARACTER, _MOMENT = Tag(), fields.ExternalId(), fields.Moment()
_PARSERS: dict[str, Callable[[str], Any]] = {
    "tag": _TAG.run_validation,
    "character": _CHARACTER.run_validation,
    "is": _flag,
    "before": _moment,
    "after": _moment,
}
