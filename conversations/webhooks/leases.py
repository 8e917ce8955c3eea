"""Leases: at most one process delivers to an endpoint at a time.

A lease is in the document of the endpoint, with the name of its owner and its end by the clock of
MongoDB. A process that ends without a release, or is cut off, loses its leases after LEASE_S.
"""

from collections.abc import Collection
from typing import Any, cast

from pymongo import ReturnDocument

from conversations.webhooks import endpoints
from conversations.webhooks.endpoints import Endpoint

LEASE_S = 30.0
_END = {"$add": ["$$NOW", int(LEASE_S * 1_000)]}
_FREE: dict[str, Any] = {"$or": [{"lease": None}, {"$expr": {"$lte": ["$lease.until", "$$NOW"]}}]}


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
