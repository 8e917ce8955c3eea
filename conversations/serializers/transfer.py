"""Serializers for export and import. Imported lines are validated like all other input."""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from bson import ObjectId
from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from conversation_service.http import fields
from conversations import limits
from conversations.documents import FIELDS, METADATA, PUBLIC, SETTINGS
from conversations.serializers.conversations import (
    LLMSettingsInputSerializer,
    Tags,
    Title,
    plain_fields,
)
from conversations.serializers.fields import imported_field, input_field
from conversations.states import ARCHIVED, DELETED, EDITABLE

# "imported:staff:" and Django's longest user name, or the longest X-Request-ID.
ORIGIN_LENGTH = 170
# The highest integer that MongoDB stores. adjusting.py lowers versions above HIGHEST_VERSION.
MAX_VERSION = 2**63 - 1


@extend_schema_field({"type": "string", "pattern": "^[0-9a-fA-F]{24}$"})
class Id(fields.Text):
    """A conversation id, as an ObjectId."""

    default_error_messages = {"invalid": _("Use 24 hexadecimal digits.")}

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=limits.ID_LENGTH, **kwargs)
        self.validators = []  # the validators of Text need a string

    def to_internal_value(self, data: Any) -> Any:
        if not ObjectId.is_valid(data):
            self.fail("invalid")
        return ObjectId(data)


class TransferredSettingsSerializer(fields.StrictSerializer):
    """Every setting is required: a later default must not change an old conversation."""

    def get_fields(self) -> dict[str, Any]:
        return {name: imported_field(setting) for name, setting in SETTINGS.items()}


class TransferredMetadataSerializer(fields.StrictSerializer):
    def get_fields(self) -> dict[str, Any]:
        return {name: imported_field(field) for name, field in METADATA.items()}


# Fields that need more than their declaration.
_OWN_FIELDS: Mapping[str, Callable[[], Any]] = {
    "user_id": lambda: fields.Ignored(required=False),
    "character_id": fields.ExternalId,
    "settings": TransferredSettingsSerializer,
    # Release 0.1.0 has stored titles and tags without a visible character.
    "title": lambda: Title(allow_invisible=True),
    "tags": lambda: Tags(allow_invisible=True),
    "metadata": TransferredMetadataSerializer,
    "forked_from": lambda: Id(allow_null=True),
    "version": lambda: fields.Integer(min_value=1, max_value=MAX_VERSION),
}


def _imported_fields() -> dict[str, Any]:
    return {
        name: _OWN_FIELDS[name]() if name in _OWN_FIELDS else imported_field(FIELDS[name])
        for name in PUBLIC
    }


# The fields that a revision can change, by path.
_UNCHANGEABLE = {"user_id", "character_id", "settings", "metadata", "forked_from", "version"}
_CHANGEABLE: dict[str, Any] = {
    name: field for name, field in _imported_fields().items() if name not in _UNCHANGEABLE
} | {f"settings.{name}": field for name, field in TransferredSettingsSerializer().fields.items()}


class Changes(fields.Dict):
    """A revision's changes: values before and after, by path."""

    default_error_messages = {
        "invalid_choice": _("A revision cannot change {path}."),
        "invalid": _("Each change needs before and after."),
    }

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=len(_CHANGEABLE), child=fields.Dict(max_length=2), **kwargs)

    def run_child_validation(self, data: Any) -> Any:
        changes, errors = [], {}
        for path, pair in data.items():
            try:
                changes.append({"path": path} | self._change(path, pair))
            except serializers.ValidationError as invalid:
                errors[path] = invalid.detail
        if errors:
            raise serializers.ValidationError(errors)
        return changes

    def _change(self, path: str, pair: Any) -> dict[str, Any]:
        field = _CHANGEABLE.get(path)
        if field is None:
            self.fail("invalid_choice", path=path[: limits.ID_LENGTH])
        if not isinstance(pair, dict) or pair.keys() != {"before", "after"}:
            self.fail("invalid")
        return fields.validate_parts(field, pair.items())


class TransferredRevisionSerializer(fields.StrictSerializer):
    version = fields.Integer(min_value=2, max_value=MAX_VERSION)
    at = fields.Moment()
    previous_at = fields.Moment()
    by = fields.Line(max_length=ORIGIN_LENGTH)
    client = fields.Line(max_length=ORIGIN_LENGTH, allow_null=True)
    request_id = fields.Line(max_length=ORIGIN_LENGTH, allow_blank=True)
    changes = Changes()

    def to_internal_value(self, data: Any) -> Any:
        # 50 revisions with 115 KB take up to a second: other requests run between them.
        time.sleep(0)
        return super().to_internal_value(data)


class TransferredSerializer(fields.StrictSerializer):
    """An exported line. `user_id` is ignored: the conversation becomes the caller's."""

    id = Id()
    object = fields.Choice(["conversation"], required=False)
    is_archived = fields.Flag(required=False)
    retention = fields.Ignored(required=False)  # derived from other fields
    history = fields.List(
        max_length=limits.REVISIONS, child=TransferredRevisionSerializer(), default=list
    )

    def get_fields(self) -> dict[str, Any]:
        return super().get_fields() | _imported_fields()

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Reject contradictions, such as a conversation in the trash without `purge_at`."""
        status = attrs["status"]
        trashed = status == DELETED
        versions = [attrs["version"] + 1, *(r["version"] for r in attrs["history"])]
        expected = {
            "is_archived": attrs.get("is_archived") in {None, status == ARCHIVED},
            "archived_at": trashed or (attrs["archived_at"] is not None) == (status == ARCHIVED),
            "deleted_at": (attrs["deleted_at"] is not None) == trashed,
            "purge_at": (attrs["purge_at"] is not None) == trashed,
            "history": all(later > earlier for later, earlier in pairwise(versions)),
        }
        wrong = {name: _DOES_NOT_FIT for name, fits in expected.items() if not fits}
        if wrong:
            raise serializers.ValidationError(wrong, code="contradiction")
        return attrs


_DOES_NOT_FIT = _("This value contradicts other fields.")


@extend_schema_field({"oneOf": [{"type": "string", "format": "date-time"}, {"type": "number"}]})
class LenientMoment(fields.Moment):
    """An RFC 3339 time, or seconds since 1970 that jobs/lenient.py has accepted."""

    default_error_messages = {
        "invalid": _("Use a time such as 2026-01-15T15:00:00Z, or the seconds since 1970."),
    }

    def to_internal_value(self, data: Any) -> datetime:
        if isinstance(data, int | float) and not isinstance(data, bool):
            data = datetime.fromtimestamp(data, UTC).isoformat()
        return super().to_internal_value(data)


class LenientLineSerializer(fields.StrictSerializer):
    """A line that another program wrote. Only `character_id` is required.

    A value beyond a limit is adjusted, and `adjusted` in the result names it.
    """

    # jobs/lenient.py adjusts them before this validation.

    character_id = fields.ExternalId(help_text="Default: the parameter `character_id`.")
    external_id = fields.Text(
        max_length=limits.EXTERNAL_ID_LENGTH,
        required=False,
        allow_null=True,
        help_text="The id in the other program. A second import with it changes nothing. Without "
        "it, each import creates a conversation.",
    )
    title = Title(required=False, allow_null=True)
    created_at = LenientMoment(
        required=False,
        allow_null=True,
        help_text="Default: the earlier of `last_activity` and the present time.",
    )
    last_activity = LenientMoment(
        required=False, allow_null=True, help_text="Default: `created_at`."
    )
    status = fields.Choice(EDITABLE, required=False, allow_null=True)
    pinned = fields.Flag(required=False, allow_null=True)
    settings = LLMSettingsInputSerializer(required=False, allow_null=True)
    tags = Tags(required=False, allow_null=True)
    custom = input_field(FIELDS["custom"], is_patch=False, required=False, allow_null=True)

    def get_fields(self) -> dict[str, Any]:
        return super().get_fields() | plain_fields()


class ExportParameters(fields.Parameters):
    after = Id(required=False, help_text="Continue after this id, the last received one.")


class ImportParameters(fields.Parameters):
    character_id = fields.ExternalId(
        required=False, help_text="The character for lines without `character_id`."
    )


export_parameters = ExportParameters()
import_parameters = ImportParameters()
transferred = TransferredSerializer()
lenient = LenientLineSerializer()
