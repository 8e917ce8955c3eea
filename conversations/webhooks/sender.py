"""The deliveries to one endpoint, in a thread of its own.

The events after the endpoint's cursor are read into a bounded window. Each conversation has a lane:
its events in order, of which the first can be in flight. If the first fails, it becomes a record,
and so do the events behind it: the cursor passes them, and the conversation's later events wait for
the last record. So a failure delays one conversation.

The cursor follows the last event before which each one is delivered, recorded or not subscribed.
After a crash, events after the stored cursor are sent again, with their old ids.
"""

import logging
from collections import defaultdict, deque
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
from bson import Int64, ObjectId
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

logger = logging.getLogger(__name__)

T = TypeVar("T")

REQUEST_S = 15.0
WINDOW = 1_000  # events that are read, and neither delivered nor recorded
MAX_SPAN = 10_000  # positions after the cursor, which a crash repeats at most
MAX_OUTSTANDING = 10_000  # records of an endpoint; with more, its cursor stops
RECORDS_READ = 100
STORE_S = 1.0  # between two writes of the cursor and the counters
WAKE_S = 1.0
MONGODB_S = 10.0  # for an operation
AGAIN_S = 0.5  # after an operation failed


BY = "service:webhooks"


class LeaseLost(Exception):
    """Another process delivers to the endpoint, or can begin to."""


class Sender(Thread):
    """Delivers to an endpoint until stop() or abandon(), or with `until_idle` until all is done.

    The process that has the lease sets `newest`, the position of the newest event, and
    `lease_until` by time.monotonic().
    """

    def __init__(
        self, endpoint: Endpoint, *, newest: int, lease_until: float, until_idle: bool
    ) -> None:
        super().__init__(name=f"webhook {endpoint['_id']}", daemon=True)
        self.endpoint_id: str = endpoint["_id"]
        self.endpoint = endpoint
        self.newest = newest
        self.lease_until = lease_until
        self.is_done = False  # False after the thread's end: an unexpected error has ended it
        self._owner = endpoint["lease"]["owner"]
        self._until_idle = until_idle
        self._stopping = Event()
        self._abandoned = Event()
        self._pool = ThreadPoolExecutor(endpoints.MAX_IN_FLIGHT, "delivery")
        self._results: SimpleQueue[Future[Attempt] | None] = SimpleQueue()
        self._in_flight: dict[Future[Attempt], Delivery] = {}
        self._busy: set[ObjectId | None] = set()  # conversations with a request in flight

        # The log
        self._position: int = endpoint["cursor"]  # the last event that was read
        self._open: dict[int, None] = {}  # positions of events in lanes, in order
        self._lanes: defaultdict[ObjectId | None, deque[Delivery]] = defaultdict(deque)
        self._ready: deque[ObjectId | None] = deque()  # lanes with a first event not in flight

        # Records
        self.outstanding = 0  # records that are pending or waiting
        self._blocked: dict[ObjectId | None, int] = {}  # the same by conversation
        self._recorded: set[str] = set()  # ids after the stored cursor, after a crash
        self._due: deque[Delivery] = deque()
        self._next_due: datetime | None = None
        self._redelivery_at = endpoint.get("redelivery_at")
        self._look_again = Event()
        self._look_again.set()

        # After its start, and so after it was enabled, an endpoint gets 1 request at a time, then
        # 2, 4 and so on, after that number of successes. None: no longer.
        self._ramp: int | None = 1
        self._ramp_successes = 0

        # Stored with the cursor
        self._stored_at = monotonic()
        self._stored_cursor: int = endpoint["cursor"]
        self._counts = {"delivered": 0, "failed": 0}
        self._health: dict[str, datetime | None] = {}
        self._failing_since: datetime | None = endpoint["failing_since"]

    # Called by the thread that has the leases

    @property
    def is_stopping(self) -> bool:
        return self._stopping.is_set()

    def configure(self, endpoint: Endpoint) -> None:
        """Apply the present document of the endpoint to the next request."""
        self.endpoint = endpoint
        if endpoint.get("redelivery_at") != self._redelivery_at:
            self._redelivery_at = endpoint.get("redelivery_at")
            self._look_again.set()

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
                if not self.is_stopping:
                    self._read_log()
                    self._read_records()
                    self._send()
                self._receive()
                self._store(every_s=STORE_S)
            self._store(every_s=0)
            self.is_done = True
        except LeaseLost:
            self.is_done = True
        finally:
            self._pool.shutdown(wait=False)

    def _load(self) -> None:
        self._blocked = self._insist(lambda: deliveries.outstanding(self.endpoint_id))
        self.outstanding = sum(self._blocked.values())
        self._recorded = self._insist(
            lambda: deliveries.recorded_after(self.endpoint_id, self._position)
        )
        oldest = self._insist(log.oldest_seq)
        if self._position + 1 < oldest:
            logger.warning(
                "The events %d to %d have expired before they were delivered to the webhook %s",
                self._position + 1,
                oldest - 1,
                self.endpoint_id,
            )
            self._position = oldest - 1

    def _is_finished(self) -> bool:
        if self._in_flight:
            return False
        return self.is_stopping or (
            self._until_idle
            and not self._ready
            and not self._due
            and not self._has_due()
            and not self._can_read()
        )

    def _can_read(self) -> bool:
        return (
            self._position < self.newest
            and len(self._open) <= WINDOW // 2
            and self._position - self._cursor < MAX_SPAN
            and self.outstanding < MAX_OUTSTANDING
        )

    @property
    def _cursor(self) -> int:
        return next(iter(self._open)) - 1 if self._open else self._position

    def _read_log(self) -> None:
        """Read events into the lanes, and record those that must wait for a record."""
        if not self._can_read():
            return
        newest, endpoint = self.newest, self.endpoint
        limit = WINDOW - len(self._open)
        types = endpoint["types"] or endpoints.DEFAULT_TYPES
        events = self._insist(lambda: log.read(self._position, types=types, limit=limit))
        waiting = []
        for event in events:
            if event["_id"] in self._recorded:
                continue
            delivery = Delivery.from_event(event, endpoint["format"])
            conversation = delivery.conversation_id
            if conversation in self._blocked:
                waiting.append(delivery)
                continue
            self._open[delivery.seq] = None
            lane = self._lanes[conversation]
            lane.append(delivery)
            if len(lane) == 1:
                self._ready.append(conversation)
        self._insist(lambda: deliveries.record(self.endpoint_id, waiting=waiting))
        for delivery in waiting:
            self._block(delivery.conversation_id, 1)
        last = events[-1]["seq"] if events else 0
        self._position = last if len(events) == limit else max(newest, last)

    def _read_records(self) -> None:
        """Read the records that are due."""
        if self._due or not self._has_due():
            return
        self._look_again.clear()
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
        elif len(rows) < limit:
            self._next_due = None

    def _has_due(self) -> bool:
        is_due = self._next_due is not None and self._next_due <= deliveries.now()
        return is_due or self._look_again.is_set()

    # Requests

    def _send(self) -> None:
        while len(self._in_flight) < self._limit and self._lease_outlasts_request():
            delivery = self._next_record() or self._next_event()
            if delivery is None:
                return
            self._busy.add(delivery.conversation_id)
            future = self._pool.submit(attempt, self.endpoint, delivery)
            self._in_flight[future] = delivery
            future.add_done_callback(self._results.put)

    @property
    def _limit(self) -> int:
        in_flight: int = self.endpoint["in_flight"]
        return in_flight if self._ramp is None else min(self._ramp, in_flight)

    def _lease_outlasts_request(self) -> bool:
        return not self._abandoned.is_set() and monotonic() + REQUEST_S < self.lease_until

    def _next_record(self) -> Delivery | None:
        """Return a due record. While events are ready, records take half of the requests."""
        records = sum(delivery.is_recorded for delivery in self._in_flight.values())
        if self._ready and records >= (self._limit + 1) // 2:
            return None
        for _ in range(len(self._due)):
            delivery = self._due.popleft()
            if delivery.conversation_id not in self._busy:
                return delivery
            self._due.append(delivery)
        return None

    def _next_event(self) -> Delivery | None:
        for _ in range(len(self._ready)):
            conversation = self._ready.popleft()
            if conversation not in self._busy:  # as it is during a redelivery
                return self._lanes[conversation][0]
            self._ready.append(conversation)
        return None

    # Results

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
        if self._abandoned.is_set():
            raise LeaseLost
        status = attempt.status or 0
        if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            metrics.WEBHOOK_ATTEMPTS.labels("delivered").inc()
            self._on_success(delivery, attempt)
            return
        metrics.WEBHOOK_ATTEMPTS.labels("rejected" if attempt.status else "failed").inc()
        self._on_failure(delivery, attempt)

    def _on_success(self, delivery: Delivery, attempt: Attempt) -> None:
        self._counts["delivered"] += 1
        self._health |= {"last_success_at": attempt.at, "failing_since": None}
        self._failing_since = None
        self._climb()
        if delivery.is_recorded:
            self._insist(lambda: deliveries.finish(self.endpoint_id, delivery, attempt, DELIVERED))
            self._unblock(delivery)
            return
        conversation = delivery.conversation_id
        lane = self._lanes[conversation]
        lane.popleft()
        del self._open[delivery.seq]
        if lane:
            self._ready.append(conversation)
        else:
            del self._lanes[conversation]

    def _on_failure(self, delivery: Delivery, attempt: Attempt) -> None:
        self._counts["failed"] += 1
        failing_since = self._failing_since = self._failing_since or attempt.at
        self._health["failing_since"] = failing_since
        if self._ramp is not None:
            self._ramp, self._ramp_successes = 1, 0
        next_at = schedule.next_attempt(attempt.at, delivery.tries + 1, attempt.retry_after_s)
        if not delivery.is_recorded:
            self._record_lane(delivery.conversation_id, attempt, next_at)
        elif next_at is None:
            self._insist(lambda: deliveries.finish(self.endpoint_id, delivery, attempt, FAILED))
            self._unblock(delivery)
        else:
            self._insist(lambda: deliveries.postpone(self.endpoint_id, delivery, attempt, next_at))
        if next_at:
            self._next_due = min(self._next_due or next_at, next_at)
        if attempt.status == HTTPStatus.GONE:
            self._disable(endpoints.GONE)
        elif attempt.at - failing_since >= schedule.FAILING_FOR:
            self._disable(endpoints.FAILING)

    def _record_lane(
        self, conversation: ObjectId | None, attempt: Attempt, next_at: datetime | None
    ) -> None:
        """Record a failed event and the events behind it, which wait."""
        first, *others = lane = self._lanes[conversation]
        failed = (first, attempt, next_at)
        self._insist(lambda: deliveries.record(self.endpoint_id, failed=failed, waiting=others))
        self._block(conversation, len(lane))
        for delivery in lane:
            del self._open[delivery.seq]
        del self._lanes[conversation]

    def _block(self, conversation: ObjectId | None, records: int) -> None:
        self._blocked[conversation] = self._blocked.get(conversation, 0) + records
        self.outstanding += records

    def _unblock(self, finished: Delivery) -> None:
        """Let the next event of a conversation follow."""
        if finished.is_redelivery:
            return
        conversation = finished.conversation_id
        self._block(conversation, -1)
        if self._blocked[conversation] > 0:
            if self._insist(lambda: deliveries.promote(self.endpoint_id, conversation)):
                self._look_again.set()
                return
            self._block(conversation, -self._blocked[conversation])  # deleted by hand
        del self._blocked[conversation]

    def _climb(self) -> None:
        if self._ramp is None:
            return
        self._ramp_successes += 1
        if self._ramp_successes >= self._ramp:
            self._ramp, self._ramp_successes = self._ramp * 2, 0
        if self._ramp >= self.endpoint["in_flight"]:
            self._ramp = None
            self._health["ramp_from"] = None

    def _disable(self, reason: str) -> None:
        if self.is_stopping:
            return
        self._stopping.set()
        with suppress(WebhookNotFound):
            self._insist(lambda: endpoints.disable(self.endpoint_id, reason, by=BY))
            metrics.WEBHOOK_DISABLED.labels(reason).inc()
            logger.warning("The webhook %s is disabled: %s", self.endpoint_id, reason)

    # MongoDB

    def _store(self, *, every_s: float) -> None:
        """Store the cursor and the counters, if they have changed."""
        cursor, counts, health = self._cursor, self._counts, self._health
        is_changed = cursor != self._stored_cursor or any(counts.values()) or health
        if not is_changed or monotonic() - self._stored_at < every_s:
            return
        update: dict[str, Any] = {"$max": {"cursor": Int64(cursor)}, "$inc": counts}
        if health:
            update["$set"] = health
        where = {"_id": self.endpoint_id, "lease.owner": self._owner}
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
