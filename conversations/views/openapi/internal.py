"""API documentation for other services."""

from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers

from conversation_service.http.fields import StrictSerializer
from conversation_service.http.openapi import FaultSerializer
from conversations import documents
from conversations.serializers.internal import (
    ActivityBatchSerializer,
    ActivityParameters,
    ActivitySerializer,
    AuthorizeSerializer,
)
from conversations.states import ANY_STATE, WRITABLE
from conversations.views.openapi.conversations import (
    FOR_SERVICES,
    ID,
    ConversationMetadataSerializer,
    LLMSettingsSerializer,
    operation,
)

REASONS = ["not_found", "not_owner", *(state for state in ANY_STATE if state not in WRITABLE)]


@extend_schema_serializer(component_name="Verdict")  # codespell:ignore verdict
class AccessSerializer(serializers.Serializer):
    id = serializers.CharField()
    exists = serializers.BooleanField()
    owner = serializers.BooleanField()
    status = serializers.ChoiceField(ANY_STATE, allow_null=True)
    writable = serializers.BooleanField(help_text="True if the conversation accepts messages.")
    reason = serializers.ChoiceField(
        REASONS, allow_null=True, help_text="The reason if it is not writable."
    )
    settings = LLMSettingsSerializer(
        allow_null=True,
        help_text="Within the present ceilings of the model. Null if the user is not the owner, "
        "as are the next two.",
    )
    settings_given = serializers.ListField(
        child=serializers.CharField(),
        allow_null=True,
        help_text="The names of the settings that the user set. Omit the others in requests to a "
        "provider that rejects them.",
    )
    clamped = serializers.ListField(
        child=serializers.CharField(),
        allow_null=True,
        help_text="The names of the settings with stored values above the ceilings.",
    )


class AuthorizationSerializer(serializers.Serializer):
    results = AccessSerializer(many=True, help_text="In the order of the ids.")


class ReportedSerializer(serializers.Serializer):
    applied = serializers.BooleanField(
        help_text="False if a later report, or this one, is already stored."
    )
    sequence = serializers.IntegerField(help_text="The sequence of the stored report.")
    metadata = ConversationMetadataSerializer()


class OutcomeSerializer(StrictSerializer):
    id = serializers.CharField()
    status = serializers.ChoiceField([200, 400, 404])
    applied = serializers.BooleanField()
    code = serializers.CharField(required=False, help_text="The error code, with status 400 only.")
    errors_ = FaultSerializer(
        many=True, required=False, help_text="The rejected times, with status 400 only."
    )


class OutcomesSerializer(serializers.Serializer):
    results = OutcomeSerializer(many=True, help_text="In the order of the items.")


_TIMES = ["2026-01-15T15:00:00.000Z", "2026-01-15T16:30:00.000Z"]
_REPORT = {
    "sequence": 12,
    **dict(zip(documents.DEFAULTS["metadata"], [15, 1250, 600, 650, *_TIMES], strict=True)),
}


authorize = operation(
    "authorize",
    "Check access to conversations",
    description="Scope `conversations:authorize`. Only active conversations are writable.",
    request=AuthorizeSerializer,
    request_examples={"One": {"user_id": "u-1", "ids": ["507f1f77bcf86cd799439014"]}},
    responses={200: AuthorizationSerializer},
    tag=FOR_SERVICES,
)
activity = operation(
    "putActivity",
    "Report the totals of a conversation",
    description="Scope `conversations:activity`. Totals are absolute. A report with a `sequence` "
    "that is not higher than the stored one changes nothing. `last_activity` becomes the "
    "`last_message_at` of the latest report, but never a time before `created_at`. A time more "
    "than 5 minutes ahead of the clock of the service is rejected. A report with the `user_id` of "
    "another user is a 404. The next release requires `user_id`.",
    request=ActivitySerializer,
    parameters=[ID, ActivityParameters],
    request_examples={"A report": _REPORT},
    responses={200: ReportedSerializer},
    tag=FOR_SERVICES,
)
activity_batch = operation(
    "postActivity",
    "Report the totals of up to 500 conversations",
    description="Like the report of one conversation. An unknown id is a 404 and a time in the "
    "future a 400 in its own result. The other reports are applied.",
    request=ActivityBatchSerializer,
    request_examples={"One": {"items": [{"id": "507f1f77bcf86cd799439014", **_REPORT}]}},
    responses={200: OutcomesSerializer},
    tag=FOR_SERVICES,
)
