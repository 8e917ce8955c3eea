"""The parameters of requests for events."""

from conversation_service.http import fields
from conversations import limits
from conversations.events.log import TYPES
from conversations.serializers.changes import ChangesParameters


class EventsParameters(ChangesParameters):
    cursor = fields.Text(
        max_length=limits.CURSOR_LENGTH,
        required=False,
        help_text="`next_cursor` of a page. Without a cursor, the oldest event that is kept is the "
        "first.",
    )
    types = fields.CommaSeparated(
        child=fields.Choice([*TYPES]),
        max_length=len(TYPES),
        required=False,
        help_text="Only these types: `a,b`, or a repeated parameter.",
    )


events_parameters = EventsParameters()
