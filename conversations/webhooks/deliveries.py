"""The deliveries that did not succeed at once: the collection `webhook_deliveries`.

A record has the body that every attempt sends. An outstanding record is "pending", or "waiting"
behind an earlier event in its conversation. Only the process that delivers to the endpoint writes
its records, except in redeliver(), send_test() and enable(). MongoDB deletes finished records after
KEPT, and keeps outstanding records, so that no event is lost.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from http import HTTPStatus
from secrets import token_hex
from typing import Any, NamedTuple

from bson import Int64, ObjectId
from django.utils.translation import gettext_lazy as _
from pymongo import DESCENDING, IndexModel, UpdateOne

from conversation_service.clock import naive_now
from conversation_service.errors import ServiceError
from conversation_service.mongodb import connection
from conversation_service.mongodb.collections import CollectionSchema, nullable
from conversation_service.mongodb.connection import Document
from conversations.events import log
from conversations.webhooks import endpoints, messages, schedule
from conversations.webhooks.endpoints import Endpoint, WebhookDisabled, WebhookNotFound

DELIVERIES = "webhook_deliveries"
PENDING, WAITING, DELIVERED, FAILED = "pending", "waiting", "delivered", "failed"
STATES = (PENDING, WAITING, DELIVERED, FAILED)
OUTSTANDING = (PENDING, WAITING)
KEPT = timedelta(days=30)
ATTEMPTS_KEPT = 50  # in a record: the newest attempts
_DUE = "delivery_due"
_ORDER = "delivery_order"
_LIST = "delivery_list"

COLLECTION = CollectionSchema(
    DELIVERIES,
    indexes=[
        IndexModel(["endpoint_id", "state", "next_at"], name=_DUE),
        IndexModel(["endpoint_id", "conversation_id", "seq"], name=_ORDER),
        IndexModel(["endpoint_id", ("seq", DESCENDING)], name=_LIST),
        IndexModel(["expires_at"], name="delivery_expiry", expireAfterSeconds=0),
    ],
    # Undeclared fields are allowed: a newer release can write them.
    validator={
        "$jsonSchema": {
            "bsonType": "object",
            "required": [
                *("_id", "endpoint_id", "event_id", "conversation_id", "seq", "type", "format"),
                *("body", "state", "is_redelivery", "tries", "next_at", "attempts", "created_at"),
            ],
            "properties": {
                "_id": {"bsonType": "string"},
                "endpoint_id": {"bsonType": "string"},
                "event_id": {"bsonType": "string"},
                "conversation_id": nullable("objectId"),
                "seq": {"bsonType": "long", "minimum": 1},
                "type": {"bsonType": "string"},
                "format": {"bsonType": "string"},
                "body": {"bsonType": "binData"},
                "state": {"enum": [*STATES]},
                "is_redelivery": {"bsonType": "bool"},
                "tries": {"bsonType": "int", "minimum": 0},
                "next_at": nullable("date"),
                "attempts": {"bsonType": "array", "maxItems": ATTEMPTS_KEPT},
                "created_at": {"bsonType": "date"},
                "expires_at": nullable("date"),
            },
        }
    },
)

collection = partial(connection.collection, DELIVERIES)


class EventNotFound(ServiceError):
    """Neither the event log nor a delivery record has the event."""

    status = HTTPStatus.NOT_FOUND
    code = "EVENT_NOT_FOUND"
    title = _("Event not found")
    cause = _("No event has this id, or the event is no longer kept.")
    remedy = _("Use the id of an event of the last days, as the header `webhook-id` has it.")


class Attempt(NamedTuple):
    """A request to an endpoint. `reason` is set if there was no usable reply."""

    at: datetime
    status: int | None
    reason: str | None
    duration_ms: int
    retry_after_s: float | None = None

    @property
    def succeeded(self) -> bool:
        status = self.status or 0
        return HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES

    @property
    def stored(self) -> Document:
        return {name: getattr(self, name) for name in ("at", "status", "reason", "duration_ms")}


@dataclass(eq=False, slots=True)
class Delivery:
    """An event for an endpoint. `tries` counts the attempts in the present schedule.

    A redelivery has no order: no other event waits for it.
    """

    event_id: str
    conversation_id: ObjectId | None
    seq: int
    type: str
    format: str
    body: bytes
    tries: int = 0
    is_recorded: bool = False
    is_redelivery: bool = False

    @classmethod
    def from_event(cls, event: log.Event, format: str) -> "Delivery":  # noqa: A002
        return cls(
            event["_id"],
            event["conversation_id"],
            event["seq"],
            event["type"],
            format,
            messages.body(event, format),
        )

    @classmethod
    def from_record(cls, record: Document) -> "Delivery":
        names = ("event_id", "conversation_id", "seq", "type", "format", "body", "tries")
        values = {name: record[name] for name in names}
        return cls(**values, is_recorded=True, is_redelivery=record["is_redelivery"])


def record_key(endpoint_id: str, event_id: str) -> str:
    return f"{endpoint_id}:{event_id}"


def record(
    endpoint_id: str,
    *,
    failed: tuple[Delivery, Attempt, datetime | None] | None = None,
    waiting: Iterable[Delivery] = (),
) -> None:
    """Insert a failed delivery with its next attempt's time, and the deliveries behind it.

    A record that exists stays as it is, so a repeated call is harmless.
    """
    inserts = []
    if failed:
        delivery, attempt, next_at = failed
        first = {"state": PENDING, "next_at": next_at, "attempts": [attempt.stored], "tries": 1}
        inserts.append(_insert(endpoint_id, delivery, first))
    inserts += [_insert(endpoint_id, delivery, {"state": WAITING}) for delivery in waiting]
    if inserts:
        collection().bulk_write(inserts)  # in order: a crash leaves no record without its head


def _insert(endpoint_id: str, delivery: Delivery, values: Document) -> UpdateOne:
    fields = {
        "endpoint_id": endpoint_id,
        "event_id": delivery.event_id,
        "conversation_id": delivery.conversation_id,
        "seq": Int64(delivery.seq),
        "type": delivery.type,
        "format": delivery.format,
        "body": delivery.body,
        "is_redelivery": delivery.is_redelivery,
        "tries": 0,
        "next_at": None,
        "attempts": [],
        "created_at": naive_now(),
        "expires_at": None,
        **values,
    }
    key = record_key(endpoint_id, delivery.event_id)
    return UpdateOne({"_id": key}, {"$setOnInsert": fields}, upsert=True)


def finish(endpoint_id: str, delivery: Delivery, attempt: Attempt, state: str) -> None:
    values = {"state": state, "next_at": None, "expires_at": naive_now() + KEPT}
    _store_attempt(endpoint_id, delivery, attempt, values)


def postpone(endpoint_id: str, delivery: Delivery, attempt: Attempt, next_at: datetime) -> None:
    _store_attempt(endpoint_id, delivery, attempt, {"next_at": next_at})


def _store_attempt(
    endpoint_id: str, delivery: Delivery, attempt: Attempt, values: Document
) -> None:
    newest = {"$each": [attempt.stored], "$slice": -ATTEMPTS_KEPT}
    collection().update_one(
        {"_id": record_key(endpoint_id, delivery.event_id)},
        {"$set": {**values, "tries": delivery.tries + 1}, "$push": {"attempts": newest}},
    )


def promote(endpoint_id: str, conversation_id: ObjectId | None) -> bool:
    """Make a conversation's first waiting delivery due now; return False without any."""
    found = collection().find_one_and_update(
        {"endpoint_id": endpoint_id, "conversation_id": conversation_id, "state": WAITING},
        {"$set": {"state": PENDING, "next_at": naive_now()}},
        sort=[("seq", 1)],
        hint=_ORDER,
        projection=["_id"],
    )
    return found is not None


def upcoming(endpoint_id: str, *, limit: int) -> list[Document]:
    """Return the pending records with the earliest next attempts."""
    where = {"endpoint_id": endpoint_id, "state": PENDING}
    return collection().find(where, sort=[("next_at", 1)], limit=limit, hint=_DUE).to_list()


def outstanding(endpoint_id: str) -> dict[ObjectId | None, int]:
    """Count, for each conversation, the records that block its later events.

    If a crash has left all of them waiting, the first becomes pending.
    """
    rows = collection().aggregate(
        [
            {
                "$match": {
                    "endpoint_id": endpoint_id,
                    "state": {"$in": [*OUTSTANDING]},
                    "is_redelivery": False,
                }
            },
            {
                "$group": {
                    "_id": "$conversation_id",
                    "count": {"$sum": 1},
                    "pending": {"$sum": {"$cond": [{"$eq": ["$state", PENDING]}, 1, 0]}},
                }
            },
        ],
        hint=_DUE,
    )
    counts = {}
    for row in rows:
        counts[row["_id"]] = row["count"]
        if not row["pending"]:
            promote(endpoint_id, row["_id"])
    return counts


def recorded_after(endpoint_id: str, seq: int) -> set[str]:
    """Return the ids of recorded events after this position."""
    where = {"endpoint_id": endpoint_id, "seq": {"$gt": seq}}
    return {row["event_id"] for row in collection().find(where, ["event_id"], hint=_LIST)}


def delete_endpoint(endpoint_id: str) -> None:
    """Delete an endpoint and its records. Raises WebhookNotFound."""
    if not endpoints.endpoints().delete_one({"_id": endpoint_id}).deleted_count:
        raise WebhookNotFound
    delete_all(endpoint_id)


def delete_all(endpoint_id: str) -> None:
    """Delete the records of a deleted endpoint."""
    collection().delete_many({"endpoint_id": endpoint_id})


def enable(endpoint_id: str, *, from_now: bool) -> Endpoint:
    """Enable an endpoint, which continues at its position, or with the next event.

    With `from_now`, its outstanding deliveries fail; they can be redelivered. An enabled endpoint
    stays as it is. Raises WebhookNotFound.
    """
    now = naive_now()  # after this time, another call may have enabled it already
    if from_now and endpoints.get(endpoint_id)["state"] == endpoints.DISABLED:
        collection().update_many(
            {
                "endpoint_id": endpoint_id,
                "state": {"$in": [*OUTSTANDING]},
                "created_at": {"$lte": now},
            },
            {"$set": {"state": FAILED, "next_at": None, "expires_at": naive_now() + KEPT}},
            hint=_DUE,
        )
    return endpoints.enable(endpoint_id, from_now=from_now)


def resource(record: Document) -> dict[str, Any]:
    """Return a record as the API and the console show it, without the body."""
    return {
        "event_id": record["event_id"],
        "type": record["type"],
        "conversation_id": record["conversation_id"] and str(record["conversation_id"]),
        "sequence": record["seq"],
        **{name: record[name] for name in ("state", "is_redelivery", "next_at", "created_at")},
        "attempts": record["attempts"],
    }


def redeliver(endpoint_id: str, event_id: str) -> str:
    """Attempt a delivery now, even if it has succeeded before; return its state.

    The event has the same id and a new schedule. If an earlier event in its conversation must be
    delivered first, that event is attempted now. An event after the endpoint's cursor stays in its
    place.

    Raises WebhookNotFound, and EventNotFound if neither the log nor a record has the event.
    """
    endpoint = endpoints.get(endpoint_id)
    found = _restart(endpoint_id, event_id) or _record_from_log(endpoint, event_id)
    state: str = found["state"]
    if state == WAITING:
        collection().update_many(
            {
                "endpoint_id": endpoint_id,
                "conversation_id": found["conversation_id"],
                "state": PENDING,
            },
            {"$set": {"next_at": naive_now()}},
            hint=_ORDER,
        )
    _notify(endpoint_id)
    return state


def _restart(endpoint_id: str, event_id: str) -> Document | None:
    """Make a record pending, unless it waits; return it afterwards, or None if it is absent."""
    is_finished = {"$in": ["$state", [DELIVERED, FAILED]]}
    waits = {"$eq": ["$state", WAITING]}
    return collection().find_one_and_update(
        {"_id": record_key(endpoint_id, event_id)},
        [
            {
                "$set": {
                    "state": {"$cond": [waits, WAITING, PENDING]},
                    "is_redelivery": {"$or": [is_finished, "$is_redelivery"]},
                    "next_at": {"$cond": [waits, None, naive_now()]},
                    "tries": 0,
                    "expires_at": None,
                }
            }
        ],
        return_document=True,
        projection=["state", "conversation_id"],
    )


def _record_from_log(endpoint: Endpoint, event_id: str) -> Document:
    event: Any = log.event_log().find_one({"_id": event_id})
    if event is None:
        raise EventNotFound
    is_subscribed = not endpoint["types"] or event["type"] in endpoint["types"]
    if is_subscribed and event["seq"] > endpoint["cursor"]:
        return {"state": WAITING, "conversation_id": event["conversation_id"]}
    _record_now(endpoint, event, tries=0)
    return {"state": PENDING}


def _record_now(endpoint: Endpoint, event: log.Event, *, tries: int) -> None:
    """Insert a redelivery that is due now."""
    delivery = Delivery.from_event(event, endpoint["format"])
    delivery.is_redelivery = True
    values = {"state": PENDING, "next_at": naive_now(), "tries": tries}
    collection().bulk_write([_insert(endpoint["_id"], delivery, values)])


def send_test(endpoint_id: str, *, by: str) -> str:
    """Send the event webhook.test to an endpoint, whatever its types are; return the event's id.

    It is attempted once. The record of the delivery shows the result. Raises WebhookNotFound and
    WebhookDisabled.
    """
    endpoint = endpoints.get(endpoint_id)
    if endpoint["state"] == endpoints.DISABLED:
        raise WebhookDisabled
    event_id = f"{endpoint_id}_test_{token_hex(6)}"
    event = log.webhook_event(event_id, log.WEBHOOK_TEST, naive_now(), by=by)
    position: Any = {"seq": max(1, log.newest_seq())}
    _record_now(endpoint, event | position, tries=schedule.LAST_TRY)
    _notify(endpoint_id)
    return event_id


def _notify(endpoint_id: str) -> None:
    """Let the process that delivers, which reads the endpoint every second, read its records."""
    endpoints.endpoints().update_one({"_id": endpoint_id}, {"$inc": {"redeliveries": 1}})


def read(endpoint_id: str, event_id: str) -> Document | None:
    """Return a record without its body."""
    return collection().find_one({"_id": record_key(endpoint_id, event_id)}, {"body": False})


def page(
    endpoint_id: str, *, states: Collection[str] = STATES, before: int | None = None, limit: int
) -> list[Document]:
    """Return records without their bodies, the newest event first.

    `before` is the position of the last record on the previous page.
    """
    where: dict[str, Any] = {"endpoint_id": endpoint_id, "state": {"$in": [*states]}}
    if before is not None:
        where["seq"] = {"$lt": before}
    rows = collection().find(where, {"body": False}, sort=[("seq", -1)], limit=limit, hint=_LIST)
    return rows.to_list()
