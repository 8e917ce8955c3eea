"""The event log: what happened to conversations, without titles and content.

An event never changes. Its id follows from the change, so an event that is appended again is
recognised. A transaction increments a counter and inserts a batch: the order of `seq` is the order
in which events become visible, so a reader after an event never misses an earlier one.

The log is one sequence, so its collection is not sharded. MongoDB deletes events after
EVENTS_KEEP_DAYS.
"""

from collections.abc import Collection, Sequence
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

from conversation_service import rfc3339
from conversation_service.mongodb import connection
from conversation_service.mongodb.collections import CollectionSchema
from conversation_service.mongodb.connection import Document
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
RESYNC = "conversation.resync"  # some versions are no longer known: read the conversation again
WEBHOOK_DISABLED = "webhook.disabled"
TYPES = (CREATED, UPDATED, ARCHIVED, RESTORED, TRASHED, PURGED, RESYNC, WEBHOOK_DISABLED)

PURGED_SUFFIX = "purged"

_COUNTER = "sequence"
_APPENDED_TOGETHER = 500  # events in a transaction


class NewEvent(TypedDict):
    """An event before it is appended; `at` is the time of the change.

    `version` is the conversation's version after the change; a purge has none. The fields for a
    conversation are None in a webhook.disabled. `fields` are the paths that an edit changed.
    `first_missed` and `last_missed` are versions, in a resync only.
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


class Event(NewEvent):
    """An event in the log; `seq` is its position. Positions have no gaps."""

    seq: int
    published_at: datetime


def _nullable(bson_type: str) -> dict[str, Any]:
    return {"bsonType": [bson_type, "null"]}


_INTEGER = {"bsonType": ["int", "long"], "minimum": 1}
COLLECTION = CollectionSchema(
    EVENT_LOG,
    indexes=[
        IndexModel(["seq"], name="event_order", unique=True),
        # The last published version of a conversation, from the index alone.
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
            "required": ["_id", "seq", "type", "at", "published_at"],
            "properties": {
                "_id": {"bsonType": "string"},
                "seq": {"bsonType": "long", "minimum": 1},
                "type": {"bsonType": "string", "pattern": r"^[a-z]+\.[a-z_]+\z"},
                "at": {"bsonType": "date"},
                "published_at": {"bsonType": "date"},
                "conversation_id": _nullable("objectId"),
                "user_id": _nullable("string"),
                "version": _INTEGER | {"bsonType": ["int", "long", "null"]},
                "fields": {"bsonType": "array", "items": {"bsonType": "string"}},
                "by": {"bsonType": "string"},
                "client": _nullable("string"),
                "request_id": {"bsonType": "string"},
                "first_missed": _INTEGER,
                "last_missed": _INTEGER,
            },
        }
    },
)


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
    """Return events after this position, the oldest first, by the index event_order.

    With `types`, only events with one of these types.
    """
    where: dict[str, Any] = {"seq": {"$gt": after}}
    if types is not None:
        where["type"] = {"$in": [*types]}
    rows = event_log().find(where, sort=[("seq", 1)], limit=limit, hint="event_order")
    return cast(list[Event], rows.to_list())


def newest_seq(*, confirmed: bool = False) -> int:
    """Return the position of the newest event ever appended; 0 if there was none.

    With `confirmed`, a majority confirms that there is no newer one: slower, for rare cases.
    """
    state = event_state()
    if confirmed:
        state = state.with_options(read_concern=ReadConcern("linearizable"))
    counter = state.find_one({"_id": _COUNTER})
    return int(counter["seq"]) if counter else 0


def oldest_seq() -> int:
    """Return the position of the oldest event that is kept.

    Without events it is the position of the next event. A reader that has not read the event before
    this position has missed events.
    """
    newest = newest_seq()  # first: an event that is appended meanwhile is not skipped
    oldest = event_log().find_one({}, ["seq"], sort=[("seq", 1)], hint="event_order")
    return int(oldest["seq"]) if oldest else newest + 1


def append(events: Sequence[NewEvent], session: ClientSession | None = None) -> int:
    """Append the events that are not in the log, in this order; return how many were new.

    Each transaction appends up to 500 events, and is repeated if another one appends at the same
    time. If a process dies within its transaction, no event can be appended until MongoDB aborts
    the transaction: after 60 seconds, or by the command killSessions for `session`. Raises
    pymongo.errors.PyMongoError; a part of the events can be in the log then.
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
    # The clock of the primary, which can be behind after an election: times follow the positions.
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
    connection.collection(EVENT_LOG).insert_many(
        [
            {**event, "seq": Int64(seq), "published_at": counter["at"]}
            for seq, event in enumerate(new, first)
        ],
        session=session,
    )
    return new


def payload(event: Event) -> dict[str, Any]:
    """Return an event as consumers see it."""
    data = {
        "conversation_id": str(event["conversation_id"]) if event["conversation_id"] else None,
        **{name: event[name] for name in ("user_id", "version", "fields", "by", "client")},
        "request_id": "" if event["request_id"] == NO_REQUEST else event["request_id"],
    }
    if "first_missed" in event:
        data["first_missed_version"] = event["first_missed"]
        data["last_missed_version"] = event["last_missed"]
    return {
        "id": event["_id"],
        "type": event["type"],
        "timestamp": rfc3339.render(event["at"]),
        "sequence": event["seq"],
        "data": data,
    }
