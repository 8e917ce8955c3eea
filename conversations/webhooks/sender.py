"""The deliveries to one endpoint, in a thread of its own.

The events after the endpoint's cursor are read into a bounded window. If an event fails, it becomes
a record, and so do the events of its conversation behind it. The cursor passes them, and later
events of the conversation wait as records too. So a failure delays one conversation.

After a crash, events after the stored cursor are sent again, with their old ids.
"""

import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from http import HTTPStatus
from queue import Empty, SimpleQueue
from threading import Event, Thread
from time import monotonic, sleep
from typing import Any, TypeVar

import pymongo
from bson import Int64
from pymongo.errors import PyMongoError

from conversation_service import clock
from conversation_service.mongodb import failures
from conversation_service.outbound import client
from conversations import metrics
from conversations.events import log
from conversations.webhooks import deliveries, endpoints, messages, schedule
from conversations.webhooks.deliveries import DELIVERED, FAILED, Attempt, Delivery
from conversations.webhooks.endpoints import Endpoint, WebhookNotFound
from conversations.webhooks.signing import sign
from conversations.webhooks.window import Conversation, Ramp, Window

logger = logging.getLogger(__name__)

T = TypeVar("T")

ACTOR = "service:webhooks"
REQUEST_S = 15.0
MAX_OUTSTANDING = 10_000  # records of an endpoint; with more, its cursor stops
RECORDS_READ = 100
STORE_S = 1.0  # between two writes of the cursor and the counters
WAKE_S = 1.0
MONGODB_S = 10.0  # for an operation
AGAIN_S = 0.5  # after an operation failed


class LeaseLost(Exception):
    """Another process has the lease of the endpoint."""


class Sender(Thread):
    """Delivers to an endpoint until stop() or abandon(), or with `until_idle` until all is done.

    The thread that has the lease sets `newest`, the position of the newest event, and
    `lease_until` by time.monotonic().
    """

    def __init__(
        self, endpoint: Endpoint, *, newest: int, lease_until: float, until_idle: bool
    ) -> None:
        super().__init__(name=f"webhook {endpoint['_id']}", daemon=True)
        self.endpoint_id = endpoint["_id"]
        self.endpoint = endpoint
        self.newest = newest
        self.lease_until = lease_until
        self.outstanding = 0  # records that are pending or waiting
        self.is_done = False  # stays False if an unexpected error ends the thread
        self._until_idle = until_idle
        self._disabled_times = endpoint["disabled_times"]
        self._stopping = Event()
        self._abandoned = Event()
        self._pool = ThreadPoolExecutor(endpoints.MAX_IN_FLIGHT, "delivery")
        self._results: SimpleQueue[Future[Attempt] | None] = SimpleQueue()
        self._in_flight: dict[Future[Attempt], Delivery] = {}
        self._busy: set[Conversation] = set()  # with a request in flight
        self._ramp = Ramp()
        self._window = Window(endpoint["cursor"])
        # Records
        self._recorded: set[str] = set()  # ids after the stored cursor, after a crash
        self._blocked: dict[Conversation, int] = {}  # outstanding records
        self._due: deque[Delivery] = deque()
        self._next_due: datetime | None = deliveries.now()
        self._redelivery_at = endpoint.get("redelivery_at")
        self._redelivered = Event()
        # Stored with the cursor
        self._stored_at = monotonic()
        self._stored_cursor = endpoint["cursor"]
        self._counts = {"delivered": 0, "failed": 0}
        self._health: dict[str, datetime | None] = {}
        self._failing_since = endpoint["failing_since"]

    # Called by the thread that has the lease

    def configure(self, endpoint: Endpoint) -> None:
        """Apply the present document of the endpoint to the next request."""
        self.endpoint = endpoint
        if endpoint.get("redelivery_at") != self._redelivery_at:
            self._redelivery_at = endpoint.get("redelivery_at")
            self._redelivered.set()
            self.wake()
        if endpoint["disabled_times"] != self._disabled_times:
            self.stop()  # disabled and enabled again: another sender starts at the present cursor

    def wake(self) -> None:
        self._results.put(None)

    def stop(self) -> None:
        """Begin no request; end after those in flight, and store their results."""
        self._stopping.set()
        self.wake()

    def abandon(self) -> None:
        """End and store nothing, because another process has the lease."""
        self._abandoned.set()
        self.stop()

    # The thread

    def run(self) -> None:
        try:
            self._load()
            while not self._is_finished():
                if not self._stopping.is_set():
                    self._read_log()
                    self._read_records()
                    self._send()
                self._receive()
                self._store(every_s=STORE_S)
            self._store(every_s=0)
            self.is_done = True
        except LeaseLost:
            self.is_done = True
        except PyMongoError as error:
            logger.error("MongoDB, webhook %s: %s", self.endpoint_id, failures.name(error))
        finally:
            self._pool.shutdown(wait=False)

    def _load(self) -> None:
        id_, position = self.endpoint_id, self._window.position
        self._blocked = self._insist(lambda: deliveries.outstanding(id_))
        self.outstanding = sum(self._blocked.values())
        self._recorded = self._insist(lambda: deliveries.recorded_after(id_, position))
        oldest = self._insist(log.oldest_seq)
        if position + 1 < oldest:
            text = "The events %d to %d have expired before they were delivered to the webhook %s"
            logger.warning(text, position + 1, oldest - 1, id_)
            self._window.position = oldest - 1

    def _is_finished(self) -> bool:
        if self._in_flight:
            return False
        has_work = self._window.is_ready or self._due or self._has_due() or self._room()
        return self._stopping.is_set() or (self._until_idle and not has_work)

    def _room(self) -> int:
        """Return the number of events to read from the log now."""
        is_full = self.outstanding >= MAX_OUTSTANDING
        return 0 if is_full or self._window.position >= self.newest else self._window.room

    def _read_log(self) -> None:
        """Read events into the window, and record those that must wait for a record."""
        limit = self._room()
        if not limit:
            return
        newest, endpoint, position = self.newest, self.endpoint, self._window.position
        types = endpoint["types"] or endpoints.DEFAULT_TYPES
        events = self._insist(lambda: log.read(position, types=types, limit=limit))
        waiting = []
        for event in events:
            if event["_id"] in self._recorded:
                continue
            delivery = Delivery.from_event(event, endpoint["format"])
            if delivery.conversation_id in self._blocked:
                waiting.append(delivery)
            else:
                self._window.add(delivery)
        self._insist(lambda: deliveries.record(self.endpoint_id, waiting=waiting))
        for delivery in waiting:
            self._block(delivery.conversation_id, 1)
        last = events[-1]["seq"] if events else position
        # Fewer events: all up to the newest, and perhaps later ones.
        self._window.position = last if len(events) == limit else max(last, newest)

    def _read_records(self) -> None:
        """Read the records that are due, if all that were read have been sent."""
        if self._due or not self._has_due():
            return
        self._redelivered.clear()
        now = deliveries.now()
        in_flight = {delivery.event_id for delivery in self._in_flight.values()}
        limit = RECORDS_READ + len(in_flight)
        rows = self._insist(lambda: deliveries.upcoming(self.endpoint_id, limit=limit))
        due = [row for row in rows if row["next_at"] <= now]
        self._due.extend(
            Delivery.from_record(row) for row in due if row["event_id"] not in in_flight
        )
        if len(due) < len(rows):
            self._next_due = rows[len(due)]["next_at"]
        else:
            self._next_due = now if len(rows) == limit else None

    def _has_due(self) -> bool:
        is_due = self._next_due is not None and self._next_due <= deliveries.now()
        return is_due or self._redelivered.is_set()

    def _send(self) -> None:
        """Start requests, as far as the ramp and the lease allow."""
        while (
            len(self._in_flight) < self._ramp.limit(self.endpoint["in_flight"])
            and monotonic() + REQUEST_S < self.lease_until
            and not self._abandoned.is_set()
        ):
            delivery = self._next_record() or self._window.take(self._busy)
            if delivery is None:
                return
            self._busy.add(delivery.conversation_id)
            future = self._pool.submit(attempt, self.endpoint, delivery)
            self._in_flight[future] = delivery
            future.add_done_callback(self._results.put)

    def _next_record(self) -> Delivery | None:
        """Return a due record. While events are ready, records take half of the requests."""
        limit = self._ramp.limit(self.endpoint["in_flight"])
        records = sum(delivery.is_recorded for delivery in self._in_flight.values())
        if self._window.is_ready and records >= (limit + 1) // 2:
            return None
        for _ in range(len(self._due)):
            delivery = self._due.popleft()
            if delivery.conversation_id not in self._busy:
                return delivery
            self._due.append(delivery)
        return None

    def _receive(self) -> None:
        """Wait for a result or a call of wake(), and process all results that are there."""
        if self._is_finished():
            return
        with suppress(Empty):
            result = self._results.get(timeout=WAKE_S)
            while True:
                if result is not None:
                    self._process(self._in_flight.pop(result), result.result())
                result = self._results.get_nowait()

    def _process(self, delivery: Delivery, attempt: Attempt) -> None:
        self._busy.discard(delivery.conversation_id)
        if attempt.succeeded:
            metrics.WEBHOOK_ATTEMPTS.labels("delivered").inc()
            self._on_success(delivery, attempt)
        else:
            metrics.WEBHOOK_ATTEMPTS.labels("rejected" if attempt.status else "failed").inc()
            self._on_failure(delivery, attempt)

    def _on_success(self, delivery: Delivery, attempt: Attempt) -> None:
        self._counts["delivered"] += 1
        self._failing_since = None
        self._health |= {"last_success_at": attempt.at, "failing_since": None}
        if self._ramp.ends_with_success(self.endpoint["in_flight"]):
            self._health["ramp_from"] = None
        if delivery.is_recorded:
            self._finish(delivery, attempt, DELIVERED)
        else:
            self._window.remove(delivery)

    def _on_failure(self, delivery: Delivery, attempt: Attempt) -> None:
        id_, conversation = self.endpoint_id, delivery.conversation_id
        self._counts["failed"] += 1
        failing_since = self._failing_since = self._failing_since or attempt.at
        self._health["failing_since"] = failing_since
        self._ramp.fail()
        next_at = schedule.next_attempt(attempt.at, delivery.tries + 1, attempt.retry_after_s)
        if not delivery.is_recorded:
            _, *others = lane = self._window.lane(conversation)
            failed = (delivery, attempt, next_at)
            self._insist(lambda: deliveries.record(id_, failed=failed, waiting=others))
            self._block(conversation, len(lane))
            self._window.remove_lane(conversation)
        elif next_at is None:
            self._finish(delivery, attempt, FAILED)
        else:
            self._insist(lambda: deliveries.postpone(id_, delivery, attempt, next_at))
        if next_at:
            self._next_due = min(self._next_due or next_at, next_at)
        if attempt.status == HTTPStatus.GONE:
            self._disable(endpoints.GONE)
        elif attempt.at - failing_since >= schedule.FAILING_FOR:
            self._disable(endpoints.FAILING)

    def _finish(self, delivery: Delivery, attempt: Attempt, state: str) -> None:
        """End a record, and let the next one of its conversation follow."""
        id_, conversation = self.endpoint_id, delivery.conversation_id
        self._insist(lambda: deliveries.finish(id_, delivery, attempt, state))
        if delivery.is_redelivery:
            return
        self._block(conversation, -1)
        if self._blocked[conversation] > 0:
            if self._insist(lambda: deliveries.promote(id_, conversation)):
                self._next_due = deliveries.now()
                return
            self._block(conversation, -self._blocked[conversation])  # deleted by hand
        del self._blocked[conversation]

    def _block(self, conversation: Conversation, records: int) -> None:
        self._blocked[conversation] = self._blocked.get(conversation, 0) + records
        self.outstanding += records

    def _disable(self, reason: str) -> None:
        if self._stopping.is_set():
            return
        self._stopping.set()
        with suppress(WebhookNotFound):
            self._insist(lambda: endpoints.disable(self.endpoint_id, reason, by=ACTOR))
            metrics.WEBHOOK_DISABLED.labels(reason).inc()
            logger.warning("The webhook %s is disabled: %s", self.endpoint_id, reason)

    # MongoDB

    def _store(self, *, every_s: float) -> None:
        """Store the cursor and the counters, if they have changed."""
        cursor, counts, health = self._window.cursor, self._counts, self._health
        is_changed = cursor != self._stored_cursor or any(counts.values()) or health
        if not is_changed or monotonic() - self._stored_at < every_s:
            return
        update: dict[str, Any] = {"$max": {"cursor": Int64(cursor)}, "$inc": counts}
        if health and not self._stopping.is_set():  # enable() can have reset it
            update["$set"] = health
        where = {"_id": self.endpoint_id, "lease.owner": self.endpoint["lease"]["owner"]}
        self._insist(lambda: endpoints.endpoints().update_one(where, update))
        self._stored_at, self._stored_cursor = monotonic(), cursor
        self._counts, self._health = dict.fromkeys(counts, 0), {}

    def _insist(self, operation: Callable[[], T]) -> T:
        """Repeat an operation until MongoDB is available. Raises LeaseLost.

        An operation that has failed can have had its effect, so a repetition must be harmless.
        Nothing is written while another process can have the lease.
        """
        while not self._abandoned.is_set():
            if monotonic() < self.lease_until:
                try:
                    with pymongo.timeout(MONGODB_S):
                        return operation()
                except PyMongoError as error:
                    if not failures.is_unavailability(error):
                        raise
            sleep(AGAIN_S)
        raise LeaseLost


def attempt(endpoint: Endpoint, delivery: Delivery) -> Attempt:
    """Send a delivery once, with the time of this attempt and its signatures."""
    at = clock.now()
    timestamp = int(at.timestamp())
    live = endpoints.live_secrets(endpoint)
    headers = {
        "Content-Type": messages.CONTENT_TYPES[delivery.format],
        "webhook-id": delivery.event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(live, delivery.event_id, timestamp, delivery.body),
    }
    at = at.replace(tzinfo=None)  # as PyMongo reads times
    try:
        reply = client.post(endpoint["url"], delivery.body, headers, timeout_s=REQUEST_S)
    except client.OutboundError as error:
        return Attempt(at, error.status, str(error.reason), error.duration_ms)
    return Attempt(at, reply.status, None, reply.duration_ms, reply.retry_after_s)
