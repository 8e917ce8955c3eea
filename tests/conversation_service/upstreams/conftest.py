"""An upstream on loopback with a behaviour that a test sets."""

import socket
from collections.abc import Iterator
from uuid import uuid4

import pytest

from config.upstreams import UPSTREAMS
from tests.conversation_service import loopback

BUDGET_S = 0.3
RECOVERY_S = 0.2
THRESHOLD = 2


class Scripted:
    """A server that runs `talk` for each request, and records the requests."""

    def __init__(self) -> None:
        self.talk: loopback.Talk = loopback.respond()
        self.received: list[str] = []

    def __call__(self, channel: socket.socket) -> None:
        # Peek: `talk` still reads the whole request.
        head = channel.recv(65_536, socket.MSG_PEEK).decode()
        if head:
            self.received.append(head)
            self.talk(channel)


@pytest.fixture
def upstream(settings) -> Iterator[Scripted]:
    """One server that stands for all three upstreams."""
    scripted = Scripted()
    settings.NEIGHBOUR_BUDGET_S = BUDGET_S
    for name in UPSTREAMS:
        configure(settings, name)
    with loopback.serving(scripted) as address:
        # Unique, as clients and caches are kept by address.
        base = f"http://{address}/{uuid4()}"
        for name in UPSTREAMS:
            setattr(settings, f"{name.upper()}_SERVICE_URL", base)
        yield scripted


def configure(settings, name: str, **changed) -> None:
    """Set the variables of an upstream, with short time limits."""
    options = {
        "connect_timeout_s": 0.25,
        "read_timeout_s": 0.25,
        "retries": 0,
        "breaker_threshold": THRESHOLD,
        "breaker_recovery_s": RECOVERY_S,
    }
    for option, value in (options | changed).items():
        setattr(settings, f"{name.upper()}_{option.upper()}", value)
