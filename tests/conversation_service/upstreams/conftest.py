"""An upstream on loopback with a behaviour that a test sets."""

import socket
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from types import SimpleNamespace
from uuid import uuid4

import pytest

from config.upstreams import UPSTREAMS
from conversation_service.upstreams import breaker, http, response_cache
from tests.conversation_service import loopback

BUDGET_S = 60  # ends only if the request hangs
SHORT_BUDGET_S = 0.3  # for an upstream that never responds
RECOVERY_S = 300
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


@pytest.fixture
def short_budget(upstream, settings, monkeypatch) -> None:
    """Let each request to an upstream end soon.

    On a busy machine the budget can end before the request is sent. The request counts as a failure
    of the upstream all the same.
    """
    settings.NEIGHBOUR_BUDGET_S = SHORT_BUDGET_S
    monkeypatch.setattr(http, "MIN_TIME_S", -60)


@pytest.fixture
def clock(monkeypatch) -> SimpleNamespace:
    """The clock of the caches: it stands still, and a test can advance it."""
    clock = SimpleNamespace(now_s=time.time(), ahead_s=0.0)
    monkeypatch.setattr(response_cache, "time", lambda: clock.now_s + clock.ahead_s)
    return clock


def let_recovery_time_pass(monkeypatch) -> None:
    later = SimpleNamespace(now=lambda zone: datetime.now(zone) + timedelta(seconds=RECOVERY_S))
    monkeypatch.setattr(breaker, "datetime", later)


def configure(settings, name: str, **changed) -> None:
    """Set the variables of an upstream."""
    options = {
        "connect_timeout_s": BUDGET_S,
        "read_timeout_s": BUDGET_S,
        "retries": 0,
        "breaker_threshold": THRESHOLD,
        "breaker_recovery_s": RECOVERY_S,
    }
    for option, value in (options | changed).items():
        setattr(settings, f"{name.upper()}_{option.upper()}", value)
