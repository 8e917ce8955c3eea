"""Serializer fields without conversions: a string is not a number, and a boolean is not one."""

import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import Any, NoReturn

from django.core.validators import ProhibitNullCharactersValidator, RegexValidator
from django.http import QueryDict
from django.utils.translation import gettext_lazy as _
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError
from rest_framework.request import Request
from rest_framework.validators import ProhibitSurrogateCharactersValidator

from conversation_service import external_ids, rfc3339
from conversation_service.errors import Message
from conversation_service.http.exception_handler import MAX_FIELD_ERRORS
from conversation_service.numbers import MAX_EXACT, read_integer
from conversation_service.visibility import is_visible

# Cc: controls; Cs: lone surrogates; Zl, Zp: line and paragraph separators.
NOT_IN_A_LINE = {"Cc", "Cs", "Zl", "Zp"}
_UNKNOWN = _("This field does not exist.")
_JSON_TYPES: Mapping[type, Message] = {
    dict: _("an object"),
    list: _("an array"),
    str: _("a string"),
    bool: _("a boolean"),
    int: _("a number"),
    float: _("a number"),
}
_REPEATED = _("Send this parameter only once.")
_NFC_SHRINKS = 4  # code points that NFC composes to one, at most
_MANY_MARKS = "M" * 32  # marks in a row, as Unicode categories; NFC composes three at most


class _Errors:
    """The errors in the parts of a value, by name or index, MAX_FIELD_ERRORS at most.

    Input can have a million faults, and each error object takes 200 bytes.
    """

    def __init__(self) -> None:
        self._by_part: dict[Any, Any] = {}
        self._count = 0

    def add(self, part: Any, detail: Any) -> None:
        """Add the errors in one part. Raises ValidationError at MAX_FIELD_ERRORS."""
        self._by_part[part] = detail
        self._count += _number_of_errors(detail)
        if self._count >= MAX_FIELD_ERRORS:
            raise ValidationError(self._by_part)

    def raise_if_any(self) -> None:
        if self._by_part:
            raise ValidationError(self._by_part)


def _number_of_errors(detail: Any) -> int:
    if isinstance(detail, ErrorDetail):
        return 1
    return sum(map(_number_of_errors, detail.values() if isinstance(detail, dict) else detail))


def reject_type(value: Any, expected: Message) -> NoReturn:
    """Raise ValidationError for a parsed JSON value that has another type than expected."""
    message = _("Use {expected}, not {sent}.").format(
        expected=expected, sent=_JSON_TYPES[type(value)]
    )
    raise ValidationError(message, code="invalid")


class StrictSerializer(serializers.Serializer):
    """Rejects undeclared fields, so that a misspelt field is not ignored.

    An instance without data is a reusable validator: `run_validation(data)` keeps no state. A new
    instance would copy all fields.
    """

    def get_fields(self) -> dict[str, Any]:
        """Rename `fields_` to `fields`: each serializer has an attribute with this name."""
        return {name.rstrip("_"): field for name, field in super().get_fields().items()}

    def to_internal_value(self, data: Any) -> Any:
        """Like DRF's, but skips optional fields that were not sent."""
        if not isinstance(data, Mapping):
            reject_type(data, _JSON_TYPES[dict])
        value: dict[str, Any] = {}
        errors = _Errors()
        for name, field, is_expected in self._known:
            if is_expected or name in data:
                try:
                    value[name] = field.run_validation(data.get(name, serializers.empty))
                except ValidationError as invalid:
                    errors.add(name, invalid.detail)
        if not data.keys() <= self._names:
            for name in data:
                if name not in self._names:
                    errors.add(name, [ErrorDetail(str(_UNKNOWN), code="unknown_field")])
        errors.raise_if_any()
        return value

    def run_validators(self, value: Any) -> None:
        # Serializer.run_validators would first search all fields for read-only defaults.
        serializers.Field.run_validators(self, value)

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(self.fields)

    @cached_property
    def _known(self) -> list[tuple[str, serializers.Field, bool]]:
        """Each field, and whether it is required or has a default."""
        return [
            (name, field, field.required or field.default is not serializers.empty)
            for name, field in self.fields.items()
        ]


class Parameters(StrictSerializer):
    """The parameters in a query string. Parameters itself accepts none."""

    def parse(self, request: Request) -> Mapping[str, Any]:
        """Return the validated parameters. Only a list can be a repeated parameter.

        Raises ValidationError.
        """
        return _validated(self, request.META.get("QUERY_STRING", ""))

    def to_internal_value(self, data: Any) -> Any:
        repeated = {
            name: [ErrorDetail(str(_REPEATED), code="repeated")]
            for name, value in data.items()
            if isinstance(value, list)
            and name in self._names
            and not isinstance(self.fields[name], List)
        }
        if repeated:
            raise ValidationError(repeated)
        return super().to_internal_value(data)


@lru_cache(maxsize=1_000)  # clients repeat their query strings, and DRF validates slowly
def _validated(parameters: Parameters, query_string: str) -> Mapping[str, Any]:
    lists = QueryDict(query_string.encode("latin-1")).lists()  # latin-1: PEP 3333
    sent = {name: values if len(values) > 1 else values[0] for name, values in lists}
    return MappingProxyType(parameters.run_validation(sent))


class List(serializers.ListField):
    """A list. Its length, at most `max_length`, is checked before each item is validated.

    Among items with the same `unique_by`, the first stays.
    """

    max_length: int

    def __init__(
        self, *, max_length: int, unique_by: Callable[[Any], Any] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(max_length=max_length, **kwargs)
        self.unique_by = unique_by

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, list):
            reject_type(data, _JSON_TYPES[list])
        if len(data) > self.max_length:
            self.fail("max_length", max_length=self.max_length)
        return super().to_internal_value(data)

    def run_child_validation(self, data: Sequence[Any]) -> Any:
        items = validate_parts(self.child, enumerate(data)).values()
        if self.unique_by is None:
            return [*items]
        first: dict[Any, Any] = {}
        for item in items:
            first.setdefault(self.unique_by(item), item)
        return [*first.values()]


class CommaSeparated(List):
    """A list as `a,b`, or as a repeated parameter."""

    def to_internal_value(self, data: Any) -> Any:
        parts = [data] if isinstance(data, str) else data
        return super().to_internal_value([item for part in parts for item in part.split(",")])


class Dict(serializers.DictField):
    """An object. Its size, at most `max_length`, is checked before each value is validated."""

    default_error_messages = {"max_length": _("Use at most {limit} keys.")}

    def __init__(self, *, max_length: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.max_length = max_length

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, dict):
            reject_type(data, _JSON_TYPES[dict])
        if len(data) > self.max_length:
            self.fail("max_length", limit=self.max_length)
        return super().to_internal_value(data)

    def run_child_validation(self, data: Mapping[str, Any]) -> Any:
        return validate_parts(self.child, data.items())


def validate_parts(child: serializers.Field, parts: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    """Validate each item in a list by its index, or each value in an object by its key."""
    values = {}
    errors = _Errors()
    for part, value in parts:
        try:
            values[part] = child.run_validation(value)
        except ValidationError as invalid:
            errors.add(part, invalid.detail)
    errors.raise_if_any()
    return values


class Ignored(serializers.JSONField):
    """Accepts any JSON value, and drops it."""

    def run_validation(self, data: Any = serializers.empty) -> None:
        return None


class Text(serializers.CharField):
    """A string with at most `max_length` code points, in NFC, without NUL.

    With `cache_size`, the field keeps the results for that many texts.
    """

    default_error_messages = {"control": _("Control characters are not allowed.")}
    max_length: int

    def __init__(self, *, max_length: int, cache_size: int = 0, **kwargs: Any) -> None:
        super().__init__(max_length=max_length, **({"trim_whitespace": False} | kwargs))
        if cache_size:
            self.validate_text = lru_cache(cache_size)(self.validate_text)  # type: ignore[method-assign]
        # The parser rejects JSON with lone surrogates, and a query string has none. For NUL, the
        # code is the same as for other control characters.
        self.validators = [
            validator
            for validator in self.validators
            if not isinstance(
                validator, ProhibitSurrogateCharactersValidator | ProhibitNullCharactersValidator
            )
        ]

    def run_validation(self, data: Any = serializers.empty) -> Any:
        if isinstance(data, str):
            return self.validate_text(data)
        if data is not None and data is not serializers.empty:
            reject_type(data, _JSON_TYPES[str])
        return super().run_validation(data)

    def to_internal_value(self, data: Any) -> Any:
        if "\0" in data:
            self.fail("control")
        return super().to_internal_value(data)

    def validate_text(self, text: str) -> Any:
        if len(text) > self.max_length and not _may_shrink_to(self.max_length, text):
            self.fail("max_length", max_length=self.max_length)
        return super().run_validation(unicodedata.normalize("NFC", text))


def _may_shrink_to(length: int, text: str) -> bool:
    """Return True if NFC, or trimming white space, can make a text short enough.

    NFC sorts a letter's marks in quadratic time: 16,000 marks take seconds. So a text with too many
    marks in a row is rejected before.
    """
    if len(text) > _NFC_SHRINKS * length:
        return False
    kinds = "".join(unicodedata.category(character)[0] for character in text)
    return _MANY_MARKS not in kinds


def is_one_line(text: str) -> bool:
    """Return True for a text without control characters and line breaks."""
    # A printable text has no character in these categories.
    return text.isprintable() or NOT_IN_A_LINE.isdisjoint(map(unicodedata.category, text))


class Line(Text):
    """A text on one line, trimmed, without control characters."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(trim_whitespace=True, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        line: str = super().to_internal_value(data)
        if not is_one_line(line):
            self.fail("control")
        return line


class VisibleLine(Line):
    """A line with a visible character. A run of blanks becomes one space.

    With `joins_lines`, so does a line break; otherwise a line break is rejected.
    """

    default_error_messages = {"invisible": _("Use at least one visible character.")}

    def __init__(
        self, *, allow_invisible: bool = False, joins_lines: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.allow_invisible, self.joins_lines = allow_invisible, joins_lines

    def to_internal_value(self, data: Any) -> str:
        if not (self.joins_lines or is_one_line(data)):
            self.fail("control")
        line = super().to_internal_value(_RUN_OF_BLANKS.sub(" ", data))
        # A line in ASCII is not blank here.
        if not (line.isascii() or self.allow_invisible or is_visible(line)):
            self.fail("invisible")
        return line


_RUN_OF_BLANKS = re.compile(r"[^\S\x1c-\x1f]{2,}|[\t\n\v\f\r\x85\u2028\u2029]")


class ExternalId(serializers.CharField):
    """A user or character id. It is compared exactly and never normalised."""

    default_error_messages = {
        "invalid": _("Use a string of 1 to 255 visible ASCII characters."),
        "blank": external_ids.RULE,
    }

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(trim_whitespace=False, **kwargs)
        # \Z, because $ accepts a line break at the end. It excludes NUL and surrogates too.
        self.validators = [RegexValidator(rf"^{external_ids.PATTERN}\Z", external_ids.RULE)]

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return data


class Integer(serializers.IntegerField):
    """An integer in JSON, also as 2048.0 or 1e3."""

    def to_internal_value(self, data: Any) -> int:
        if type(data) is int:
            return data
        if not isinstance(data, float):
            reject_type(data, _("an integer"))
        integer = read_integer(data)
        if integer is None and abs(data) > MAX_EXACT:
            message = _("Use an integer from -(2^53 - 1) to 2^53 - 1.")
            raise ValidationError(message, code="invalid")
        if integer is None:
            self.fail("invalid")
        return integer


class IntegerParameter(serializers.IntegerField):
    """An integer in a query string."""

    def fail(self, key: str, **details: Any) -> NoReturn:
        """Fail as "invalid" also for a text that is too long to be read."""
        super().fail("invalid", **details)


class Number(serializers.FloatField):
    def to_internal_value(self, data: Any) -> float:
        if not isinstance(data, int | float) or isinstance(data, bool):
            reject_type(data, _JSON_TYPES[float])
        if not math.isfinite(data):
            self.fail("invalid")
        return float(data)


class Flag(serializers.BooleanField):
    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            reject_type(data, _("true or false"))
        return data


class Switch(serializers.BooleanField):
    """A boolean in a query string, as one of DRF's words for true and false, in any case."""

    default_error_messages = {"invalid": _("Use true or false.")}


class Choice(serializers.ChoiceField):
    """One of several values, which the error lists."""

    default_error_messages = {"invalid_choice": _("Use one of: {choices}.")}

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, str):  # DRF would first convert a long list to a string
            self.fail("invalid_choice")
        return super().to_internal_value(data)

    def fail(self, key: str, **details: Any) -> NoReturn:
        super().fail(key, choices=", ".join(map(str, self.choices)), **details)


class Subset(List):
    """Some choices, each once, in their declared order."""

    def __init__(self, choices: Sequence[str], **kwargs: Any) -> None:
        super().__init__(max_length=len(choices), child=Choice(choices), **kwargs)
        self.choices = choices

    def to_internal_value(self, data: Any) -> list[str]:
        sent = super().to_internal_value(data)
        return [choice for choice in self.choices if choice in sent]


class Moment(serializers.DateTimeField):
    """An RFC 3339 time with an offset, truncated to milliseconds, in UTC; see rfc3339.parse."""

    default_error_messages = {
        "invalid": _("Use a time such as 2026-01-15T15:00:00Z, with Z or an offset."),
        "plus": _("In a query string, write the + of an offset as %2B."),
    }

    def to_internal_value(self, data: Any) -> datetime:
        if not isinstance(data, str):
            self.fail("invalid")
        try:
            return rfc3339.parse(data)
        except ValueError:
            self.fail("plus" if _lacks_plus(data) else "invalid")


def _lacks_plus(text: str) -> bool:
    """Return True if the text becomes a time when a plus replaces the last space."""
    head, _space, offset = text.rpartition(" ")
    with suppress(ValueError):
        rfc3339.parse(f"{head}+{offset}")
        return True
    return False
