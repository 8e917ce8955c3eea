"""How the change feed is documented."""

from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    PolymorphicProxySerializer,
    extend_schema_field,
)
from rest_framework import serializers

from conversation_service.errors import InvalidCursor, ServiceError
from conversation_service.http.event_stream import MEDIA_TYPE
from conversation_service.http.openapi import failures, response_header
from conversations.exceptions import ChangesCursorExpired, StreamsExhausted
from conversations.queries.feed import GONE, UPSERT
from conversations.serializers.changes import ChangesParameters
from conversations.serializers.fields import OBJECT_ID
from conversations.views.openapi.conversations import (
    EXAMPLE,
    ConversationSerializer,
    operation,
)


class UpsertSerializer(serializers.Serializer):
    """A conversation that is new or has changed, as it is now."""

    type = serializers.ChoiceField([UPSERT])
    conversation = ConversationSerializer()


class DeletedSerializer(serializers.Serializer):
    """A conversation that is gone for good; what is in the trash is an upsert."""

    type = serializers.ChoiceField([GONE])
    id = serializers.RegexField(OBJECT_ID)
    deleted_at = serializers.DateTimeField()


_CHANGE = PolymorphicProxySerializer(
    component_name="Change",
    serializers=[UpsertSerializer, DeletedSerializer],
    resource_type_field_name=None,
)


@extend_schema_field(_CHANGE)
class ChangeField(serializers.JSONField):
    pass


class ChangesSerializer(serializers.Serializer):
    changes = serializers.ListField(child=ChangeField(), help_text="The oldest first.")
    next_cursor = serializers.CharField(help_text="Where to go on, now or at any time later.")
    has_more = serializers.BooleanField(help_text="Whether to go on at once.")


_EXAMPLE = OpenApiExample(
    "One renamed, one purged",
    {
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
    },
    response_only=True,
    media_type="application/json",
)

changes: Any = operation(
    "getChanges",
    "What changed",
    description="The conversations of mine that changed since a cursor, in the order of their "
    "last change, each as it is now: of several changes you see the last. One that is gone for "
    "good is a `deleted`. Follow `next_cursor` while `has_more`; then keep it and ask again "
    "later, with `wait` to be answered as soon as there is something. You may be sent a change "
    "twice, and you miss none. Without a cursor, all that there is comes first.\n\n"
    "With `Accept: text/event-stream` the answer is a stream: an event `change` for each, whose "
    "data is an element of `changes` and whose id is the cursor behind it, and a comment now and "
    "then to keep the connection. It ends after some minutes, when your token expires, or when "
    "we restart: connect again with `Last-Event-ID`.\n\n"
    "A cursor that is older than what is remembered of purged ones is refused with 410; "
    "`error.details.snapshot_cursor` begins anew: forget all that you have then.",
    parameters=[
        ChangesParameters,
        OpenApiParameter(
            "Last-Event-ID",
            OpenApiTypes.STR,
            OpenApiParameter.HEADER,
            description="Of a stream: the id of the last event, instead of `cursor`.",
        ),
        OpenApiParameter(
            "If-None-Match",
            OpenApiTypes.STR,
            OpenApiParameter.HEADER,
            description="The ETag of your last answer: 304 if it would be the same.",
        ),
        response_header("ETag", "Of the content, weak; not of a stream.", 304),
        response_header("Cache-Control", "`private`, and either `no-cache` or `no-store`.", 200),
    ],
    responses={
        (200, "application/json"): OpenApiResponse(ChangesSerializer, "Changes.", [_EXAMPLE]),
        (200, MEDIA_TYPE): OpenApiResponse(OpenApiTypes.STR, "Events."),
        304: OpenApiResponse(description="It would be what you have."),
        **failures(ServiceError, InvalidCursor, ChangesCursorExpired, StreamsExhausted),
    },
)
