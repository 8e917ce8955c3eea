"""What Prometheus is told of conversations."""

from functools import cache

from prometheus_client import Counter

# By the API and the console; what commands do in the background, their own output tells.
EVENTS = Counter(
    "conversation_events",
    "What happened to conversations: created, archived, restored, trashed, purged",
    ["event"],
)
event = cache(EVENTS.labels)  # faster than `labels`
