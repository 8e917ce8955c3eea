"""Run by test_gevent.py in its own process, as gevent patches the whole process."""

from gevent import monkey

monkey.patch_all()

import os  # noqa: E402
import socket  # noqa: E402
from threading import Barrier  # noqa: E402

import django  # noqa: E402
import gevent  # noqa: E402

os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings.test"  # noqa: TID251
django.setup()

from django.conf import settings  # noqa: E402

from config.upstreams import UPSTREAMS  # noqa: E402
from conversation_service.upstreams import characters, http  # noqa: E402
from tests.conversation_service import loopback  # noqa: E402
from tests.conversation_service.upstreams.conftest import (  # noqa: E402
    BUDGET_S,
    SHORT_BUDGET_S,
    configure,
)
from tests.conversation_service.upstreams.misbehaviour import WAYS  # noqa: E402

REQUESTS = 30


def fetch(name: str) -> str:
    try:
        return str(http.client(name).get("/x", http.UpstreamResponse.json))
    except http.UpstreamError:
        return "no response"


def fetch_at_once(address: str) -> set[str]:
    settings.AUTH_SERVICE_URL = f"http://{address}"
    configure(settings, "auth", breaker_threshold=REQUESTS)
    greenlets = [gevent.spawn(fetch, "auth") for _ in range(REQUESTS)]
    gevent.joinall(greenlets, raise_error=True)
    return {str(greenlet.value) for greenlet in greenlets}


def when_all_are_here() -> loopback.Talk:
    """Respond when all requests have arrived: the first of them must not block the process."""
    all_are_here = Barrier(REQUESTS)

    def talk(channel: socket.socket) -> None:
        all_are_here.wait(BUDGET_S)
        loopback.reply(channel, b"[1]")

    return talk


def main() -> None:
    for name in UPSTREAMS:
        configure(settings, name)
    settings.REDIS_URL = ""
    settings.NEIGHBOUR_BUDGET_S = SHORT_BUDGET_S
    for way in ("hangs", "trickles headers", "trickles its body"):
        with loopback.serving(WAYS[way]) as address:
            assert fetch_at_once(address) == {"no response"}, way

    settings.NEIGHBOUR_BUDGET_S = BUDGET_S
    for way in ("resets", "is no JSON"):
        with loopback.serving(WAYS[way]) as address:
            assert fetch_at_once(address) == {"no response"}, way

    with loopback.serving(when_all_are_here()) as address:
        assert fetch_at_once(address) == {"[1]"}

    luna = b'{"id": "luna", "name": "Luna", "description": ""}'
    with loopback.serving(loopback.respond(luna)) as address:
        settings.CHARACTERS_SERVICE_URL = f"http://{address}"
        found = [gevent.spawn(characters.get, "luna") for _ in range(REQUESTS)]
        gevent.joinall(found, raise_error=True)
    assert {greenlet.value for greenlet in found} == {characters.Character("luna", "Luna", "")}


main()
