"""The deliveries to one endpoint, in their own thread.

The events after the endpoint's cursor are read into a bounded window. If an event fails, it becomes
a record, and so do the events behind it in its conversation. The cursor passes them, and later
events in the conversation wait as records too. So a failure delays one conversation.

After a crash, events after the stored cursor are sent again, with their old ids.
"""

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from functools import partial
from http import HTTPStatus
from queue import Empty, SimpleQueue
from threading import Event, Thread
from time import monotonic
from typing import Any

from bson import Int64
from pymongo.errors import PyMongoError

from conversation_service import clock
from conversation_service.mongodb import failures
from conversation_service.mongodb.leases import LeaseLost
from conversation_service.outbound import client
from conversations import metrics
from conversations.events import log
from conversations.webhooks import deliveries, endpoints, messages, schedule
from conversations.webhooks.deliveries import DELIVERED, FAILED, Attempt, Delivery
from conversations.webhooks.endpoints import Endpoint, WebhookNotFound
from conversations.webhooks.leases import Lease
from conversations.webhooks.records import Records
from conversations.webhooks.signing import sign
from conversations.webhooks.window import Ramp, Window

logger = logging.getLogger(__name__)

ACTOR = "service:webhooks"
REQUEST_S = 15.0
MAX_OUTSTANDING = 10_000  # records; with more, the cursor stops
STORE_S = 1.0  # between two writes to the endpoint
WAKE_S = 1.0


class Sender(Thread):
    """Delivers to an endpoint until stop() or abandon(); with `until_idle`, until all is done.

    The thread that starts a sender prolongs its lease, and sets `newest` to the newest event's
    position.
    """

    def __init__(self, endpoint: Endpoint, lease: Lease, *, newest: int, until_idle: bool) -> None:
        super().__init__(name=f"webhook {endpoint['_id']}", daemon=True)
        self.endpoint_id = endpoint["_id"]
        self.endpoint = endpoint
        self.newest = newest
        self.lease = lease
        self.records = Records(self.endpoint_id, lease)
        self.stored_cursor = endpoint["cursor"]
        self.is_done = False  # stays False if an unexpected error ends the thread
        self._until_idle = until_idle
        self._disabled_times = endpoint["disabled_times"]
        self._stopping = Event()
        self._pool = ThreadPoolExecutor(endpoints.MAX_IN_FLIGHT, "delivery")
        self._results: SimpleQueue[Future[Attempt] | None] = SimpleQueue()
        self._in_flight: dict[Future[Attempt], Delivery] = {}
        self._ramp = Ramp()
        self._window = Window(endpoint["cursor"])
        self._recorded: set[str] = set()  # ids after the stored cursor, after a crash
        self._redeliveries = endpoint.get("redeliveries")
        # Stored with the cursor
        self._stored_at = monotonic()
        self._counts = {"delivered": 0, "failed": 0}
        self._health: dict[str, datetime | None] = {}
        self._failing_since = endpoint["failing_since"]

    # Called by the thread that starts it

    def configure(self, endpoint: Endpoint) -> None:
        """Apply the endpoint's present document to the next request."""
        self.endpoint = endpoint
        if endpoint.get("redeliveries") != self._redeliveries:
            self._redeliveries = endpoint.get("redeliveries")
            self.records.redelivered.set()
            self.wake()
        if endpoint["disabled_times"] != self._disabled_times:
            self.stop()  # disabled and enabled again: another sender starts at the present cursor

    def wake(self) -> None:
        self._results.put(None)

    def stop(self) -> None:
        """Begin no request; end after the requests in flight, and store their results."""
        self._stopping.set()
        self.wake()

    def abandon(self) -> None:
        """End and store nothing, because another process has the lease."""
        self.lease.lose()
        self.stop()

    # The thread

    def run(self) -> None:
        try:
            self._load()
            while not self._is_finished():
                if not self._stopping.is_set():
                    self._read_log()
                    self.records.read(self._in_flight.values())
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
        self.records.load()
        oldest = self.lease.insist(log.oldest_seq)
        newest = partial(log.newest_seq, confirmed=True)
        # After the restore of an older log, the next events would be skipped.
        if position > self.newest and position > self.lease.insist(newest):
            text = "The event log was restored: the webhook %s gets its events from the oldest on"
            logger.warning(text, id_)
            position = self.stored_cursor = oldest - 1
            self._window = Window(position)
            where = {"_id": id_, "lease.owner": self.endpoint["lease"]["owner"]}
            values = {"$set": {"cursor": Int64(position)}}
            self.lease.insist(lambda: endpoints.endpoints().update_one(where, values))
        self._recorded = self.lease.insist(lambda: deliveries.recorded_after(id_, position))
        if position + 1 < oldest:
            text = "The events %d to %d have expired before they were delivered to the webhook %s"
            logger.warning(text, position + 1, oldest - 1, id_)
            self._window.position = oldest - 1

    def _is_finished(self) -> bool:
        if self._in_flight:
            return False
        has_work = self._window.is_ready or self.records.has_due or self._room()
        return self._stopping.is_set() or (self._until_idle and not has_work)

    def _room(self) -> int:
        """Return how many events to read from the log now."""
        is_full = self.records.outstanding >= MAX_OUTSTANDING
        return 0 if is_full or self._window.position >= self.newest else self._window.room

    def _read_log(self) -> None:
        """Read events into the window, and record the events that must wait for a record."""
        limit = self._room()
        if not limit:
            return
        newest, endpoint, position = self.newest, self.endpoint, self._window.position
        types = endpoint["types"] or None
        events = self.lease.insist(lambda: log.read(position, types=types, limit=limit))
        waiting = []
        for event in events:
            if event["_id"] in self._recorded:
                continue
            delivery = Delivery.from_event(event, endpoint["format"])
            if self.records.blocks(delivery.conversation_id):
                waiting.append(delivery)
            else:
                self._window.add(delivery)
        self.records.add_waiting(waiting)
        last = events[-1]["seq"] if events else position
        # Fewer events: all up to the newest, and perhaps later ones.
        self._window.position = last if len(events) == limit else max(last, newest)

    def _send(self) -> None:
        """Start requests, as far as the ramp and the lease allow.

        While events are ready, records take half the requests.
        """
        limit = self._ramp.limit(self.endpoint["in_flight"])
        while len(self._in_flight) < limit and self.lease.outlasts(REQUEST_S):
            busy = {delivery.conversation_id for delivery in self._in_flight.values()}
            recorded = sum(delivery.is_recorded for delivery in self._in_flight.values())
            delivery = None
            if recorded < (limit + 1) // 2 or not self._window.is_ready:
                delivery = self.records.take(busy)
            delivery = delivery or self._window.take(busy)
            if delivery is None:
                return
            future = self._pool.submit(send, self.endpoint, delivery)
            self._in_flight[future] = delivery
            future.add_done_callback(self._results.put)

    def _receive(self) -> None:
        """Wait for a result or for wake(), and process all results that have come."""
        if self._is_finished():
            return
        with suppress(Empty):
            result = self._results.get(timeout=WAKE_S)
            while True:
                if result is not None:
                    delivery, attempt = self._in_flight.pop(result), result.result()
                    if attempt.succeeded:
                        self._on_success(delivery, attempt)
                    else:
                        self._on_failure(delivery, attempt)
                result = self._results.get_nowait()

    def _on_success(self, delivery: Delivery, attempt: Attempt) -> None:
        metrics.WEBHOOK_ATTEMPTS.labels("delivered").inc()
        self._counts["delivered"] += 1
        self._failing_since = None
        self._health |= {"last_success_at": attempt.at, "failing_since": None}
        if self._ramp.ends_with_success(self.endpoint["in_flight"]):
            self._health["ramp_from"] = None
        if delivery.is_recorded:
            self.records.finish(delivery, attempt, DELIVERED)
        else:
            self._window.remove(delivery)

    def _on_failure(self, delivery: Delivery, attempt: Attempt) -> None:
        metrics.WEBHOOK_ATTEMPTS.labels("rejected" if attempt.status else "failed").inc()
        self._counts["failed"] += 1
        failing_since = self._failing_since = self._failing_since or attempt.at
        self._health["failing_since"] = failing_since
        self._ramp.fail()
        next_at = schedule.next_attempt(attempt.at, delivery.tries + 1, attempt.retry_after_s)
        if not delivery.is_recorded:
            self.records.add_failed(self._window.lane(delivery), attempt, next_at)
            self._window.remove_lane(delivery)
        elif next_at is None:
            self.records.finish(delivery, attempt, FAILED)
        else:
            self.records.postpone(delivery, attempt, next_at)
        if attempt.status == HTTPStatus.GONE:
            self._disable(endpoints.GONE)
        elif attempt.at - failing_since >= schedule.FAILING_FOR:
            self._disable(endpoints.FAILING)

    def _disable(self, reason: str) -> None:
        if self._stopping.is_set():
            return
        self._stopping.set()
        with suppress(WebhookNotFound):
            id_, times = self.endpoint_id, self._disabled_times
            found = self.lease.insist(lambda: endpoints.disable(id_, reason, by=ACTOR, times=times))
            if found["disabled_reason"] == reason:
                metrics.WEBHOOK_DISABLED.labels(reason).inc()
                logger.warning("The webhook %s is disabled: %s", id_, reason)

    def _store(self, *, every_s: float) -> None:
        """Store the cursor and the counters, if they have changed."""
        cursor, counts, health = self._window.cursor, self._counts, self._health
        is_changed = cursor != self.stored_cursor or any(counts.values()) or health
        if not is_changed or monotonic() - self._stored_at < every_s:
            return
        update: dict[str, Any] = {"$max": {"cursor": Int64(cursor)}, "$inc": counts}
        if health and not self._stopping.is_set():  # enable() can have reset it
            update["$set"] = health
        where = {"_id": self.endpoint_id, "lease.owner": self.endpoint["lease"]["owner"]}
        self.lease.insist(lambda: endpoints.endpoints().update_one(where, update))
        self._stored_at, self.stored_cursor = monotonic(), cursor
        self._counts, self._health = dict.fromkeys(counts, 0), {}


def send(endpoint: Endpoint, delivery: Delivery) -> Attempt:
    """Send a delivery once, with this attempt's time and signatures."""
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
