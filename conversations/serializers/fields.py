"""Serializer fields for declared model fields."""

from collections.abc import Callable
from functools import partial
from typing import Any

from django.db.models import CharField, DateTimeField, Field, FloatField, IntegerField
from django_mongodb_backend.fields import ArrayField, ObjectIdField
from rest_framework import serializers

from conversation_service.http.fields import Choice, Integer, Line, List, Moment, Number, Text
from conversations.declaration import Declaration
from conversations.limits import MAX_COUNT

OBJECT_ID = r"^[0-9a-f]{24}$"


def input_field(declared: Declaration, **options: Any) -> Any:
    """Return the field that validates a value in a request. A CharField is a single line."""
    if declared.choices:
        return Choice(declared.choices, **options)
    bounds: dict[str, Any] = {"min_value": declared.minimum, "max_value": declared.maximum}
    match declared.field:
        case ArrayField() as field:
            item = _text(field.base_field)
            return List(max_length=declared.max_items or 0, child=item, **options)
        case FloatField():
            return Number(**bounds, **options)
        case IntegerField():
            return Integer(**bounds | {"max_value": declared.maximum or MAX_COUNT}, **options)
        case DateTimeField():
            return Moment(**options)
        case field:
            return _text(field, **options)


def _text(field: Field, **options: Any) -> Any:
    kind: Any = Line if isinstance(field, CharField) else Text
    return kind(max_length=field.max_length, **options)


def imported_field(declared: Declaration) -> Any:
    """Return the field that validates a value in an import.

    Lines that an older release exported lack a field with `since`: it gets its default.
    """
    options: dict[str, Any] = {"allow_null": True} if declared.field.null else {}
    if declared.since:
        options |= {"required": False, "default": declared.default}
    return input_field(declared, **options)


def output_field(declared: Declaration) -> serializers.Field:
    """Return the field that documents a value in a response."""
    options: dict[str, Any] = {"allow_null": declared.field.null}
    if declared.help:
        options["help_text"] = declared.help
    if declared.choices:
        return serializers.ChoiceField(declared.choices, **options)
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
