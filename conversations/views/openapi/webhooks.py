"""API documentation for webhooks: how services manage endpoints, and what receivers get."""

from typing import Any

from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers

from conversation_service.http.openapi import response_header
from conversation_service.http.openapi_hooks import SCHEMAS
from conversation_service.outbound.client import Reason
from conversations.events import log
from conversations.views.openapi.conversations import CACHE, FOR_SERVICES, operation
from conversations.webhooks import deliveries
from conversations.webhooks.endpoints import (
    FORMATS,
    REASONS,
    STATES,
    WebhookDisabled,
    WebhookLimitReached,
    WebhookNotFound,
)
from conversations.webhooks.serializers import (
    DeliveriesParameters,
    EnableSerializer,
    EndpointChangesSerializer,
    EndpointSerializer,
    RotationSerializer,
)

_EVENT = {
    "id": "507f1f77bcf86cd799439014_v2",
    "type": log.UPDATED,
    "timestamp": "2026-01-15T15:00:00.000Z",
    "sequence": 7,
    "data": {
        "conversation_id": "507f1f77bcf86cd799439014",
        "user_id": "u-1",
        "version": 2,
        "fields": ["title"],
        "by": "user",
        "client": "web",
        "request_id": "b6a1e7e2",
    },
}
_TEXT = {"type": "string"}
_TYPE = _TEXT | {"description": "As in the other format."}
_CLOUD_EVENT = {
    "type": "object",
    "description": "The same event in the format `cloudevents` (CloudEvents 1.0).",
    "properties": {
        "specversion": {"type": "string", "const": "1.0"},
        "id": _TEXT,
        "source": _TEXT,
        "type": _TYPE,
        "subject": _TEXT | {"description": "The id of the conversation."},
        "time": _TEXT | {"format": "date-time"},
        "sequence": _TEXT | {"description": "The position in the event log, in 20 digits."},
        "datacontenttype": {"type": "string", "const": "application/json"},
        "data": {"$ref": f"{SCHEMAS}EventData"},
    },
    "required": [
        *("specversion", "id", "source", "type", "time", "sequence"),
        *("datacontenttype", "data"),
    ],
}
_HEADERS = {
    "webhook-id": "The id of the event: an event with a known id was delivered before.",
    "webhook-timestamp": "The time of this attempt, in seconds since 1970 (UTC).",
    "webhook-signature": "Signatures `v1,…` separated by spaces, one for each valid secret: "
    "HMAC-SHA256 of id, timestamp and body, joined by dots.",
}


def describe_events(result: dict[str, Any], **_hook: Any) -> dict[str, Any]:
    """Add the request that receivers of webhooks get; a drf-spectacular hook."""
    result["components"]["schemas"]["CloudEvent"] = _CLOUD_EVENT
    result["webhooks"] = {
        "event": {
            "post": {
                "operationId": "receiveEvent",
                "summary": "An event",
                "description": "Sent to each enabled endpoint with the type of the event, at least "
                "once. Events of one conversation arrive in their order. The signature follows "
                "Standard Webhooks.",
                "tags": [FOR_SERVICES],
                "security": [],
                "parameters": [
                    {
                        "name": name,
                        "in": "header",
                        "required": True,
                        "description": description,
                        "schema": _TEXT,
                    }
                    for name, description in _HEADERS.items()
                ],
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/json": {
                            "schema": {"$ref": f"{SCHEMAS}Event"},
                            "examples": {"An edit": {"value": _EVENT}},
                        },
                        "application/cloudevents+json": {
                            "schema": {"$ref": f"{SCHEMAS}CloudEvent"}
                        },
                    },
                },
                "responses": {
                    "2XX": {"description": "The event is delivered."},
                    "410": {"description": "The endpoint is disabled."},
                    "default": {
                        "description": "The attempt is repeated later, after `Retry-After` too. "
                        "A redirect is not followed."
                    },
                },
            }
        }
    }
    return result


class SecretTimesSerializer(serializers.Serializer):
    created_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField(
        allow_null=True, help_text="The end of the secret before the last rotation."
    )


class WebhookSerializer(serializers.Serializer):
    """A webhook endpoint: where events are sent to."""

    id = serializers.RegexField("^we_[0-9a-f]{24}$")
    url = serializers.CharField()
    description = serializers.CharField()
    types = serializers.ListField(child=serializers.CharField(), help_text="Empty: all types.")
    format = serializers.ChoiceField(FORMATS)
    in_flight = serializers.IntegerField(help_text="Concurrent requests at most.")
    state = serializers.ChoiceField(STATES)
    disabled_reason = serializers.ChoiceField(REASONS, allow_null=True)
    disabled_at = serializers.DateTimeField(allow_null=True)
    failing_since = serializers.DateTimeField(
        allow_null=True, help_text="The first failure after the last success."
    )
    last_success_at = serializers.DateTimeField(allow_null=True)
    delivered = serializers.IntegerField(help_text="Events that were delivered.")
    failed = serializers.IntegerField(help_text="Attempts without success.")
    created_at = serializers.DateTimeField()
    created_by = serializers.CharField()
    updated_at = serializers.DateTimeField()
    secrets = SecretTimesSerializer(many=True, help_text="The newest first; both sign.")
    pending_events = serializers.IntegerField(
        help_text="Events of all types after the endpoint's position, without recorded deliveries."
    )
    lost_events = serializers.IntegerField(
        help_text="Events among them that the event log no longer keeps."
    )


class NewWebhookSerializer(WebhookSerializer):
    """An endpoint with its secret, which no later response has."""

    secret = serializers.CharField()


class AttemptSerializer(serializers.Serializer):
    """A request to the endpoint. The body of its reply is not kept."""

    at = serializers.DateTimeField()
    status = serializers.IntegerField(allow_null=True)
    reason = serializers.ChoiceField(
        [*Reason], allow_null=True, help_text="Set without a usable reply."
    )
    duration_ms = serializers.IntegerField()


class DeliverySerializer(serializers.Serializer):
    """A delivery that did not succeed at once, or was requested again."""

    event_id = serializers.CharField()
    type = serializers.CharField()
    conversation_id = serializers.CharField(allow_null=True)
    sequence = serializers.IntegerField(help_text="The position of the event in the log.")
    state = serializers.ChoiceField(
        deliveries.STATES, help_text="`waiting`: behind an earlier event of its conversation."
    )
    is_redelivery = serializers.BooleanField()
    next_at = serializers.DateTimeField(allow_null=True, help_text="The time of the next attempt.")
    created_at = serializers.DateTimeField()
    attempts = AttemptSerializer(many=True, help_text="The newest 50, the oldest first.")


class DeliveryListSerializer(serializers.Serializer):
    deliveries = DeliverySerializer(many=True, help_text="The newest event first.")
    next_before = serializers.IntegerField(
        allow_null=True, help_text="`before` of the next page; null on the last one."
    )


class RedeliverySerializer(serializers.Serializer):
    state = serializers.ChoiceField(deliveries.STATES)


class WebhookTestSerializer(RedeliverySerializer):
    event_id = serializers.CharField()


class WebhookListSerializer(serializers.Serializer):
    webhooks = WebhookSerializer(many=True, help_text="At most 100, the oldest first.")


ID = OpenApiParameter(
    "id", {"type": "string", "pattern": "^we_[0-9a-f]{24}$"}, OpenApiParameter.PATH
)
_LOCATION = response_header("Location", "The path of the endpoint.", 201)
_SCOPE = "Scope `webhooks:manage`."
_ALL = {
    "url": "https://hooks.example.org/conversations",
    "description": "Search index",
    "types": ["conversation.created", "conversation.updated", "conversation.purged"],
    "format": "standard",
    "in_flight": 8,
}


def _on_one(operation_id: str, summary: str, description: str, **options: Any) -> Any:
    return operation(
        operation_id,
        summary,
        description=f"{_SCOPE} {description}".strip(),
        parameters=[ID, CACHE, *options.pop("parameters", [])],
        failures=[WebhookNotFound, *options.pop("failures", [])],
        responses=options.pop("responses", {200: WebhookSerializer}),
        tag=FOR_SERVICES,
        **options,
    )


list_ = operation(
    "listWebhooks",
    "List the webhook endpoints",
    description=_SCOPE,
    parameters=[CACHE],
    responses={200: WebhookListSerializer},
    tag=FOR_SERVICES,
)
create = operation(
    "createWebhook",
    "Create a webhook endpoint",
    description=f"{_SCOPE} It gets the events from now on. The response is the only one with the "
    "secret. A `url` that is not allowed is a 400, in which `code` names the broken rule.",
    request=EndpointSerializer,
    request_examples={"Minimal": {"url": _ALL["url"]}, "All fields": _ALL},
    parameters=[CACHE, _LOCATION],
    failures=[WebhookLimitReached],
    responses={201: NewWebhookSerializer},
    tag=FOR_SERVICES,
)
read = _on_one("getWebhook", "Read a webhook endpoint", "")
change = _on_one(
    "patchWebhook",
    "Change a webhook endpoint",
    "Fields that are not sent stay as they are.",
    request=EndpointChangesSerializer,
    request_examples={"Another address": {"url": _ALL["url"]}},
)
delete = _on_one(
    "deleteWebhook",
    "Delete a webhook endpoint",
    "The records of its deliveries are deleted, too.",
    responses={204: None},
)
rotate = _on_one(
    "rotateWebhookSecret",
    "Replace the secret",
    "The former secret signs for 24 hours more, beside the new one. A secret from before an "
    "earlier rotation ends at once. The response is the only one with the new secret.",
    request=RotationSerializer,
    request_examples={"A generated secret": {}},
    responses={200: NewWebhookSerializer},
)
enable = _on_one(
    "enableWebhook",
    "Enable a webhook endpoint",
    "An enabled endpoint stays as it is.",
    request=EnableSerializer,
    request_examples={"With what it missed": {"from": "cursor"}},
)
disable = _on_one(
    "disableWebhook",
    "Disable a webhook endpoint",
    "It keeps its position in the event log. A disabled endpoint stays as it is.",
    request=None,
)
test = _on_one(
    "testWebhook",
    "Send a test event",
    "The event has the type `webhook.test`, which `types` need not have. It is attempted once; "
    "the list of deliveries shows the result.",
    failures=[WebhookDisabled],
    request=None,
    responses={202: WebhookTestSerializer},
)
list_deliveries = _on_one(
    "listWebhookDeliveries",
    "List the deliveries that did not succeed at once",
    "Finished ones are kept for 30 days.",
    parameters=[DeliveriesParameters],
    responses={200: DeliveryListSerializer},
)
redeliver = _on_one(
    "redeliverWebhook",
    "Deliver an event again",
    "The event has the same id and a new schedule. An event that waits for an earlier one of its "
    "conversation stays behind it.",
    parameters=[OpenApiParameter("event_id", {"type": "string"}, OpenApiParameter.PATH)],
    failures=[deliveries.EventNotFound],
    request=None,
    responses={200: RedeliverySerializer},
)
