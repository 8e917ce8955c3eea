"""API documentation for bulk actions."""

from typing import Any

from drf_spectacular.utils import OpenApiResponse, PolymorphicProxySerializer
from rest_framework import serializers

from conversation_service.errors import InvalidCursor
from conversation_service.http.openapi import DetailsField
from conversations.serializers.bulk import BulkSerializer
from conversations.views.openapi.conversations import CHECKED_KEY, X_CLIENT, operation
from conversations.writes.bulk import SAMPLE, STEP


class BulkSummarySerializer(serializers.Serializer):
    matched = serializers.IntegerField(
        help_text="Results for existing conversations; in a dry run with a filter, all "
        "conversations that match."
    )
    ok = serializers.IntegerField(help_text="Updated.")
    skipped = serializers.IntegerField(help_text="Unchanged, because the update has no effect.")
    failed = serializers.IntegerField()


class BulkResultSerializer(serializers.Serializer):
    id = serializers.CharField()
    status = serializers.IntegerField(
        help_text="The status of the same request for this conversation alone."
    )
    code = serializers.CharField(allow_null=True, help_text="The error code, or null.")
    version = serializers.IntegerField(allow_null=True, help_text="The version after the update.")
    message = serializers.CharField(
        required=False,
        help_text="The failure, in the language of Accept-Language. Only with a code.",
    )
    details = DetailsField(
        required=False, help_text="The details of the failure. Only with a code."
    )


class BulkResultsSerializer(serializers.Serializer):
    summary = BulkSummarySerializer()
    results = BulkResultSerializer(many=True, help_text="In the order of the ids.")
    next_cursor = serializers.CharField(
        allow_null=True, help_text="Repeat the request with this as `cursor` until it is null."
    )


class BulkByIdsSerializer(BulkSerializer):
    """Conversations by their ids."""

    def get_fields(self) -> dict[str, Any]:
        fields = super().get_fields()
        del fields["filter"], fields["cursor"]
        fields["ids"].required = True
        return fields


class BulkByFilterSerializer(BulkSerializer):
    """Conversations by the filters of the list, in steps."""

    def get_fields(self) -> dict[str, Any]:
        fields = super().get_fields()
        del fields["ids"]
        fields["filter"].required = True
        return fields


bulk = operation(
    "bulkConversations",
    "Update many conversations",
    tag="bulk actions",
    description="Send up to 100 `ids`, or a `filter` with the parameters of the list. A filter is "
    f"applied in steps of {STEP} conversations. It excludes conversations that are created or "
    "changed after its first step. Each conversation has its own result, with the status and code "
    "of the same request for this conversation alone. A failure does not stop the others. Requests "
    "and steps can be repeated. `dry_run` counts and shows the results and changes nothing; with a "
    f"filter it shows the first {SAMPLE}.",
    request=PolymorphicProxySerializer(
        component_name="Bulk",
        serializers=[BulkByIdsSerializer, BulkByFilterSerializer],
        resource_type_field_name=None,
    ),
    parameters=[X_CLIENT, CHECKED_KEY],
    request_examples={
        "By ids": {"action": "archive", "ids": ["507f1f77bcf86cd799439014"]},
        "By filter": {
            "action": "tag",
            "tags": ["old"],
            "filter": {"activity_before": "2026-01-01T00:00:00Z"},
        },
    },
    responses={200: OpenApiResponse(BulkResultsSerializer, "The result of each conversation.")},
    response_examples={
        "One": {
            "summary": {"matched": 1, "ok": 1, "skipped": 0, "failed": 0},
            "results": [
                {"id": "507f1f77bcf86cd799439014", "status": 200, "code": None, "version": 2}
            ],
            "next_cursor": None,
        }
    },
    failures=[InvalidCursor],
)
