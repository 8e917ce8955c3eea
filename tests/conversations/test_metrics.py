"""Each event is counted once."""

import pytest
from prometheus_client import REGISTRY

from tests.factories import PATH, NewConversation, conversation

EVENTS = ("created", "archived", "restored", "trashed", "purged")


class CountedEvents:
    """The events counted since its creation."""

    def __init__(self) -> None:
        self.before = self._now()

    def since(self) -> dict[str, float]:
        now = self._now()
        return {
            event: now[event] - self.before[event]
            for event in EVENTS
            if now[event] != self.before[event]
        }

    def _now(self) -> dict[str, float]:
        name = "conversation_events_total"
        return {event: REGISTRY.get_sample_value(name, {"event": event}) or 0 for event in EVENTS}


@pytest.fixture
def counted() -> CountedEvents:
    return CountedEvents()


def test_each_change_of_state_is_counted(alice, counted):
    created = conversation(alice, "archived")
    path = f"{PATH}/{created['id']}"

    alice.post(f"{path}/restore")
    alice.delete(path)
    alice.delete(f"{path}?mode=purge")

    assert counted.since() == dict.fromkeys(EVENTS, 1)


def test_a_request_without_effect_is_not_counted(alice, counted):
    created = conversation(alice, "archived")

    alice.post(f"{PATH}/{created['id']}/archive")
    alice.post(f"{PATH}/{created['id']}/pin")

    assert counted.since() == {"created": 1, "archived": 1}


def test_a_replayed_create_is_not_counted(alice, counted):
    body = NewConversation()
    for _ in range(2):
        alice.post(PATH, body, headers={"Idempotency-Key": "again"})

    assert counted.since() == {"created": 1}


def test_a_patched_state_is_counted(alice, counted):
    created = conversation(alice)

    alice.patch(f"{PATH}/{created['id']}", {"status": "archived"})
    alice.patch(f"{PATH}/{created['id']}", {"status": "active"})

    assert counted.since() == {"created": 1, "archived": 1, "restored": 1}


def test_a_bulk_action_counts_its_changes(alice, counted):
    ids = [conversation(alice)["id"] for _ in range(3)] + [conversation(alice, "archived")["id"]]

    alice.post(f"{PATH}/bulk", {"action": "archive", "ids": ids})

    assert counted.since() == {"created": 4, "archived": 1 + 3}
