"""What other services send."""

from typing import Any

from django.utils.translation import gettext_lazy as _
from rest_framework import serializers

from conversation_service.http.fields import (
    Choice,
    Integer,
    List,
    Moment,
    Parameters,
    StrictSerializer,
    Text,
)
from conversations.limits import MAX_COUNT
from conversations.serializers.conversations import ExternalId

MAX_IDS = 200
MAX_REPORTS = 500


class AuthorizeSerializer(StrictSerializer):
    user_id = ExternalId()
    ids = List(max_length=MAX_IDS, min_length=1, child=Text(max_length=64))


class ActivitySerializer(StrictSerializer):
    """Totals since the beginning, and the number of this report: a later one has a higher."""

    sequence = Integer(min_value=1, max_value=MAX_COUNT)
    message_count = Integer(min_value=0, max_value=MAX_COUNT)
    total_tokens = Integer(min_value=0, max_value=MAX_COUNT)
    total_input_tokens = Integer(min_value=0, max_value=MAX_COUNT)
    total_output_tokens = Integer(min_value=0, max_value=MAX_COUNT)
    first_message_at = Moment(allow_null=True)
    last_message_at = Moment(allow_null=True)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        first, last = attrs["first_message_at"], attrs["last_message_at"]
        if first and last and first > last:
            raise serializers.ValidationError(
                {"first_message_at": _("The first message must not be later than the last one.")}
            )
        return attrs


class ActivityItemSerializer(ActivitySerializer):
    id = Text(max_length=64)


class ActivityBatchSerializer(StrictSerializer):
    items = List(max_length=MAX_REPORTS, min_length=1, child=ActivityItemSerializer())


class ActivityParameters(Parameters):
    on_message = Choice(["keep", "unarchive"], default="keep")


authorize_input = AuthorizeSerializer()
activity_input = ActivitySerializer()
activity_batch_input = ActivityBatchSerializer()
activity_parameters = ActivityParameters()
