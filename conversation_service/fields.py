"""Serializer fields that take JSON at its word: no number is a string, no boolean a number."""

import math
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import Any, NoReturn

from django.http import QueryDict
from django.utils.translation import gettext_lazy as _
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError
from rest_framework.request import Request
from rest_framework.validators import ProhibitSurrogateCharactersValidator

# Cc: controls; Cs: lone surrogates; Zl, Zp: line and paragraph separators.
NOT_IN_A_LINE = {"Cc", "Cs", "Zl", "Zp"}
_UNKNOWN = _("There is no such field.")


class StrictSerializer(serializers.Serializer):
    """Refuses fields that it does not declare, so that a misspelt one is never lost silently.

    An instance without data is a reusable validator: `run_validation(data)` keeps no state and
    spares the copy of all fields that each new instance makes.
    """

    def get_fields(self) -> dict[str, Any]:
        """Give `fields_` its name: a serializer keeps what it declares in an attribute `fields`."""
        return {name.rstrip("_"): field for name, field in super().get_fields().items()}

    def to_internal_value(self, data: Any) -> Any:
        """As DRF's, but that a field which was not sent, and need not be, is not troubled."""
        if not isinstance(data, Mapping):
            return super().to_internal_value(data)
        value: dict[str, Any] = {}
        errors: dict[str, Any] = {}
        for name, field, is_awaited in self._known:
            if is_awaited or name in data:
                try:
                    value[name] = field.run_validation(data.get(name, serializers.empty))
                except ValidationError as invalid:
                    errors[name] = invalid.detail
        for name in sorted(data.keys() - self._names):
            errors[name] = [ErrorDetail(str(_UNKNOWN), code="UNKNOWN_FIELD")]
        if errors:
            raise ValidationError(errors)
        return value

    def run_validators(self, value: Any) -> None:
        if self.validators:  # else DRF would look for defaults that are read-only, each time
            super().run_validators(value)

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(self.fields)

    @cached_property
    def _known(self) -> list[tuple[str, serializers.Field, bool]]:
        """Each field, and whether it must be there or has a default."""
        return [
            (name, field, field.required or field.default is not serializers.empty)
            for name, field in self.fields.items()
        ]


class Parameters(StrictSerializer):
    """The query string of a call; a call without any takes Parameters itself."""

    def of(self, request: Request) -> Mapping[str, Any]:
        """Return what was sent. A parameter that is repeated is a list, for fields that take one.

        Raises ValidationError.
        """
        return _validated(self, request.META.get("QUERY_STRING", ""))


@lru_cache(maxsize=1_000)  # clients send the same ones again and again
def _validated(parameters: Parameters, query_string: str) -> Mapping[str, Any]:
    given = QueryDict(query_string.encode("latin-1")).lists()  # latin-1: PEP 3333
    sent = {name: values if len(values) > 1 else values[0] for name, values in given}
    return MappingProxyType(parameters.run_validation(sent))


class Text(serializers.CharField):
    """A string of at most `max_length` code points, in NFC, without NUL."""

    default_error_messages = {"invalid": _("This must be a string.")}

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**({"trim_whitespace": False} | kwargs))
        # JSON with lone surrogates is refused as a whole, and a query string has none.
        self.validators = [
            validator
            for validator in self.validators
            if not isinstance(validator, ProhibitSurrogateCharactersValidator)
        ]

    def run_validation(self, data: Any = serializers.empty) -> Any:
        if isinstance(data, str):
            data = unicodedata.normalize("NFC", data)
        elif data is not None and data is not serializers.empty:
            self.fail("invalid")
        return super().run_validation(data)


class Line(Text):
    """Text on one line: surrounding space is cut off, control characters are refused."""

    default_error_messages = {"control": _("Control characters are not allowed.")}

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(trim_whitespace=True, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        line: str = super().to_internal_value(data)
        # Most lines are printable, which excludes all of those at once.
        if not line.isprintable() and not NOT_IN_A_LINE.isdisjoint(map(unicodedata.category, line)):
            self.fail("control")
        return line


class _Bounded(serializers.Field):
    """A number. Only one that is out of its bounds is told so by Django's validators."""

    min_value: Any
    max_value: Any

    def run_validators(self, value: float) -> None:
        if not self._lowest <= value <= self._highest:
            super().run_validators(value)

    @cached_property
    def _lowest(self) -> float:
        return -math.inf if self.min_value is None else self.min_value

    @cached_property
    def _highest(self) -> float:
        return math.inf if self.max_value is None else self.max_value


class Integer(_Bounded, serializers.IntegerField):
    def to_internal_value(self, data: Any) -> int:
        if not isinstance(data, int) or isinstance(data, bool):
            self.fail("invalid")
        return data


class Number(_Bounded, serializers.FloatField):
    def to_internal_value(self, data: Any) -> float:
        if not isinstance(data, int | float) or isinstance(data, bool) or not math.isfinite(data):
            self.fail("invalid")
        return float(data)


class Flag(serializers.BooleanField):
    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            self.fail("invalid", input=type(data).__name__)
        return data


class Choice(serializers.ChoiceField):
    """One of a few values, which a refusal names."""

    default_error_messages = {"invalid_choice": _("Choose one of: {choices}.")}

    def fail(self, key: str, **details: Any) -> NoReturn:
        super().fail(key, choices=", ".join(map(str, self.choices)), **details)


class Moment(serializers.DateTimeField):
    """An RFC 3339 time with an offset, cut to milliseconds, in UTC. Naive times are refused."""

    default_error_messages = {
        "invalid": _("Write a time as 2026-01-15T15:00:00Z, with Z or an offset."),
    }

    def to_internal_value(self, data: Any) -> datetime:
        try:
            moment = datetime.fromisoformat(data)
            if moment.tzinfo is None:
                self.fail("invalid")
            moment = moment.astimezone(UTC)
        except (TypeError, ValueError, OverflowError):
            self.fail("invalid")
        return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
