"""Serializers for requests from other services."""

from typing import Any

from django.utils.translation import gettext_lazy as _
from rest_framework import serializers

from conversation_service.http import fields
from conversations.documents import DEFAULTS, METADATA
from conversations.limits import MAX_COUNT
from conversations.serializers.fields import imported_field

MAX_IDS = 200
MAX_REPORTS = 500


class AuthorizeSerializer(fields.StrictSerializer):
    user_id = fields.ExternalId()
    ids = fields.List(max_length=MAX_IDS, min_length=1, child=fields.Text(max_length=64))


class ActivitySerializer(fields.StrictSerializer):
    """Totals since the creation. A later report has a higher `sequence`."""

    sequence = fields.Integer(min_value=1, max_value=MAX_COUNT)
    # The owner, for a cluster that is sharded by user. The next release requires it.
    user_id = fields.ExternalId(required=False)

    def get_fields(self) -> dict[str, Any]:
        """Add the metadata fields that the Message service reports."""
        reported = {name: imported_field(METADATA[name]) for name in DEFAULTS["metadata"]}
        return super().get_fields() | reported

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        first, last = attrs["first_message_at"], attrs["last_message_at"]
        if first and last and first > last:
            raise serializers.ValidationError(
                {"first_message_at": _("The first message must not be later than the last one.")},
                code="contradiction",
            )
        return attrs


class ActivityItemSerializer(ActivitySerializer):
    id = fields.Text(max_length=64)


class ActivityBatchSerializer(fields.StrictSerializer):
    items = fields.List(max_length=MAX_REPORTS, min_length=1, child=ActivityItemSerializer())


class ActivityParameters(fields.Parameters):
    on_message = fields.Choice(["keep", "unarchive"], default="keep")


authorize_input = AuthorizeSerializer()
activity_input = ActivitySerializer()
activity_batch_input = ActivityBatchSerializer()
activity_parameters = ActivityParameters()
