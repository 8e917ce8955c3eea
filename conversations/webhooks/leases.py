"""The leases of endpoints: at most one process at a time delivers to an endpoint.

The running processes share the endpoints equally. A process that ends without a release, or is cut
off, loses its leases and its share after LEASE_S.
"""

from collections.abc import Callable, Collection
from threading import Event
from time import monotonic, sleep
from typing import TypeVar, cast

import pymongo
from pymongo import ReturnDocument
from pymongo.errors import PyMongoError

from conversation_service.mongodb import failures
from conversation_service.mongodb.leases import FREE, LeaseLost, until
from conversations.events import log
from conversations.webhooks import endpoints
from conversations.webhooks.endpoints import Endpoint

T = TypeVar("T")

LEASE_S = 30.0
OPERATION_S = 10.0  # for an operation in MongoDB
AGAIN_S = 0.5  # after an operation failed

_KIND = "deliverer"  # of documents in event_state: the running processes
_PROCESS = f"{_KIND}:"


def register(owner: str) -> int:
    """Register a running process for LEASE_S; return how many are registered."""
    lease = {"owner": {"$literal": owner}, "until": until(LEASE_S)}
    processes = log.event_state()
    processes.update_one(
        {"_id": _PROCESS + owner}, [{"$set": {"kind": _KIND, "lease": lease}}], upsert=True
    )
    processes.delete_many({"kind": _KIND, **FREE})
    return processes.count_documents({"kind": _KIND})


def unregister(owner: str) -> None:
    log.event_state().delete_one({"_id": _PROCESS + owner})


def free() -> list[str]:
    """Return the ids of all enabled endpoints without a valid lease."""
    rows = endpoints.endpoints().find({"state": endpoints.ENABLED, **FREE}, ["_id"])
    return [row["_id"] for row in rows]


def acquire(endpoint_id: str, owner: str) -> Endpoint | None:
    """Acquire the lease, and return the endpoint; None if another process has it."""
    found = endpoints.endpoints().find_one_and_update(
        {"_id": endpoint_id, "state": endpoints.ENABLED, **FREE},
        [{"$set": {"lease": {"owner": {"$literal": owner}, "until": until(LEASE_S)}}}],
        return_document=ReturnDocument.AFTER,
    )
    return cast(Endpoint | None, found)


def renew(endpoint_ids: Collection[str], owner: str) -> None:
    """Prolong leases, and expired leases that no other process has acquired."""
    where = {"_id": {"$in": [*endpoint_ids]}, "lease.owner": owner}
    endpoints.endpoints().update_many(where, [{"$set": {"lease.until": until(LEASE_S)}}])


def release(endpoint_id: str, owner: str) -> None:
    where = {"_id": endpoint_id, "lease.owner": owner}
    endpoints.endpoints().update_one(where, {"$unset": {"lease": True}})


def is_owner(endpoint: Endpoint, owner: str) -> bool:
    return endpoint.get("lease", {}).get("owner") == owner


class Lease:
    """This process's lease, valid `until` a time by monotonic(). A thread prolongs it."""

    def __init__(self, until: float) -> None:
        self.until = until
        self._lost = Event()

    def lose(self) -> None:
        self._lost.set()

    def outlasts(self, seconds: float) -> bool:
        return monotonic() + seconds < self.until and not self._lost.is_set()

    def insist(self, operation: Callable[[], T]) -> T:
        """Repeat an operation until MongoDB is available. Raises LeaseLost.

        A failed operation can have had its effect, so a repetition must be harmless. An operation
        ends before the lease does, after which another process can write.
        """
        while not self._lost.is_set():
            left_s = self.until - monotonic()
            if left_s > 0:
                try:
                    with pymongo.timeout(min(left_s, OPERATION_S)):
                        return operation()
                except PyMongoError as error:
                    if not failures.is_unavailability(error):
                        raise
            sleep(AGAIN_S)
        raise LeaseLost
