"""Prometheus metrics of the domain."""

from functools import cache

from prometheus_client import Counter

CREATED = "created"
ARCHIVED = "archived"
RESTORED = "restored"
TRASHED = "trashed"
PURGED = "purged"

# Requests and the console only: background commands print their own counts.
EVENTS = Counter(
    "conversation_events",
    "What happened to conversations: created, archived, restored, trashed, purged",
    ["event"],
)
event = cache(EVENTS.labels)  # faster than `labels`
