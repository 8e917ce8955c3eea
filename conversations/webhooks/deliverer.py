"""The process that delivers: it leases endpoints, and starts a sender for each."""

import logging
import os
import socket
from collections.abc import Collection
from math import ceil
from secrets import token_hex
from time import monotonic, sleep

import pymongo
from pymongo.errors import PyMongoError

from conversation_service.mongodb import failures
from conversations import metrics
from conversations.events import log
from conversations.webhooks import deliveries, endpoints, leases
from conversations.webhooks.leases import LEASE_S, OPERATION_S, Lease
from conversations.webhooks.sender import REQUEST_S, Sender

logger = logging.getLogger(__name__)

LOOK_S = 0.25  # between two looks at the newest event
ENDPOINTS_S = 1.0  # between two looks at the endpoints
RENEW_S = 5.0  # between two lease renewals
STOP_S = REQUEST_S + 5.0  # for the requests in flight at the end


class Deliverer:
    """Delivers to its share of the enabled endpoints.

    With `once`, it has no share: each endpoint without another process gets the events that are due
    now.
    """

    def __init__(self, *, once: bool) -> None:
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{token_hex(4)}"
        self._once = once
        self._senders: dict[str, Sender] = {}
        self._served: set[str] = set()  # with `once`: ids of endpoints that had a sender
        self._processes = 1  # that share the endpoints
        self._share = 0  # the most endpoints that this process may have
        self._known: set[str] = set()  # ids of all endpoints at the last look
        self._looked_at = self._renewed_at = -LEASE_S
        self._is_unavailable = False
        self.active_at = monotonic()  # the last step in run()
        self.is_complete = True  # False after an unexpected error or for a leased endpoint

    def run(self, stopping: Collection[int]) -> None:
        """Deliver until `stopping` has a signal; with `once`, until all senders have ended.

        While MongoDB is unavailable, wait; with `once`, raise PyMongoError.
        """
        while not stopping:
            self.active_at = monotonic()
            try:
                with pymongo.timeout(OPERATION_S):
                    self._look()
            except PyMongoError as error:
                if self._once or not failures.is_unavailability(error):
                    raise
                if not self._is_unavailable:
                    reason = failures.reason(error)
                    logger.error("MongoDB is unavailable, deliveries wait: %s", reason)
                self._is_unavailable = True
            else:
                if self._is_unavailable:
                    logger.info("MongoDB is available, deliveries continue")
                self._is_unavailable = False
                if self._once and not self._senders:
                    self._report_leased()
                    return
            sleep(LOOK_S)

    def _look(self) -> None:
        """Read the newest position and the endpoints; start, wake and end senders accordingly."""
        newest = log.newest_seq()
        for sender in self._senders.values():
            if newest > sender.newest:
                sender.newest = newest
                sender.wake()
        self._remove_ended()
        if monotonic() - self._looked_at >= ENDPOINTS_S:
            self._looked_at = monotonic()
            self._renew_and_configure()
            for id_ in leases.free():
                if id_ in self._senders or id_ in self._served:
                    continue
                if len(self._senders) >= self._share:
                    break
                lease = Lease(until=monotonic() + LEASE_S)
                if endpoint := leases.acquire(id_, self.owner):
                    sender = Sender(endpoint, lease, newest=newest, until_idle=self._once)
                    self._senders[id_] = sender
                    self._known.add(id_)
                    self._served |= {id_} if self._once else set()
                    sender.start()
        metrics.WEBHOOK_PENDING.set(sum(s.records.outstanding for s in self._senders.values()))
        for id_, sender in self._senders.items():
            metrics.WEBHOOK_BEHIND.labels(id_).set(max(0, newest - sender.stored_cursor))

    def _renew_and_configure(self) -> None:
        if monotonic() - self._renewed_at >= RENEW_S:
            started = monotonic()
            leases.renew(self._senders.keys(), self.owner)
            self._renewed_at = started
            if not self._once:
                self._processes = leases.register(self.owner)
        found = {row["_id"]: row for row in endpoints.list_all()}
        self._known = {*found}
        enabled = {id_ for id_, row in found.items() if row["state"] == endpoints.ENABLED}
        self._share = ceil(len(enabled) / self._processes)
        for id_ in [id_ for id_ in self._senders if id_ in enabled][self._share :]:
            self._senders[id_].stop()  # another process has fewer
        for id_, sender in self._senders.items():
            row = found.get(id_)
            if row is None or not leases.is_owner(row, self.owner):
                sender.abandon()
            elif id_ in enabled:
                sender.lease.until = max(sender.lease.until, self._renewed_at + LEASE_S)
                sender.configure(row)
            else:
                sender.stop()

    def _remove_ended(self) -> None:
        for id_, sender in [*self._senders.items()]:
            if sender.is_alive():
                continue
            if sender.is_done:
                leases.release(id_, self.owner)
            else:  # the lease stays until its end, so that the error does not repeat at once
                logger.error("The deliveries to the webhook %s pause for %d s", id_, LEASE_S)
                self.is_complete = False
            if id_ not in self._known:  # the endpoint is deleted; its last requests left records
                deliveries.delete_all(id_)
            del self._senders[id_]
            metrics.WEBHOOK_BEHIND.remove(id_)

    def _report_leased(self) -> None:
        """With `once`, name the endpoints that another process has, so that none was served."""
        for row in endpoints.list_all():
            is_enabled = row["state"] == endpoints.ENABLED
            if is_enabled and row.get("lease") and row["_id"] not in self._served:
                self.is_complete = False
                logger.error(
                    "Another process delivers to the webhook %s, or was killed less than %d s ago",
                    *(row["_id"], LEASE_S),
                )

    def stop(self) -> None:
        """Wait for the requests in flight, for STOP_S at most, and release the leases."""
        logger.info("Stopping: the requests in flight end first")
        for sender in self._senders.values():
            sender.stop()
        deadline = monotonic() + STOP_S
        for sender in self._senders.values():
            sender.join(max(0.0, deadline - monotonic()))
        try:
            with pymongo.timeout(OPERATION_S):
                self._remove_ended()
                leases.unregister(self.owner)
        except PyMongoError as error:
            reason = failures.reason(error)
            logger.warning("The leases end within %d s: %s", LEASE_S, reason)
