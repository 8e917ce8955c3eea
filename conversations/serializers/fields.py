"""Serializer fields for declared model fields."""

import math
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from django.db.models import CharField, DateTimeField, Field, FloatField, IntegerField
from django.utils.translation import gettext_lazy as _
from django_mongodb_backend.fields import ArrayField, ObjectIdField
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError

from conversation_service.http import fields
from conversations.declaration import Declaration, Entries
from conversations.limits import EXTRA_VALUE_LENGTH, MAX_COUNT

OBJECT_ID = r"^[0-9a-f]{24}$"


@extend_schema_field({"oneOf": [{"type": kind} for kind in ("string", "number", "boolean")]})
class AnyScalar(serializers.Field):
    """Documents a scalar in a response."""


@extend_schema_field(
    {
        "oneOf": [
            {"type": "string", "maxLength": EXTRA_VALUE_LENGTH},
            {"type": "number", "minimum": -MAX_COUNT, "maximum": MAX_COUNT},
            {"type": "boolean"},
        ]
    }
)
class Scalar(fields.Text):
    """A text, a boolean, or a number that JavaScript represents exactly."""

    default_error_messages = {
        "invalid": _("Use a string, a boolean, or a number from -(2^53 - 1) to 2^53 - 1."),
    }

    def run_validation(self, data: Any = serializers.empty) -> Any:
        if isinstance(data, bool):
            return data
        if isinstance(data, int | float):
            if not (math.isfinite(data) and abs(data) <= MAX_COUNT):
                self.fail("invalid")
            return data
        if isinstance(data, list | dict):
            self.fail("invalid")
        return super().run_validation(data)


class Object(fields.Dict):
    """An object with keys that clients choose; see declaration.Entries.

    A merge patch can have a null for a key. It can replace all keys, so it can have `max_keys`
    values and as many nulls. A whole object loses its nulls.
    """

    default_error_messages = {
        "key": _("Use 1 to 64 ASCII letters, digits or the characters _ : - in a key."),
    }

    def __init__(self, entries: Entries, *, is_patch: bool, **kwargs: Any) -> None:
        kind = Scalar if entries.any_scalar else fields.Text
        child = kind(max_length=entries.max_length, allow_blank=True, allow_null=True)
        super().__init__(max_length=2 * entries.max_keys, child=child, **kwargs)
        self.entries, self.is_patch = entries, is_patch

    def run_child_validation(self, data: Mapping[str, Any]) -> dict[str, Any]:
        errors: Any = {
            key: [ErrorDetail(str(self.error_messages["key"]), code="key")]
            for key in data
            if not re.fullmatch(self.entries.key, key)
        }
        sent: dict[str, Any] = {}
        try:
            sent = super().run_child_validation(data)
        except ValidationError as invalid:
            errors = invalid.detail | errors
        if errors:
            raise ValidationError(errors)
        values = {key: value for key, value in sent.items() if value is not None}
        if len(values) > self.entries.max_keys:
            self.fail("max_length", limit=self.entries.max_keys)
        return sent if self.is_patch else values


def input_field(declared: Declaration, **options: Any) -> Any:  # noqa: PLR0911
    """Return the field that validates a value in a request. A CharField is a single line."""
    if declared.choices:
        kind = fields.Subset if isinstance(declared.field, ArrayField) else fields.Choice
        return kind(declared.choices, **options)
    if declared.entries:
        return Object(declared.entries, **{"is_patch": True} | options)
    bounds: dict[str, Any] = {"min_value": declared.minimum, "max_value": declared.maximum}
    match declared.field:
        case ArrayField() as field:
            item = _text(field.base_field)
            return fields.List(max_length=declared.max_items or 0, child=item, **options)
        case FloatField():
            return fields.Number(**bounds, **options)
        case IntegerField():
            return fields.Integer(
                **bounds | {"max_value": declared.maximum or MAX_COUNT}, **options
            )
        case DateTimeField():
            return fields.Moment(**options)
        case field:
            return _text(field, **options)


def _text(field: Field, **options: Any) -> Any:
    kind: Any = fields.Line if isinstance(field, CharField) else fields.Text
    return kind(max_length=field.max_length, **options)


def imported_field(declared: Declaration) -> Any:
    """Return the field that validates a value in an import.

    Lines that an older release exported lack a field with `since`: it gets its default.
    """
    options: dict[str, Any] = {"allow_null": True} if declared.field.null else {}
    if declared.since:
        options |= {"required": False, "default": declared.default}
    if declared.entries:
        options["is_patch"] = False
    return input_field(declared, **options)


def output_field(declared: Declaration) -> serializers.Field:
    """Return the field that documents a value in a response."""
    options: dict[str, Any] = {"allow_null": declared.field.null}
    if declared.help:
        options["help_text"] = declared.help
    if declared.choices and not isinstance(declared.field, ArrayField):
        return serializers.ChoiceField(declared.choices, **options)
    if declared.entries:
        child = AnyScalar() if declared.entries.any_scalar else serializers.CharField()
        return serializers.DictField(child=child, **options)
    kind = next(kind for model_field, kind in _OUTPUT if isinstance(declared.field, model_field))
    return kind(**options)


_OUTPUT: list[tuple[type[Field], Callable[..., serializers.Field]]] = [
    (ArrayField, lambda **o: serializers.ListField(child=serializers.CharField(), **o)),
    (FloatField, serializers.FloatField),
    (IntegerField, serializers.IntegerField),
    (DateTimeField, serializers.DateTimeField),
    (ObjectIdField, partial(serializers.RegexField, OBJECT_ID)),
    (Field, serializers.CharField),
]
