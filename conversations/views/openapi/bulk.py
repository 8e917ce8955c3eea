"""How the action on many conversations is documented."""

from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse
from rest_framework import serializers

from conversation_service.errors import (
    InvalidCursor,
    LengthRequired,
    PayloadTooLarge,
    ServiceError,
    UnsupportedMediaType,
)
from conversation_service.http.openapi import failures
from conversations.serializers.bulk import BulkSerializer
from conversations.views.openapi.conversations import X_CLIENT, operation
from conversations.writes.bulk import SAMPLE, STEP


class BulkSummarySerializer(serializers.Serializer):
    matched = serializers.IntegerField(
        help_text="Of the results, those of conversations that are there; in a rehearsal with a "
        "filter, all that match it."
    )
    ok = serializers.IntegerField(help_text="Changed.")
    skipped = serializers.IntegerField(help_text="Nothing to change.")
    failed = serializers.IntegerField()


class BulkResultSerializer(serializers.Serializer):
    id = serializers.CharField()
    status = serializers.IntegerField(help_text="What a call for it alone would answer; 200 if ok.")
    code = serializers.CharField(allow_null=True, help_text="That of the failure.")
    version = serializers.IntegerField(allow_null=True, help_text="After the change.")


class BulkResultsSerializer(serializers.Serializer):
    summary = BulkSummarySerializer()
    results = BulkResultSerializer(many=True, help_text="In the order of the ids.")
    next_cursor = serializers.CharField(
        allow_null=True, help_text="Send the same again with it as `cursor`, until it is null."
    )


bulk: Any = operation(
    "bulkConversations",
    "Do the same with many",
    description="With up to 100 `ids`, or with whatever a `filter` of the list chooses, which "
    f"goes in steps of {STEP}. A run with a filter keeps to what matched when it began: what "
    "arrives or is changed by anyone meanwhile is left alone. Each conversation has its own "
    "result, with the status and code that a call for it alone would have; none stops another. "
    "Repeating a call, or a step, is harmless. `dry_run` tells how many would have which result "
    f"and shows them, with a filter the first {SAMPLE}.",
    request=BulkSerializer,
    parameters=[
        X_CLIENT,
        OpenApiParameter(
            "Idempotency-Key",
            OpenApiTypes.STR,
            OpenApiParameter.HEADER,
            description="Accepted, but not needed: the call may be repeated.",
        ),
    ],
    examples=[
        OpenApiExample(
            "By ids", {"action": "archive", "ids": ["507f1f77bcf86cd799439014"]}, request_only=True
        ),
        OpenApiExample(
            "By filter",
            {
                "action": "tag",
                "tags": ["old"],
                "filter": {"activity_before": "2026-01-01T00:00:00Z"},
            },
            request_only=True,
        ),
    ],
    responses={
        200: OpenApiResponse(
            BulkResultsSerializer,
            "What became of each.",
            [
                OpenApiExample(
                    "One",
                    {
                        "summary": {"matched": 1, "ok": 1, "skipped": 0, "failed": 0},
                        "results": [
                            {
                                "id": "507f1f77bcf86cd799439014",
                                "status": 200,
                                "code": None,
                                "version": 2,
                            }
                        ],
                        "next_cursor": None,
                    },
                    response_only=True,
                )
            ],
        ),
        **failures(
            ServiceError, InvalidCursor, LengthRequired, PayloadTooLarge, UnsupportedMediaType
        ),
    },
)
