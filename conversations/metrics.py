"""Metrics of conversations for Prometheus."""

from prometheus_client import Counter

# Prometheus does not scrape the processes of commands: they print their numbers.
EVENTS = Counter(
    "conversation_events",
    "Changes of conversations, by event: created, archived, restored, trashed, purged",
    ["event"],
)
