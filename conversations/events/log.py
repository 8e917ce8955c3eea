"""The event log: the changes to conversations, without titles and content.

An event never changes. Its id follows from the change, so a repeated append has no effect. A
transaction increments a counter and inserts a batch. So events become visible in the order of their
`seq`, and a reader that continues after an event never misses an earlier one.

The log is one sequence, so its collection is not sharded. MongoDB deletes events after
EVENTS_KEEP_DAYS.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NotRequired, TypedDict, cast

from bson import Int64, ObjectId
from django.conf import settings
from pymongo import IndexModel, ReadPreference, ReturnDocument, WriteConcern
from pymongo.client_session import ClientSession
from pymongo.collection import Collection as MongoCollection
from pymongo.read_concern import ReadConcern

from conversation_service.mongodb import connection
from conversation_service.mongodb.collections import CollectionSchema, nullable
from conversation_service.mongodb.connection import Document
from conversation_service.observability import context
from conversation_service.observability.context import NO_REQUEST
from conversations import metrics
from conversations.writes.updates import NOW

EVENT_LOG = "event_log"
EVENT_STATE = "event_state"

CREATED = "conversation.created"
UPDATED = "conversation.updated"
ARCHIVED = "conversation.archived"
RESTORED = "conversation.restored"
TRASHED = "conversation.trashed"
PURGED = "conversation.purged"
RESYNC = "conversation.resync"  # the history lacks some versions: read the conversation again
ACTIVITY = "conversation.activity"  # new totals, with EVENTS_ACTIVITY
WEBHOOK_DISABLED = "webhook.disabled"
TYPES = (CREATED, UPDATED, ARCHIVED, RESTORED, TRASHED, PURGED, RESYNC, ACTIVITY, WEBHOOK_DISABLED)

# Sent to one endpoint on request, and not part of the log.
WEBHOOK_TEST = "webhook.test"

PURGED_SUFFIX = "purged"

_COUNTER = "sequence"
_APPENDED_TOGETHER = 500  # events in a transaction


class NewEvent(TypedDict):
    """An event before it is appended; `at` is the time when the change was made.

    `version` is the conversation's version after the change, None for a purge and for activity.
    `fields` are the paths that an edit changed. A webhook.disabled has None for `conversation_id`,
    `user_id` and `version`. Only a resync has `first_missed` and `last_missed`, which are versions.
    """

    _id: str
    type: str
    at: datetime
    conversation_id: ObjectId | None
    user_id: str | None
    version: int | None
    fields: list[str]
    by: str
    client: str | None
    request_id: str
    first_missed: NotRequired[int]
    last_missed: NotRequired[int]


def is_well_formed(event: Mapping[str, Any]) -> bool:
    """Return True if a conversation's event has values with the types that it needs."""
    versions = [event.get(name) for name in ("version", "first_missed", "last_missed")]
    texts = [event["user_id"], event["by"], event["request_id"], *event["fields"]]
    return (
        all(v is None or (type(v) in {int, Int64} and v >= 1) for v in versions)
        and all(isinstance(text, str) for text in texts)
        and isinstance(event["client"], str | None)
        and isinstance(event["at"], datetime)
    )


class Event(NewEvent):
    """An event in the log. `seq` is its position; positions have no gaps."""

    seq: int
    published_at: datetime


_INTEGER = {"bsonType": ["int", "long"], "minimum": 1}
COLLECTION = CollectionSchema(
    EVENT_LOG,
    indexes=[
        IndexModel(["seq"], name="event_order", unique=True),
        # For consumers of rare types: they would read the whole log otherwise.
        IndexModel(["type", "seq"], name="event_types"),
        # Covers the query for a conversation's last published version.
        IndexModel(["conversation_id", "version"], name="event_versions"),
        IndexModel(
            ["published_at"],
            name="event_expiry",
            expireAfterSeconds=int(timedelta(days=settings.EVENTS_KEEP_DAYS).total_seconds()),
        ),
    ],
    # Undeclared fields are allowed: a newer release can write them.
    validator={
        "$jsonSchema": {
            "bsonType": "object",
            "required": [*sorted(NewEvent.__required_keys__), "seq", "published_at"],
            "properties": {
                "_id": {"bsonType": "string"},
                "seq": {"bsonType": "long", "minimum": 1},
                "type": {"bsonType": "string", "pattern": r"^[a-z]+\.[a-z_]+\z"},
                "at": {"bsonType": "date"},
                "published_at": {"bsonType": "date"},
                "conversation_id": nullable("objectId"),
                "user_id": nullable("string"),
                "version": _INTEGER | {"bsonType": ["int", "long", "null"]},
                "fields": {"bsonType": "array", "items": {"bsonType": "string"}},
                "by": {"bsonType": "string"},
                "client": nullable("string"),
                "request_id": {"bsonType": "string"},
                "first_missed": _INTEGER,
                "last_missed": _INTEGER,
            },
        }
    },
)


def webhook_event(id_: str, type_: str, at: datetime, *, by: str) -> NewEvent:
    """Return an event about a webhook endpoint, which the current request has caused."""
    return {
        "_id": id_,
        "type": type_,
        "at": at,
        "conversation_id": None,
        "user_id": None,
        "version": None,
        "fields": [],
        "by": by,
        "client": None,
        "request_id": context.request_id.get(),
    }


def event_log() -> MongoCollection[Document]:
    """Return the log with read concern "majority": a failover cannot roll back what it reads."""
    return _committed(EVENT_LOG)


def event_state() -> MongoCollection[Document]:
    """Return the collection with the counter and the state of the publisher."""
    return _committed(EVENT_STATE)


def _committed(name: str) -> MongoCollection[Document]:
    return connection.collection(name).with_options(
        read_preference=ReadPreference.PRIMARY, read_concern=ReadConcern("majority")
    )


def read(after: int, *, types: Collection[str] | None = None, limit: int) -> list[Event]:
    """Return events after this position, the oldest first.

    With `types`, only events with one of these types: MongoDB merges their ranges in the index
    event_types, so that it reads no other event.
    """
    where: dict[str, Any] = {"seq": {"$gt": after}}
    if types is not None:
        where["type"] = {"$in": [*types]}
    index = "event_order" if types is None else "event_types"
    rows = event_log().find(where, sort=[("seq", 1)], limit=limit, hint=index)
    return cast(list[Event], rows.to_list())


def newest_seq(*, confirmed: bool = False) -> int:
    """Return the newest event's position, even if the event is deleted; 0 without any event.

    With `confirmed`, a majority confirms that no event is newer. This is slower, for rare cases.
    """
    state = event_state()
    if confirmed:
        state = state.with_options(read_concern=ReadConcern("linearizable"))
    counter = state.find_one({"_id": _COUNTER})
    return int(counter["seq"]) if counter else 0


def oldest_seq() -> int:
    """Return the oldest event's position; in an empty log, the next event's position.

    A reader that has not read the event before this position has missed events.
    """
    newest = newest_seq()  # first: an event that is appended meanwhile is not skipped
    oldest = event_log().find_one({}, ["seq"], sort=[("seq", 1)], hint="event_order")
    return int(oldest["seq"]) if oldest else newest + 1


def append(events: Sequence[NewEvent], session: ClientSession | None = None) -> int:
    """Append the events that are not in the log, in this order; return how many were new.

    Each transaction appends up to 500 events, and is repeated if another one appends at the same
    time. If a process dies within its transaction, the log is blocked until MongoDB aborts the
    transaction: after 60 seconds, or at once by the command killSessions with `session`. After a
    PyMongoError, the log can have some of the events.
    """
    appended = 0
    for start in range(0, len(events), _APPENDED_TOGETHER):
        batch = events[start : start + _APPENDED_TOGETHER]
        if new := _unknown(batch):
            with ExitStack() as own:
                used = session or own.enter_context(connection.database().client.start_session())
                inserted = used.with_transaction(
                    partial(_append, new),
                    read_concern=ReadConcern("snapshot"),
                    write_concern=WriteConcern("majority"),
                    read_preference=ReadPreference.PRIMARY,
                )
            appended += len(inserted)
            for event in inserted:
                metrics.EVENTS_PUBLISHED.labels(event["type"]).inc()
    return appended


def _unknown(
    events: Sequence[NewEvent], session: ClientSession | None = None
) -> Sequence[NewEvent]:
    ids = [event["_id"] for event in events]
    # A transaction has a read concern of its own.
    log = event_log() if session is None else connection.collection(EVENT_LOG)
    known = {row["_id"] for row in log.find({"_id": {"$in": ids}}, ["_id"], session=session)}
    return [event for event in events if event["_id"] not in known]


def _append(events: Sequence[NewEvent], session: ClientSession) -> Sequence[NewEvent]:
    new = _unknown(events, session)
    if not new:
        return new
    # `published_at` never decreases, even if a new primary's clock is behind.
    counter: Any = connection.collection(EVENT_STATE).find_one_and_update(
        {"_id": _COUNTER},
        [
            {
                "$set": {
                    "seq": {"$add": [{"$ifNull": ["$seq", Int64(0)]}, len(new)]},
                    "at": {"$max": ["$at", NOW]},
                }
            }
        ],
        upsert=True,
        return_document=ReturnDocument.AFTER,
        session=session,
    )
    first = counter["seq"] - len(new) + 1
    if first == 1:  # the first events, or the counter was deleted and the log was not
        last = connection.collection(EVENT_LOG).find_one({}, sort=[("seq", -1)], session=session)
        if last:
            first = last["seq"] + 1
            connection.collection(EVENT_STATE).update_one(
                {"_id": _COUNTER},
                {"$set": {"seq": Int64(last["seq"] + len(new))}},
                session=session,
            )
    connection.collection(EVENT_LOG).insert_many(
        [
            {**event, "seq": Int64(seq), "published_at": counter["at"]}
            for seq, event in enumerate(new, first)
        ],
        session=session,
    )
    return new


def payload(event: Event) -> dict[str, Any]:
    """Return an event's public form, for both the API and webhooks; rendering.dumps() writes it."""
    data = {
        "conversation_id": event["conversation_id"],
        **{name: event[name] for name in ("user_id", "version", "fields", "by", "client")},
        "request_id": "" if event["request_id"] == NO_REQUEST else event["request_id"],
    }
    if "first_missed" in event:
        data["first_missed_version"] = event["first_missed"]
        data["last_missed_version"] = event["last_missed"]
    return {
        "id": event["_id"],
        "type": event["type"],
        "timestamp": event["at"],
        "sequence": event["seq"],
        "data": data,
    }
