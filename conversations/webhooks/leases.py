"""Leases: at most one process delivers to an endpoint at a time.

A lease is in the document of the endpoint, with the name of its owner and its end by the clock of
MongoDB. A process that ends without a release, or is cut off, loses its leases after LEASE_S.
"""

from collections.abc import Callable, Collection
from threading import Event
from time import monotonic, sleep
from typing import Any, TypeVar, cast

import pymongo
from pymongo import ReturnDocument
from pymongo.errors import PyMongoError

from conversation_service.mongodb import failures
from conversations.webhooks import endpoints
from conversations.webhooks.endpoints import Endpoint

T = TypeVar("T")

LEASE_S = 30.0
OPERATION_S = 10.0  # for an operation of MongoDB
AGAIN_S = 0.5  # after an operation failed
_END = {"$add": ["$$NOW", int(LEASE_S * 1_000)]}
_FREE: dict[str, Any] = {"$or": [{"lease": None}, {"$expr": {"$lte": ["$lease.until", "$$NOW"]}}]}


def free() -> list[str]:
    """Return the ids of the enabled endpoints without a valid lease."""
    rows = endpoints.endpoints().find({"state": endpoints.ENABLED, **_FREE}, ["_id"])
    return [row["_id"] for row in rows]


def acquire(endpoint_id: str, owner: str) -> Endpoint | None:
    """Return the endpoint if it is enabled and this process now has its lease, or None."""
    found = endpoints.endpoints().find_one_and_update(
        {"_id": endpoint_id, "state": endpoints.ENABLED, **_FREE},
        [{"$set": {"lease": {"owner": {"$literal": owner}, "until": _END}}}],
        return_document=ReturnDocument.AFTER,
    )
    return cast(Endpoint | None, found)


def renew(endpoint_ids: Collection[str], owner: str) -> None:
    """Prolong leases, also expired ones that no other process has taken."""
    where = {"_id": {"$in": [*endpoint_ids]}, "lease.owner": owner}
    endpoints.endpoints().update_many(where, [{"$set": {"lease.until": _END}}])


def release(endpoint_id: str, owner: str) -> None:
    where = {"_id": endpoint_id, "lease.owner": owner}
    endpoints.endpoints().update_one(where, {"$unset": {"lease": True}})


def is_owner(endpoint: Endpoint, owner: str) -> bool:
    return endpoint.get("lease", {}).get("owner") == owner


class LeaseLost(Exception):
    """Another process has the lease."""


class Lease:
    """A lease of this process, valid `until` a time by monotonic(). One thread prolongs it."""

    def __init__(self, until: float) -> None:
        self.until = until
        self._lost = Event()

    def lose(self) -> None:
        self._lost.set()

    def outlasts(self, seconds: float) -> bool:
        return monotonic() + seconds < self.until and not self._lost.is_set()

    def insist(self, operation: Callable[[], T]) -> T:
        """Repeat an operation until MongoDB is available. Raises LeaseLost.

        An operation that has failed can have had its effect, so a repetition must be harmless.
        Nothing is written while another process can have the lease.
        """
        while not self._lost.is_set():
            if self.outlasts(0):
                try:
                    with pymongo.timeout(OPERATION_S):
                        return operation()
                except PyMongoError as error:
                    if not failures.is_unavailability(error):
                        raise
            sleep(AGAIN_S)
        raise LeaseLost
