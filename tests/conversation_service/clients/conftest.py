"""A neighbour on loopback that a test can make misbehave."""

import socket
from collections.abc import Iterator
from uuid import uuid4

import pytest

from tests.conversation_service import loopback

NAMES = ("AUTH", "CHARACTERS", "MESSAGE")
BUDGET_S = 0.3
RECOVERY_S = 0.2
THRESHOLD = 2


class Scripted:
    """A server that does as `talk` does, and keeps what it was asked."""

    def __init__(self) -> None:
        self.talk: loopback.Talk = loopback.answer()
        self.asked: list[str] = []

    def __call__(self, channel: socket.socket) -> None:
        # Looked at, not taken: the request is there for whoever talks.
        head = channel.recv(65_536, socket.MSG_PEEK).decode()
        if head:
            self.asked.append(head)
            self.talk(channel)


@pytest.fixture
def neighbour(settings) -> Iterator[Scripted]:
    """One server that stands for all three neighbours."""
    scripted = Scripted()
    settings.NEIGHBOUR_BUDGET_S = BUDGET_S
    settings.NEIGHBOURS = {name: options() for name in NAMES}
    with loopback.serving(scripted) as address:
        # Unique, as circuit breakers and memories are kept by address.
        base = f"http://{address}/{uuid4()}"
        for name in NAMES:
            setattr(settings, f"{name}_SERVICE_URL", base)
        yield scripted


def options(**changed) -> dict[str, object]:
    return {
        "connect_timeout_s": 0.25,
        "read_timeout_s": 0.25,
        "retries": 0,
        "breaker_threshold": THRESHOLD,
        "breaker_recovery_s": RECOVERY_S,
    } | changed
