"""Leases: at most one process at a time does some work.

A lease is the field `lease` in a document, with its owner's name and its end by MongoDB's clock. A
process that ends without a release loses its lease at this end.
"""

from typing import Any

# Matches without a lease too: MongoDB sorts a missing value before every date.
FREE: dict[str, Any] = {"$expr": {"$lte": ["$lease.until", "$$NOW"]}}


class LeaseLost(Exception):
    """Another process has the lease."""


def until(seconds: float) -> dict[str, Any]:
    """Return an expression for the end of a lease that begins or is prolonged now."""
    return {"$add": ["$$NOW", int(seconds * 1_000)]}
