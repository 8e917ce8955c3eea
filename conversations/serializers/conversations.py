"""Serializers for requests on conversations. They validate without the database."""

from collections.abc import Mapping
from typing import Any

from django.core.validators import RegexValidator
from django.utils.translation import gettext_lazy as _
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail

from conversation_service.http import fields
from conversations import limits
from conversations.documents import (
    FIELDS,
    PLAIN_FIELDS,
    REVERTIBLE_FIELDS,
    SETTINGS,
    WITH_CEILING,
    ceiling,
)
from conversations.exceptions import too_high
from conversations.serializers.fields import input_field
from conversations.states import EDITABLE
from conversations.words import tag_key

_TAG_RULE = _("Use printable characters in a tag, without commas and line breaks.")
_NO_COMMA = RegexValidator(r"^[^,]*\Z", _TAG_RULE, "comma")


class Title(fields.VisibleLine):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=limits.TITLE_LENGTH, joins_lines=True, **kwargs)


class Tag(fields.VisibleLine):
    """A tag. A line break is rejected, because it can separate two tags."""

    default_error_messages = {"control": _TAG_RULE}

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            max_length=limits.TAG_LENGTH,
            cache_size=1_000,  # users repeat their tags; DRF validates one in 20 µs
            validators=[_NO_COMMA],
            **kwargs,
        )


class Tags(fields.List):
    """Tags without repetition. Of tags that differ only in case or width, the first stays."""

    def __init__(self, *, allow_invisible: bool = False, **kwargs: Any) -> None:
        tag = Tag(allow_invisible=allow_invisible)
        super().__init__(max_length=limits.TAGS, child=tag, unique_by=tag_key, **kwargs)


class LLMSettingsInputSerializer(fields.StrictSerializer):
    """How the character's language model runs. A null restores the default."""

    def get_fields(self) -> dict[str, Any]:
        return {
            name: input_field(setting, required=False, allow_null=True)
            for name, setting in SETTINGS.items()
        }


def within_ceilings(sent: Mapping[str, Any]) -> None:
    """Reject values that can be stored, but that users cannot set for this model."""
    errors = {}
    for name in WITH_CEILING:
        if (value := sent.get(name)) is None:
            continue
        most = ceiling(name, sent.get("model"))
        if most is not None and value > most:
            errors[name] = ErrorDetail(too_high(most), code="max_value")
    if errors:
        raise serializers.ValidationError(errors)


def plain_fields() -> dict[str, Any]:
    return {
        name: input_field(FIELDS[name], required=False, allow_null=True) for name in PLAIN_FIELDS
    }


class CreateSerializer(fields.StrictSerializer):
    """A new conversation. Absent fields get their defaults."""

    character_id = fields.ExternalId()
    title = Title(required=False, allow_null=True)
    settings = LLMSettingsInputSerializer(
        validators=[within_ceilings], required=False, allow_null=True
    )
    tags = Tags(required=False, allow_null=True)
    custom = input_field(FIELDS["custom"], required=False, allow_null=True)

    def get_fields(self) -> dict[str, Any]:
        return super().get_fields() | plain_fields()


class PatchSerializer(fields.StrictSerializer):
    """A JSON merge patch (RFC 7396). `tags_add` and `tags_remove` never conflict."""

    title = Title(required=False)
    settings = LLMSettingsInputSerializer(required=False, allow_null=True)
    tags = Tags(required=False, allow_null=True)
    tags_add = Tags(required=False)
    tags_remove = Tags(required=False)
    custom = input_field(FIELDS["custom"], required=False, allow_null=True)
    pinned = fields.Flag(required=False)
    status = fields.Choice(EDITABLE, required=False)

    def get_fields(self) -> dict[str, Any]:
        return super().get_fields() | plain_fields()

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if "tags" in attrs and attrs.keys() & {"tags_add", "tags_remove"}:
            raise serializers.ValidationError(
                {"tags": _("Send either tags, or tags_add and tags_remove.")}, code="contradiction"
            )
        return attrs


class CreateParameters(fields.Parameters):
    get_or_create = fields.Choice(
        ["character"],
        required=False,
        help_text="Return 200 and my latest active conversation with this character, if it exists.",
    )


class RetrieveParameters(fields.Parameters):
    include = fields.Choice(
        ["character"],
        required=False,
        help_text="Add `character`: id, name and description, or null if it is not available.",
    )
    as_of = fields.IntegerParameter(
        min_value=1, required=False, help_text="A former version, with the present counters."
    )


class DuplicateSerializer(fields.StrictSerializer):
    title = Title(required=False, allow_null=True)


class HistoryParameters(fields.Parameters):
    limit = fields.IntegerParameter(min_value=1, max_value=limits.REVISIONS, default=20)
    cursor = fields.Text(max_length=limits.CURSOR_LENGTH, required=False)


class RevertSerializer(fields.StrictSerializer):
    version = fields.Integer(min_value=1, help_text="The version to restore values from.")
    fields_ = fields.List(
        max_length=len(REVERTIBLE_FIELDS), min_length=1, child=fields.Choice(REVERTIBLE_FIELDS)
    )


class TagsParameters(fields.Parameters):
    prefix = fields.Line(
        max_length=limits.TAG_LENGTH,
        allow_blank=True,
        default="",
        help_text="Tags that contain, for each given word, a word starting with it. Case, accents "
        "and width are ignored.",
    )
    limit = fields.IntegerParameter(min_value=1, max_value=limits.MAX_TAGS_LISTED, default=50)


class DeleteParameters(fields.Parameters):
    mode = fields.Choice(["trash", "purge"], default="trash")


no_parameters = fields.Parameters()
no_fields = fields.StrictSerializer()
delete_parameters = DeleteParameters()
create_parameters = CreateParameters()
retrieve_parameters = RetrieveParameters()
history_parameters = HistoryParameters()
tags_parameters = TagsParameters()
create_input = CreateSerializer()
duplicate_input = DuplicateSerializer()
revert_input = RevertSerializer()
patch_input = PatchSerializer()
