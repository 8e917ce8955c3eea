"""Webhook endpoints, to which events are sent. Staff and services manage them.

Each endpoint has its own position in the event log, so a slow endpoint delays no other endpoint.
"""

import secrets as random
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from http import HTTPStatus
from typing import Any, NotRequired, TypedDict, cast

from bson import Int64
from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _
from pymongo import ReturnDocument

from conversation_service import clock
from conversation_service.errors import ServiceError
from conversation_service.mongodb import connection
from conversation_service.mongodb.collections import CollectionSchema, nullable
from conversation_service.mongodb.connection import Document
from conversation_service.outbound.addresses import MAX_URL_LENGTH
from conversations.events import log
from conversations.webhooks import secrets
from conversations.webhooks.secrets import StoredSecret

ENDPOINTS = "webhook_endpoints"

MAX_ENDPOINTS = 100  # each has its own requests in flight
MAX_IN_FLIGHT = 32
IN_FLIGHT = 8
DESCRIPTION_LENGTH = 200

ENABLED, DISABLED = "enabled", "disabled"
STATES = (ENABLED, DISABLED)
STANDARD, CLOUDEVENTS = "standard", "cloudevents"
FORMATS = (STANDARD, CLOUDEVENTS)
# The reasons: no success for schedule.FAILING_FOR, a reply 410, or an action by staff or a service.
FAILING, GONE, STAFF = "failing", "gone", "staff"
REASONS = (FAILING, GONE, STAFF)


class Endpoint(TypedDict):
    """A document in `webhook_endpoints`. Times that are read are naive UTC.

    `cursor` is a position in the event log: each event up to it is delivered, is recorded in
    `webhook_deliveries`, or has a type that the endpoint does not get. Without `types`, the
    endpoint gets all. `delivered` counts events, `failed` counts attempts. `ramp_from` is the time
    when the endpoint was last enabled again: its deliveries then start slowly.
    """

    _id: str
    url: str
    description: str
    types: list[str]
    format: str
    secrets: list[StoredSecret]  # the newest first
    state: str
    disabled_reason: str | None
    disabled_at: datetime | None
    disabled_times: int
    cursor: int
    in_flight: int
    failing_since: datetime | None
    last_success_at: datetime | None
    ramp_from: datetime | None
    delivered: int
    failed: int
    created_at: datetime
    created_by: str
    updated_at: datetime
    lease: NotRequired[dict[str, Any]]  # of the process that delivers, see leases.py
    redeliveries: NotRequired[int]  # redeliveries and tests, which that process notices


_SHOWN = (
    *("url", "description", "types", "format", "in_flight", "state"),
    *("disabled_reason", "disabled_at", "failing_since", "last_success_at"),
    *("delivered", "failed", "created_at", "created_by", "updated_at"),
)


_INTEGER: dict[str, Any] = {"bsonType": ["int", "long"], "minimum": 0}
_SECRET = {
    "bsonType": "object",
    "required": ["secret", "created_at", "expires_at"],
    "properties": {
        "secret": {"bsonType": "string", "pattern": r"^whsec_[A-Za-z0-9+/]{32,86}={0,2}\z"},
        "created_at": {"bsonType": "date"},
        "expires_at": nullable("date"),
    },
}
# Undeclared fields are allowed: a newer release can write them. There are at most MAX_ENDPOINTS
# documents, so no index is needed.
COLLECTION = CollectionSchema(
    ENDPOINTS,
    validator={
        "$jsonSchema": {
            "bsonType": "object",
            # Also the counters and times: the process that delivers to all endpoints reads them.
            "required": sorted(Endpoint.__required_keys__),
            "properties": {
                "_id": {"bsonType": "string", "pattern": r"^we_[0-9a-f]{24}\z"},
                "url": {"bsonType": "string", "minLength": 1, "maxLength": MAX_URL_LENGTH},
                "description": {"bsonType": "string", "maxLength": DESCRIPTION_LENGTH},
                "types": {"bsonType": "array", "items": {"bsonType": "string"}},
                "format": {"bsonType": "string"},
                "secrets": {"bsonType": "array", "minItems": 1, "maxItems": 2, "items": _SECRET},
                "state": {"enum": [*STATES]},
                "disabled_reason": nullable("string"),
                "disabled_at": nullable("date"),
                "disabled_times": _INTEGER,
                "cursor": _INTEGER,
                "in_flight": _INTEGER | {"minimum": 1, "maximum": MAX_IN_FLIGHT},
                "failing_since": nullable("date"),
                "last_success_at": nullable("date"),
                "ramp_from": nullable("date"),
                "delivered": _INTEGER,
                "failed": _INTEGER,
                "created_at": {"bsonType": "date"},
                "created_by": {"bsonType": "string"},
                "updated_at": {"bsonType": "date"},
                "lease": {
                    "bsonType": "object",
                    "required": ["owner", "until"],
                    "properties": {"owner": {"bsonType": "string"}, "until": {"bsonType": "date"}},
                },
            },
        }
    },
)


endpoints = partial(connection.collection, ENDPOINTS)


class WebhookNotFound(ServiceError):
    status = HTTPStatus.NOT_FOUND
    code = "WEBHOOK_NOT_FOUND"
    title = _("Webhook endpoint not found")
    cause = _("No webhook endpoint has this id: it never existed, or it was deleted.")
    remedy = _("Use the id of an endpoint in the list of webhook endpoints.")


class WebhookLimitReached(ServiceError):
    status = HTTPStatus.CONFLICT
    code = "WEBHOOK_LIMIT_REACHED"
    title = format_lazy(_("There are {limit} webhook endpoints already"), limit=MAX_ENDPOINTS)
    cause = _("The service has the maximum number of webhook endpoints.")
    remedy = _("Delete an endpoint that is no longer used.")


class WebhookDisabled(ServiceError):
    status = HTTPStatus.CONFLICT
    code = "WEBHOOK_DISABLED"
    title = _("The webhook endpoint is disabled")
    cause = _("A disabled webhook endpoint sends no events.")
    remedy = _("Enable the endpoint first.")


def resource(endpoint: Endpoint) -> dict[str, Any]:
    """Return an endpoint as the API, the command and the console show it, without its secrets.

    `pending_events` counts the events with any type after its position. `lost_events` counts the
    ones that the event log no longer keeps.
    """
    [shown] = _resources([endpoint])
    return shown


def list_resources() -> list[dict[str, Any]]:
    return _resources(list_all())


def _resources(found: Sequence[Endpoint]) -> list[dict[str, Any]]:
    oldest, newest = log.oldest_seq(), log.newest_seq()
    return [
        {
            "id": endpoint["_id"],
            **{name: endpoint.get(name) for name in _SHOWN},
            "secrets": [
                {"created_at": each["created_at"], "expires_at": each["expires_at"]}
                for each in endpoint["secrets"]
            ],
            "pending_events": max(0, newest - endpoint["cursor"]),
            "lost_events": max(0, oldest - 1 - endpoint["cursor"]),
        }
        for endpoint in found
    ]


def create(values: Mapping[str, Any], *, created_by: str) -> tuple[Endpoint, str]:
    """Create an endpoint for the events from now on; return it and its secret.

    `values` are validated by EndpointSerializer; without `secret`, a new one is generated. Raises
    WebhookLimitReached; concurrent creations can exceed the limit.
    """
    if endpoints().count_documents({}) >= MAX_ENDPOINTS:
        raise WebhookLimitReached
    now = clock.now()
    secret = values.get("secret") or secrets.generate()
    endpoint: Endpoint = {
        "_id": f"we_{random.token_hex(12)}",
        "url": values["url"],
        "description": values.get("description", ""),
        "types": values.get("types", []),
        "format": values.get("format", STANDARD),
        "secrets": [{"secret": secret, "created_at": now, "expires_at": None}],
        "state": ENABLED,
        "disabled_reason": None,
        "disabled_at": None,
        "disabled_times": 0,
        "cursor": Int64(log.newest_seq()),
        "in_flight": values.get("in_flight", IN_FLIGHT),
        "failing_since": None,
        "last_success_at": None,
        "ramp_from": None,
        "delivered": Int64(0),
        "failed": Int64(0),
        "created_at": now,
        "created_by": created_by,
        "updated_at": now,
    }
    endpoints().insert_one(cast(Document, endpoint))
    return endpoint, secret


def get(endpoint_id: str) -> Endpoint:
    """Raises WebhookNotFound."""
    return _found(endpoints().find_one({"_id": endpoint_id}))


def list_all() -> list[Endpoint]:
    """Return all endpoints, the oldest first."""
    return cast(list[Endpoint], endpoints().find(sort=[("created_at", 1), ("_id", 1)]).to_list())


def change(endpoint_id: str, values: Mapping[str, Any]) -> Endpoint:
    """Set fields, and return the endpoint. Raises WebhookNotFound.

    `values` are validated by EndpointChangesSerializer.
    """
    return _update({"_id": endpoint_id}, values)


def rotate_secret(endpoint_id: str, secret: str | None = None) -> tuple[Endpoint, str]:
    """Replace the secret; return the endpoint and the new secret. Raises WebhookNotFound.

    The former secret stays valid for secrets.ROTATION. An older secret ends at once.
    """
    now = clock.now()
    new = secret or secrets.generate()
    fresh = {"secret": new, "created_at": now, "expires_at": None}
    former = {"$mergeObjects": [{"$first": "$secrets"}, {"expires_at": now + secrets.ROTATION}]}
    both = {"$concatArrays": [{"$literal": [fresh]}, [former]]}
    found = endpoints().find_one_and_update(
        {"_id": endpoint_id},
        [{"$set": {"secrets": both, "updated_at": now}}],
        return_document=ReturnDocument.AFTER,
    )
    return _found(found), new


def enable(endpoint_id: str, *, from_now: bool) -> Endpoint:
    """Enable an endpoint for deliveries.enable(), which also handles its outstanding deliveries."""
    values: dict[str, Any] = {
        "state": ENABLED,
        "disabled_reason": None,
        "disabled_at": None,
        "failing_since": None,
        "ramp_from": clock.now(),
    }
    if from_now:
        values["cursor"] = Int64(log.newest_seq())
    return _update({"_id": endpoint_id, "state": DISABLED}, values)


def disable(endpoint_id: str, reason: str, *, by: str, times: int | None = None) -> Endpoint:
    """Disable an endpoint, which keeps its position, and publish webhook.disabled.

    `reason` is in REASONS. A disabled endpoint stays as it is. With `times`, so does an endpoint
    that was disabled and enabled meanwhile: its `disabled_times` differ. Raises WebhookNotFound.
    """
    endpoint = get(endpoint_id)
    while endpoint["state"] == ENABLED and times in {None, endpoint["disabled_times"]}:
        endpoint = _disable(endpoint, reason, by=by)
    return endpoint


def _disable(endpoint: Endpoint, reason: str, *, by: str) -> Endpoint:
    """Disable an endpoint unless it has changed its state; return it afterwards."""
    # First the event: after a crash between the two, its id makes a repetition harmless.
    endpoint_id = endpoint["_id"]
    times = endpoint["disabled_times"] + 1
    now = clock.now()
    id_ = f"{endpoint_id}_disabled_{times}"
    log.append([log.webhook_event(id_, log.WEBHOOK_DISABLED, now, by=by)])
    values = {
        "state": DISABLED,
        "disabled_reason": reason,
        "disabled_at": now,
        "disabled_times": times,
    }
    return _update({"_id": endpoint_id, "state": ENABLED, "disabled_times": times - 1}, values)


def live_secrets(endpoint: Endpoint) -> list[str]:
    """Return the secrets that sign now, the newest first."""
    now = clock.naive_now()
    return [
        each["secret"]
        for each in endpoint["secrets"]
        if each["expires_at"] is None or each["expires_at"] > now
    ]


def _update(where: Mapping[str, Any], values: Mapping[str, Any]) -> Endpoint:
    """Return the endpoint after the update; if only its state does not match, as it is."""
    changed = endpoints().find_one_and_update(
        where,
        {"$set": {**values, "updated_at": clock.now()}},
        return_document=ReturnDocument.AFTER,
    )
    return cast(Endpoint, changed) if changed else get(where["_id"])


def _found(document: Document | None) -> Endpoint:
    if document is None:
        raise WebhookNotFound
    return cast(Endpoint, document)
