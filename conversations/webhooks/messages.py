"""An event's body, in the two formats that an endpoint can choose."""

from typing import Any

from django.conf import settings

from conversation_service.http import rendering
from conversations.events import log
from conversations.webhooks.endpoints import CLOUDEVENTS, STANDARD

CONTENT_TYPES = {STANDARD: "application/json", CLOUDEVENTS: "application/cloudevents+json"}


def body(event: log.Event, format: str) -> bytes:  # noqa: A002 - the stored name
    """Return the same bytes for each call with the same event and format."""
    payload = log.payload(event)
    return rendering.dumps(cloud_event(payload) if format == CLOUDEVENTS else payload)


def cloud_event(payload: dict[str, Any]) -> dict[str, Any]:
    """Return the event in the structured mode that CloudEvents 1.0 defines."""
    subject = payload["data"]["conversation_id"]
    return {
        "specversion": "1.0",
        "id": payload["id"],
        "source": f"/{settings.SERVICE_NAME}",
        "type": payload["type"],
        **({"subject": subject} if subject else {}),
        "time": payload["timestamp"],
        # The extension "sequence" is a text: with 20 digits, it sorts in the log's order.
        "sequence": f"{payload['sequence']:020}",
        "datacontenttype": "application/json",
        "data": payload["data"],
    }
