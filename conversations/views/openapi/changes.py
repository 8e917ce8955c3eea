"""API documentation for the change feed."""

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, PolymorphicProxySerializer
from rest_framework import serializers

from conversation_service.errors import InvalidCursor
from conversation_service.http.event_stream import MEDIA_TYPE
from conversation_service.http.openapi import request_header, response_header
from conversations.exceptions import ChangesCursorExpired, StreamsExhausted
from conversations.queries.feed import GONE, UPSERT
from conversations.serializers.changes import ChangesParameters
from conversations.serializers.fields import OBJECT_ID
from conversations.views.openapi.conversations import (
    EXAMPLE,
    IF_NONE_MATCH,
    ConversationSerializer,
    operation,
)


class UpsertSerializer(serializers.Serializer):
    """A new or changed conversation, as it is now."""

    type = serializers.ChoiceField([UPSERT])
    conversation = ConversationSerializer()


class DeletedSerializer(serializers.Serializer):
    """A purged conversation. A conversation in the trash is an upsert."""

    type = serializers.ChoiceField([GONE])
    id = serializers.RegexField(OBJECT_ID)
    deleted_at = serializers.DateTimeField()


class ChangePageSerializer(serializers.Serializer):
    changes = PolymorphicProxySerializer(
        component_name="Change",
        serializers=[UpsertSerializer, DeletedSerializer],
        resource_type_field_name=None,
        many=True,
        help_text="The oldest first.",
    )
    next_cursor = serializers.CharField(help_text="The cursor of the next request.")
    has_more = serializers.BooleanField(help_text="True if the next page already has changes.")


changes = operation(
    "getChanges",
    "Follow the changes",
    tag="sync",
    description="My conversations that changed since a cursor, in the order of their last "
    "change, each as it is now. Several changes of a conversation appear once. A purged "
    "conversation is a `deleted`. Follow `next_cursor` while `has_more` is true. Then keep it for "
    "the next request; with `wait`, the response comes as soon as there is a change. A change can "
    "be sent twice and is never lost. Without a cursor, the feed starts with all conversations.\n\n"
    "With `Accept: text/event-stream` the response is a stream. Each event `change` has an element "
    "of `changes` as data and the cursor after it as id. Comments keep the connection open. The "
    "stream ends after some minutes, when the token expires, or when the service restarts: connect "
    "again with `Last-Event-ID`.\n\n"
    "A cursor is rejected with 410 if tombstones since then have expired. Remove all local data "
    "and continue with `error.details.snapshot_cursor`.",
    parameters=[
        ChangesParameters,
        request_header(
            "Last-Event-ID", "For a stream, instead of `cursor`: the id of the last event."
        ),
        IF_NONE_MATCH,
        response_header("ETag", "Weak, of the content; a stream has none.", 304),
        response_header("Cache-Control", "`private`, and either `no-cache` or `no-store`.", 200),
    ],
    responses={
        (200, "application/json"): OpenApiResponse(ChangePageSerializer, "Changes."),
        (200, MEDIA_TYPE): OpenApiResponse(OpenApiTypes.STR, "Events."),
        304: OpenApiResponse(description="The page has not changed."),
    },
    response_examples={
        "One renamed, one purged": {
            "changes": [
                {"type": UPSERT, "conversation": EXAMPLE},
                {
                    "type": GONE,
                    "id": "507f1f77bcf86cd799439015",
                    "deleted_at": "2026-01-15T15:01:00.000Z",
                },
            ],
            "next_cursor": "WzE3Njg0OTA5NDAwMDAsIiJd.c2lnbmF0dXJl",
            "has_more": False,
        }
    },
    failures=[InvalidCursor, ChangesCursorExpired, StreamsExhausted],
)
