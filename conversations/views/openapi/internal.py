"""API documentation for other services."""

from typing import Any

from drf_spectacular.utils import (
    OpenApiExample,
    extend_schema,
    extend_schema_serializer,
)
from rest_framework import serializers

from conversation_service.errors import (
    InsufficientPermissions,
    LengthRequired,
    PayloadTooLarge,
    ServiceError,
    UnsupportedMediaType,
)
from conversation_service.http.fields import StrictSerializer
from conversation_service.http.openapi import COMMON, failures
from conversations import documents
from conversations.exceptions import ConversationNotFound
from conversations.serializers.internal import (
    ActivityBatchSerializer,
    ActivityParameters,
    ActivitySerializer,
    AuthorizeSerializer,
)
from conversations.states import ANY_STATE, WRITABLE
from conversations.views.openapi.conversations import (
    ACCEPT_POST,
    ID,
    REFUSED_BODY,
    FaultSerializer,
    MetadataSerializer,
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


class AuthorizationSerializer(serializers.Serializer):
    results = AccessSerializer(many=True, help_text="In the order of the ids.")


class ReportedSerializer(serializers.Serializer):
    applied = serializers.BooleanField(
        help_text="False if a later report, or this one, is already stored."
    )
    sequence = serializers.IntegerField(help_text="The sequence of the stored report.")
    metadata = MetadataSerializer()


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
_FAILURES = (
    ServiceError,
    InsufficientPermissions,
    LengthRequired,
    PayloadTooLarge,
    UnsupportedMediaType,
)


def _operation(operation_id: str, summary: str, **schema: Any) -> Any:
    parameters = [*COMMON, *schema.pop("parameters", [])]
    return extend_schema(
        operation_id=operation_id,
        summary=summary,
        tags=["for other services"],
        parameters=parameters,
        **schema,
    )


authorize = _operation(
    "authorize",
    "Check access to conversations",
    description="Scope `conversations:authorize`. Only active conversations are writable.",
    request=AuthorizeSerializer,
    parameters=ACCEPT_POST,
    examples=[
        OpenApiExample(
            "One", {"user_id": "u-1", "ids": ["507f1f77bcf86cd799439014"]}, request_only=True
        )
    ],
    responses={200: AuthorizationSerializer, **failures(*_FAILURES)},
)
activity = _operation(
    "putActivity",
    "Report the totals of a conversation",
    description="Scope `conversations:activity`. Totals are absolute. A report with a `sequence` "
    "that is not higher than the stored one changes nothing. `last_activity` becomes the "
    "`last_message_at` of the latest report, but never a time before `created_at`. A time more "
    "than 5 minutes ahead of the clock of the service is rejected.",
    request=ActivitySerializer,
    parameters=[ID, ActivityParameters, *REFUSED_BODY],
    examples=[OpenApiExample("A report", _REPORT, request_only=True)],
    responses={200: ReportedSerializer, **failures(*_FAILURES, ConversationNotFound)},
)
activity_batch = _operation(
    "postActivity",
    "Report the totals of up to 500 conversations",
    description="Like the report of one conversation. An unknown id is a 404 and a time in the "
    "future a 400 in its own result. The other reports are applied.",
    request=ActivityBatchSerializer,
    parameters=ACCEPT_POST,
    examples=[
        OpenApiExample(
            "One", {"items": [{"id": "507f1f77bcf86cd799439014", **_REPORT}]}, request_only=True
        )
    ],
    responses={200: OutcomesSerializer, **failures(*_FAILURES)},
)
