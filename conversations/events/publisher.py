"""Publishes the changes of conversations in the event log, and repairs what it has missed.

The change stream only names changed conversations; `changes.publish` reads their revisions. So the
event log stays complete if the stream loses, repeats or reorders a change event. A repair reads all
conversations that have changed since a time up to which everything was published. It runs if the
stream cannot continue or has skipped a version, and every 24 hours.

Two publishers are harmless: an event is appended once. The lease only saves work.
"""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import uuid4

import pymongo
from bson import ObjectId, Timestamp
from django.conf import settings
from pymongo import ReturnDocument
from pymongo.change_stream import ChangeStream
from pymongo.errors import OperationFailure, PyMongoError

from conversation_service.http.ndjson import batches
from conversation_service.mongodb import failures, leases
from conversation_service.mongodb.connection import Document, collection, database
from conversation_service.mongodb.leases import LeaseLost
from conversations import metrics
from conversations.collection import committed
from conversations.events import changes, log
from conversations.events.changes import Seen
from conversations.writes.updates import NOW

logger = logging.getLogger(__name__)

BATCH = 100  # changes
BATCH_S = 0.1  # the longest wait for further changes of a batch
LEASE_S = 10
SAVED_EVERY_S = 3.0  # the state, while there are no changes, and the lease
RETRY_S = 1.0
OPERATION_S = 10.0  # for a batch: PyMongo repeats its operations during this time
CHECKED_EVERY = timedelta(hours=24)
# A repair starts earlier than the time up to which all changes are published: a new conversation's
# `changed_at` is by a pod's clock, and a write gets its time before its change gets a cluster time.
MARGIN = timedelta(hours=1)
# MongoDB keeps an event for longer than this after its change.
KEPT_MS = int(timedelta(days=settings.EVENTS_KEEP_DAYS, minutes=-1).total_seconds() * 1_000)

_STATE = {"_id": "publisher"}
_UPDATED = "updateDescription.updatedFields"
_CHANGE = {
    "operationType": 1,
    "clusterTime": 1,
    "documentKey._id": 1,
    "version": {"$ifNull": ["$fullDocument.version", f"${_UPDATED}.version"]},
    "activity": f"${_UPDATED}.activity_sequence",
}


def _stream_stages() -> list[Document]:
    """Return the stages for inserts, purges, new versions, and activity if it is published.

    A legal hold has no new version. A delete ends a tombstone.
    """
    names = ["version", *(["activity_sequence"] if settings.EVENTS_ACTIVITY else [])]
    updates: list[Document] = [{f"{_UPDATED}.{name}": {"$exists": True}} for name in names]
    inserts = {"operationType": {"$in": ["insert", "replace"]}}
    return [{"$match": {"$or": [inserts, *updates]}}, {"$project": _CHANGE}]


class StreamLost(Exception):
    """The change stream cannot continue after the stored token."""


@dataclass(frozen=True)
class Position:
    """Where the change stream continues: after a resume token, or else at a cluster time."""

    token: Mapping[str, Any] | None
    start_at: Timestamp

    @property
    def time(self) -> Timestamp:
        """The cluster time up to which all changes are published.

        A resume token starts with its cluster time in MongoDB's KeyString format: the byte 0x82,
        then the seconds and the ordinal, each with 4 bytes. Guard:
        test_a_resume_token_has_the_time_of_its_position.
        """
        if self.token is None:
            return self.start_at
        digits = self.token["_data"]
        return Timestamp(int(digits[2:10], 16), int(digits[10:18], 16))


class Publisher:
    """Publishes until `stopping` has a signal; with `once`, all changes up to now."""

    def __init__(self, stopping: list[int], *, once: bool = False) -> None:
        self._stopping = stopping
        self._once = once
        self._owner = uuid4().hex
        self._session = database().client.start_session()
        self._state: Document = {}
        self._position = Position(None, Timestamp(0, 0))
        self._collection: Any = None  # the UUID of the collection that the stream watches
        self._publishes = False
        self._is_unavailable = False
        self._saved_at = 0.0
        self.active_at = time.monotonic()  # the last step in run()
        metrics.EVENTS_LAG.set_function(
            lambda: max(0.0, time.time() - self._position.time.time) if self._publishes else 0.0
        )

    def run(self) -> None:
        """Publish. While MongoDB is unavailable, wait; with `once`, raise PyMongoError."""
        while not self._stopping:
            try:
                if not self._start():
                    self._pause(SAVED_EVERY_S)
                    continue
                self._follow()
                if not self._once:
                    with pymongo.timeout(OPERATION_S):
                        mine = _STATE | {"lease.owner": self._owner}
                        log.event_state().update_one(mine, {"$unset": {"lease": 1}})
                return
            except LeaseLost:
                logger.warning("Another process publishes the events. This one waits.")
            except PyMongoError as error:
                if self._once or not failures.is_unavailability(error):
                    raise
                if not self._is_unavailable:
                    reason = failures.reason(error).removesuffix(".")
                    logger.warning("MongoDB: %s. Events are published later.", reason)
                self._is_unavailable = True
                self._pause(RETRY_S)

    def _pause(self, seconds: float) -> None:
        ends = time.monotonic() + seconds
        while not self._stopping and time.monotonic() < ends:
            self.active_at = time.monotonic()
            time.sleep(0.05)

    # The state

    def _start(self) -> bool:
        """Read the state and get the lease; return False if another process has it.

        The first start writes the state: the publisher begins at this time.
        """
        with pymongo.timeout(OPERATION_S):
            first = {"start_at": cluster_time(), "horizon": NOW, "checked_at": NOW}
            initial = {name: {"$ifNull": [f"${name}", value]} for name, value in first.items()}
            log.event_state().update_one(_STATE, [{"$set": initial}], upsert=True)
            expired = log.event_state().find_one(_STATE | leases.FREE) or {}
            found = self._update(_STATE if self._once else _STATE | leases.FREE, {})
            session = expired.get("lease", {}).get("session")
            if found and session:
                # The owner has died. Its session's open transaction would block the log.
                database().command({"killSessions": [session]})
        self._publishes = bool(found)
        if found:
            self._state = found
            self._position = Position(found.get("token"), found["start_at"])
            self._collection = found.get("collection")
        return self._publishes

    def _save(self, **values: Any) -> None:
        """Store the position and these values, and prolong the lease. Raises LeaseLost."""
        values |= {
            "token": {"$literal": self._position.token},
            "start_at": self._position.start_at,
            "collection": self._collection,
        }
        mine = {} if self._once else {"lease.owner": self._owner}
        found = self._update(_STATE | mine, values)
        if not found:
            raise LeaseLost
        self._state = found
        self._saved_at = time.monotonic()

    def _update(self, where: Mapping[str, Any], values: Mapping[str, Any]) -> Document | None:
        """Set these values, the horizon, and the lease unless `once`; return the state, or None."""
        lease = {
            "owner": self._owner,
            "session": self._session.session_id,
            "until": leases.until(LEASE_S),
        }
        values = {
            **values,
            **({} if self._once else {"lease": lease}),
            "horizon": {"$max": ["$horizon", {"$subtract": [NOW, KEPT_MS]}]},
            "saved_at": NOW,
        }
        return log.event_state().find_one_and_update(
            where, [{"$set": values}], return_document=ReturnDocument.AFTER
        )

    # The stream

    def _follow(self) -> None:
        """Publish changes after the position until the end."""
        with pymongo.timeout(OPERATION_S):
            until = cluster_time() if self._once else None
        while True:
            try:
                with self._stream() as stream:
                    self._publish_from(stream, until)
                return
            except StreamLost as lost:
                safe_time = self._position.time.as_datetime().replace(tzinfo=None)
                start_at = self._repair(safe_time, str(lost))
                if start_at is None:
                    return
                self._position = Position(None, start_at)
                self._pause(RETRY_S)

    @contextmanager
    def _stream(self) -> Iterator[ChangeStream[Document]]:
        """Open the change stream. The time limit ends when the stream is open."""
        position: dict[str, Any] = {"start_at_operation_time": self._position.start_at}
        if self._position.token:
            position = {"resume_after": self._position.token}
        with _lost_if_not_resumable(), pymongo.timeout(OPERATION_S):
            # MongoDB accepts another collection's token, and skips changes without an error.
            found = database().list_collections(filter={"name": "conversations"}).to_list()
            present = found[0]["info"]["uuid"] if found else None
            if self._position.token and present != self._collection:
                raise StreamLost("The collection has been created again")
            self._collection = present
            stream = collection("conversations").watch(
                _stream_stages(),
                max_await_time_ms=int(BATCH_S * 1_000),
                batch_size=BATCH,
                **position,
            )
        with stream:
            yield stream

    def _publish_from(self, stream: ChangeStream[Document], until: Timestamp | None) -> None:
        self._saved_at = 0.0
        is_done = False
        while not (self._stopping or is_done):
            self.active_at = time.monotonic()
            with pymongo.timeout(OPERATION_S):
                with _lost_if_not_resumable():
                    batch = _next_batch(stream)
                has_gap = bool(batch) and self._publish_batch(batch)
                self._position = replace(self._position, token=stream.resume_token)
                if batch or time.monotonic() - self._saved_at >= SAVED_EVERY_S:
                    self._save()
                if self._is_unavailable:
                    logger.warning("MongoDB is available again. Events are published.")
                    self._is_unavailable = False
            if has_gap:
                self._check("The change stream skipped a version")
            elif self._state["saved_at"] - self._state["checked_at"] >= CHECKED_EVERY:
                self._check("The daily check")
            is_done = until is not None and self._position.time >= until
        with pymongo.timeout(OPERATION_S):
            self._save()

    def _publish_batch(self, batch: list[Document]) -> bool:
        """Publish a batch from the stream; return True if the stream has skipped a version."""
        horizon_s = int(self._state["horizon"].replace(tzinfo=UTC).timestamp())
        found: dict[ObjectId, Seen] = {}
        for change in batch:
            id_, version = change["documentKey"]["_id"], change.get("version")
            version = version if isinstance(version, int) else None  # damaged
            seen = found.get(id_, Seen())
            # After an old token, MongoDB can already have deleted an insert's event. A cluster time
            # has whole seconds: in the horizon's second, `created_at` decides.
            is_recent = change["clusterTime"].time > horizon_s
            if change["operationType"] == "insert" and is_recent:
                seen = replace(seen, inserted=version or 1)
            if version:
                seen = replace(seen, lowest=min(version, seen.lowest or version))
            if settings.EVENTS_ACTIVITY and "activity" in change:
                seen = replace(seen, has_activity=True)
            found[id_] = seen
        # After an election, the new primary may not yet know that a majority has these changes.
        self._session.advance_operation_time(batch[-1]["clusterTime"])
        return changes.publish(found, self._state["horizon"], self._session).has_gap

    # Repair

    def _check(self, reason: str) -> None:
        """Repair since the last check."""
        since, began = self._state["checked_at"], self._state["saved_at"]
        if self._repair(since, reason):
            with pymongo.timeout(OPERATION_S):
                self._save(checked_at=began)

    def _repair(self, since: datetime, reason: str) -> Timestamp | None:
        """Publish all missing events of conversations that have changed since a time.

        Returns a cluster time up to which all changes are now published. Returns None if a signal
        ends the repair, which must then be repeated.

        No index begins with `changed_at`, so MongoDB reads the whole collection. A repair is rare,
        and an index would slow down each write.
        """
        with pymongo.timeout(OPERATION_S):
            start_at = cluster_time()
        changed = {"changed_at": {"$gte": since - MARGIN}}
        appended = 0
        self._session.advance_operation_time(start_at)
        with database().client.start_session() as scan:
            scan.advance_operation_time(start_at)
            rows = committed().find(changed, ["_id"], batch_size=1_000, session=scan)
            for batch in batches(rows, BATCH):
                if self._stopping:
                    return None
                self.active_at = time.monotonic()
                with pymongo.timeout(OPERATION_S):
                    seen = Seen(has_activity=settings.EVENTS_ACTIVITY)
                    found = {row["_id"]: seen for row in batch}
                    published = changes.publish(found, self._state["horizon"], self._session)
                    appended += published.appended
                    if time.monotonic() - self._saved_at >= SAVED_EVERY_S:
                        self._save()
        metrics.EVENTS_REPAIRED.inc(appended)
        logger.log(
            logging.WARNING if appended else logging.INFO,
            "%s: %d missing events of conversations that changed since %s are published.",
            reason,
            appended,
            since.isoformat(timespec="seconds"),
        )
        return start_at


def cluster_time() -> Timestamp:
    """Return the primary's latest cluster time."""
    with database().client.start_session() as session:
        database().command("ping", session=session)
        return cast(Timestamp, session.operation_time)


def _next_batch(stream: ChangeStream[Document]) -> list[Document]:
    """Return up to BATCH changes. Ends early after BATCH_S, or without a further change."""
    found: list[Document] = []
    ends = time.monotonic() + BATCH_S
    while len(found) < BATCH and (not found or time.monotonic() < ends):
        change = stream.try_next()
        if change is None:
            if not stream.alive:
                raise StreamLost("The collection was dropped or renamed")
            break
        found.append(change)
    return found


@contextmanager
def _lost_if_not_resumable() -> Iterator[None]:
    """Raise StreamLost for an error that another attempt would raise too, such as 286.

    286 is ChangeStreamHistoryLost: the oplog no longer has the token.
    """
    try:
        yield
    except OperationFailure as error:
        if failures.is_unavailability(error):
            raise
        raise StreamLost(f"The change stream cannot continue, {failures.name(error)}") from None
