"""Run by test_gevent.py in its own process, as gevent patches the whole process."""

from gevent import monkey

monkey.patch_all()

import os  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402

import django  # noqa: E402
import gevent  # noqa: E402

os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings.test"  # noqa: TID251
django.setup()

from django.conf import settings  # noqa: E402

from config.upstreams import UPSTREAMS  # noqa: E402
from conversation_service.upstreams import characters, http  # noqa: E402
from tests.conversation_service import loopback  # noqa: E402
from tests.conversation_service.upstreams.conftest import BUDGET_S, configure  # noqa: E402
from tests.conversation_service.upstreams.misbehaviour import WAYS  # noqa: E402

REQUESTS = 30


def fetch(name: str) -> str:
    try:
        return str(http.client(name).get("/x", http.UpstreamResponse.json))
    except http.UpstreamError:
        return "no response"


def fetch_at_once(address: str, *, threshold: int = REQUESTS) -> tuple[set[str], float]:
    settings.AUTH_SERVICE_URL = f"http://{address}"
    configure(settings, "auth", breaker_threshold=threshold)
    started = time.monotonic()
    greenlets = [gevent.spawn(fetch, "auth") for _ in range(REQUESTS)]
    gevent.joinall(greenlets, raise_error=True)
    return {str(greenlet.value) for greenlet in greenlets}, time.monotonic() - started


def others_go_on() -> None:
    """Fail if anything blocks the whole process rather than one greenlet."""
    while True:
        started = time.monotonic()
        gevent.sleep(0.01)
        if time.monotonic() - started > 0.3:
            sys.exit("the process was blocked")


def main() -> None:
    settings.NEIGHBOUR_BUDGET_S = BUDGET_S
    for name in UPSTREAMS:
        configure(settings, name)
    settings.REDIS_URL = ""
    watching = gevent.spawn(others_go_on)
    for way in ("hangs", "trickles headers", "trickles its body", "resets", "is no JSON"):
        with loopback.serving(WAYS[way]) as address:
            outcomes, took_s = fetch_at_once(address)
        assert outcomes == {"no response"}, (way, outcomes)
        assert took_s < BUDGET_S * 1.1 + 0.3, (way, took_s)

    luna = b'{"id": "luna", "name": "Luna", "description": ""}'
    with loopback.serving(loopback.respond(luna)) as address:
        settings.CHARACTERS_SERVICE_URL = f"http://{address}"
        found = [gevent.spawn(characters.get, "luna") for _ in range(REQUESTS)]
        gevent.joinall(found, raise_error=True)
    assert {greenlet.value for greenlet in found} == {characters.Character("luna", "Luna", "")}
    assert not watching.dead


main()
