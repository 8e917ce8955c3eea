"""The metrics of conversations."""

from prometheus_client import Counter

# By the API and the console. Commands print their own counts.
EVENTS = Counter(
    "conversation_events",
    "Changes of conversations, by event: created, archived, restored, trashed, purged",
    ["event"],
)
event = EVENTS.labels
