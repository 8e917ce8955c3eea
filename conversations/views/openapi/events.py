"""API documentation for the event log."""

from rest_framework import serializers

from conversation_service.errors import InvalidCursor
from conversation_service.http.fields import StrictSerializer
from conversations.events.log import RESYNC, TRASHED, TYPES, UPDATED, WEBHOOK_TEST
from conversations.events.serializers import EventsParameters
from conversations.exceptions import EventsCursorExpired, StreamsExhausted
from conversations.serializers.fields import OBJECT_ID
from conversations.views.openapi.conversations import FOR_SERVICES, operation


class EventDataSerializer(StrictSerializer):
    conversation_id = serializers.RegexField(
        OBJECT_ID, allow_null=True, help_text="Null in a webhook.disabled, as the next two are."
    )
    user_id = serializers.CharField(allow_null=True)
    version = serializers.IntegerField(
        allow_null=True, help_text="After the change; null for a purge and for activity."
    )
    fields_ = serializers.ListField(
        child=serializers.CharField(),
        help_text="The paths that an edit changed, such as `settings.temperature`.",
    )
    by = serializers.CharField(help_text="The actor, as in the history.")
    client = serializers.CharField(allow_null=True)
    request_id = serializers.CharField(help_text="Empty if unknown.")
    first_missed_version = serializers.IntegerField(
        required=False, help_text=f"Only in a {RESYNC}, as the next one is."
    )
    last_missed_version = serializers.IntegerField(required=False)


class EventSerializer(serializers.Serializer):
    """A change of a conversation, without titles and content."""

    id = serializers.CharField(
        help_text="Follows from the change: a repetition of the event has the same id."
    )
    type = serializers.ChoiceField([*TYPES, WEBHOOK_TEST])
    timestamp = serializers.DateTimeField(help_text="When the change was made.")
    sequence = serializers.IntegerField(
        min_value=1, help_text="The position in the log. Positions have no gaps."
    )
    data = EventDataSerializer()  # type: ignore[assignment]


class EventPageSerializer(serializers.Serializer):
    data = EventSerializer(many=True, help_text="The oldest first.")  # type: ignore[assignment]
    next_cursor = serializers.CharField(help_text="The cursor of the next request.")
    has_more = serializers.BooleanField(help_text="True if the next page already has events.")


_ID = "507f1f77bcf86cd799439014"
_DATA = {"conversation_id": _ID, "user_id": "u-1", "version": 7, "fields": ["title"]}
_ACTOR = {"by": "user", "client": "web/2.4", "request_id": "r-1"}
_EVENT = {
    "id": f"{_ID}_v7",
    "type": UPDATED,
    "timestamp": "2026-01-15T15:00:00.000Z",
    "sequence": 1042,
    "data": _DATA | _ACTOR,
}

events = operation(
    "getEvents",
    "Follow the changes of all conversations",
    tag=FOR_SERVICES,
    description="Scope `events:read`. Each change of a conversation of any user, in the order of "
    "the log; the versions of a conversation are in order. Follow `next_cursor` while `has_more` "
    "is true. Then keep it for the next request; with `wait`, the response comes as soon as there "
    "is an event. An event has no title and no content: read the conversation if you need them.\n\n"
    f"A {RESYNC} replaces events of versions that are no longer known.\n\n"
    "A cursor is rejected with 410 if events since then have expired (EVENTS_KEEP_DAYS).",
    parameters=[EventsParameters],
    responses={200: EventPageSerializer},
    response_examples={
        "A new title": {
            "data": [_EVENT],
            "next_cursor": "WzEwNDJd.c2lnbmF0dXJl",
            "has_more": False,
        },
        "Trashed": {
            "data": [
                _EVENT
                | {
                    "id": f"{_ID}_v8",
                    "type": TRASHED,
                    "sequence": 1043,
                    "data": _DATA
                    | _ACTOR
                    | {"version": 8, "fields": ["status", "deleted_at", "purge_at"]},
                }
            ],
            "next_cursor": "WzEwNDNd.c2lnbmF0dXJl",
            "has_more": False,
        },
    },
    failures=[InvalidCursor, EventsCursorExpired, StreamsExhausted],
)
