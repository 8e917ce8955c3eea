"""Requests to upstreams keep their time budget, and an open circuit breaker sends none."""

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from threading import enumerate as threads

import pytest
from django.urls import path
from rest_framework.test import APIClient
from rest_framework.views import APIView

from conversation_service.http.rendering import JSONResponse
from conversation_service.upstreams import http
from tests.conversation_service import loopback
from tests.conversation_service.conftest import distrust
from tests.conversation_service.upstreams.conftest import (
    BUDGET_S,
    RECOVERY_S,
    THRESHOLD,
    configure,
)
from tests.conversation_service.upstreams.misbehaviour import WAYS

pytestmark = pytest.mark.urls(__name__)

# A tenth of the budget, plus the scheduling delay of a busy machine.
AT_MOST_S = BUDGET_S * 1.1 + 0.15


class Ask(APIView):
    authentication_classes = []
    permission_classes = []

    def get(self, request):
        return JSONResponse({"times": [outcome() for _ in range(2)]})


urlpatterns = [path("api/v1/fetch", Ask.as_view())]


def fetch():
    return http.client("auth").get("/x", http.UpstreamResponse.json)


def breaker():
    return http.client("auth").breaker


def outcome() -> str:
    try:
        fetch()
    except http.UpstreamError as error:
        return type(error).__name__
    return "answered"


def timed(call) -> float:
    started = time.monotonic()
    call()
    return time.monotonic() - started


def wait_until(condition) -> None:
    deadline = time.monotonic() + 3
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def exchanges() -> list[str]:
    return [thread.name for thread in threads() if thread.name == "exchange"]


@pytest.mark.parametrize("way", WAYS)
def test_a_missing_response_ends_with_the_budget_and_opens_the_breaker(upstream, way):
    upstream.talk = WAYS[way]

    for number in range(1, THRESHOLD + 1):
        assert breaker().state == "closed"
        started = time.monotonic()
        with pytest.raises(http.UpstreamError):
            fetch()
        assert time.monotonic() - started < AT_MOST_S
        assert len(upstream.received) == number
    assert breaker().state == "open"
    wait_until(lambda: not exchanges())


def test_a_refused_connection_opens_the_breaker(upstream, settings):
    settings.AUTH_SERVICE_URL = f"http://{loopback.closed_port()}"

    for _ in range(THRESHOLD):
        assert timed(outcome) < 0.1
    assert breaker().state == "open"


def test_an_open_breaker_sends_no_request_until_the_recovery_time(upstream):
    upstream.talk = WAYS["has a bug"]
    for _ in range(THRESHOLD):
        outcome()

    with pytest.raises(http.UpstreamError) as rejected:
        fetch()
    assert 0 < rejected.value.retry_after_s <= RECOVERY_S
    assert len(upstream.received) == THRESHOLD

    upstream.talk = loopback.respond(b"[1]")
    time.sleep(RECOVERY_S)
    assert fetch() == [1]
    assert breaker().state == "closed"


def test_a_half_open_breaker_sends_one_request(upstream):
    upstream.talk = WAYS["has a bug"]
    for _ in range(THRESHOLD):
        outcome()
    sent = len(upstream.received)
    upstream.talk = WAYS["hangs"]
    time.sleep(RECOVERY_S)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: outcome(), range(8)))

    assert len(upstream.received) == sent + 1
    assert breaker().state == "open"


def test_requests_are_sent_concurrently(upstream, settings):
    """The lock of pybreaker would serialize them."""
    settings.NEIGHBOUR_BUDGET_S = 5
    configure(settings, "auth", read_timeout_s=5)
    all_are_here = Barrier(20)

    def together(channel) -> None:
        all_are_here.wait(4)
        loopback.reply(channel, b"[1]", headers="Connection: close\r\n")

    upstream.talk = together

    with ThreadPoolExecutor(20) as pool:
        responses = list(pool.map(lambda _: fetch(), range(20)))

    assert responses == [[1]] * 20


@pytest.mark.parametrize(
    "status", ["401 Unauthorized", "403 Forbidden", "404 Not Found", "422 Unprocessable Entity"]
)
def test_a_4xx_does_not_open_the_breaker(upstream, status):
    upstream.talk = loopback.respond(b"[0]", status=status)

    for _ in range(THRESHOLD + 1):
        assert fetch() == [0]
    assert breaker().state == "closed"


def test_a_rejected_request_does_not_open_the_breaker(upstream, settings):
    configure(settings, "auth", retries=2)

    def refuse(response):
        raise http.UpstreamRejection("no")

    for _ in range(THRESHOLD + 1):
        with pytest.raises(http.UpstreamRejection):
            http.client("auth").get("/x", refuse)

    assert len(upstream.received) == THRESHOLD + 1  # without retries
    assert breaker().state == "closed"


def test_a_failed_request_is_retried(upstream, settings):
    configure(settings, "auth", retries=2)
    talks = iter([WAYS["has a bug"], WAYS["resets"], loopback.respond(b"[1]")])

    def each_in_turn(channel) -> None:
        next(talks)(channel)

    upstream.talk = each_in_turn

    assert fetch() == [1]
    assert len(upstream.received) == 3


@pytest.mark.parametrize("way", ["has a bug", "hangs", "trickles headers"])
def test_retries_share_the_budget(upstream, settings, way):
    configure(settings, "auth", retries=50, read_timeout_s=0.1)
    upstream.talk = WAYS[way]

    assert timed(outcome) < AT_MOST_S
    assert breaker().state == "closed"  # one request, one failure


def test_one_request_has_one_budget(upstream):
    upstream.talk = WAYS["trickles headers"]

    started = time.monotonic()
    response = APIClient().get("/api/v1/fetch")

    assert time.monotonic() - started < AT_MOST_S
    assert response.json() == {"times": ["UpstreamError", "UpstreamError"]}
    assert len(upstream.received) == 1
    assert timed(outcome) > BUDGET_S * 0.9  # outside of a request each upstream request has its own


def test_ids_of_the_request_are_forwarded(upstream):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    APIClient().get("/api/v1/fetch", headers={"X-Request-ID": "r-1", "traceparent": trace})

    assert "\r\nX-Request-ID: r-1\r\n" in upstream.received[0]
    assert f"\r\ntraceparent: {trace}\r\n" in upstream.received[0]


def test_an_invalid_trace_is_not_forwarded(upstream):
    APIClient().get("/api/v1/fetch", headers={"traceparent": "00-x"})

    assert "traceparent" not in upstream.received[0]


def test_connections_are_reused(upstream):
    def twice(channel) -> None:
        loopback.reply(channel, b"[1]")
        loopback.reply(channel, b"[2]")

    upstream.talk = twice

    assert [fetch(), fetch()] == [[1], [2]]
    assert len(upstream.received) == 1  # connections


def test_a_reused_connection_has_the_same_time_limit(upstream):
    def once_then_trickle(channel) -> None:
        loopback.reply(channel, b"[1]")
        channel.recv(65_536)
        loopback.trickle(channel)

    upstream.talk = once_then_trickle
    fetch()

    assert timed(outcome) < AT_MOST_S
    wait_until(lambda: not exchanges())


def test_a_slow_name_lookup_is_limited_by_the_budget(upstream, monkeypatch):
    look_up = socket.getaddrinfo

    def slowly(*arguments):
        time.sleep(0.6)
        return look_up(*arguments)

    monkeypatch.setattr(socket, "getaddrinfo", slowly)

    assert timed(outcome) < AT_MOST_S
    wait_until(lambda: not exchanges())
    assert upstream.received == []  # the client had stopped waiting


def test_the_number_of_concurrent_requests_is_bounded(upstream, settings, monkeypatch):
    monkeypatch.setattr(http, "MAX_EXCHANGES", 2)
    settings.NEIGHBOUR_BUDGET_S = 5
    under_way, seen = [], []

    def slowly(channel) -> None:
        under_way.append(channel)
        seen.append(len(under_way))
        time.sleep(0.05)
        under_way.remove(channel)
        loopback.reply(channel, b"[1]", headers="Connection: close\r\n")

    upstream.talk = slowly

    with ThreadPoolExecutor(6) as pool:
        responses = list(pool.map(lambda _: fetch(), range(6)))

    assert responses == [[1]] * 6
    assert max(seen) == 2


def test_a_request_without_a_free_connection_in_time_fails(upstream, monkeypatch):
    monkeypatch.setattr(http, "MAX_EXCHANGES", 0)

    assert timed(outcome) < AT_MOST_S
    assert upstream.received == []


def test_cookies_are_not_stored(upstream):
    upstream.talk = loopback.respond(headers="Set-Cookie: a=b; Path=/\r\n")

    fetch()
    fetch()

    assert "Cookie" not in upstream.received[1]


def get(address: str, *, scheme: str = "http", limit: int = 100) -> http.UpstreamResponse:
    return http.get(f"{scheme}://{address}/x?y=1", timeout_s=0.3, limit=limit)


def test_status_and_body_are_returned():
    with loopback.serving(loopback.respond(b"gone", status="410 Gone")) as address:
        assert get(address) == http.UpstreamResponse(410, b"gone")


def test_path_and_query_are_sent():
    lines = []

    with loopback.serving(lambda channel: lines.append(loopback.reply(channel, b""))) as address:
        get(address)

    assert lines == ["GET /x?y=1 HTTP/1.1"]


def test_a_body_above_the_limit_is_rejected():
    with (
        loopback.serving(loopback.respond(b"x" * 101)) as address,
        pytest.raises(http.UpstreamError, match="more than 100 bytes"),
    ):
        get(address)


def test_without_a_limit_the_body_is_not_read():
    with loopback.serving(WAYS["trickles its body"]) as address:
        assert get(address, limit=0) == http.UpstreamResponse(200, b"")


@pytest.mark.parametrize("way", ["hangs", "trickles headers", "trickles its body"])
def test_the_budget_is_kept_under_tls(certificate, way):
    with loopback.serving(loopback.secured(certificate, WAYS[way])) as address:
        started = time.monotonic()
        with pytest.raises(http.UpstreamError):
            get(address, scheme="https", limit=1_000_000)

        assert time.monotonic() - started < 0.6
        wait_until(lambda: not exchanges())


def test_the_budget_is_kept_during_the_tls_handshake(certificate):
    with loopback.serving(loopback.silence) as address:
        started = time.monotonic()
        with pytest.raises(http.UpstreamError):
            get(address, scheme="https")

        assert time.monotonic() - started < 0.6
        wait_until(lambda: not exchanges())


def test_a_trusted_certificate_is_accepted(certificate):
    with loopback.serving(loopback.secured(certificate, loopback.respond(b"ok"))) as address:
        assert get(address, scheme="https") == http.UpstreamResponse(200, b"ok")


def test_a_certificate_for_another_name_is_rejected(certificate):
    with (
        loopback.serving(loopback.secured(certificate, loopback.respond(b"ok"))) as address,
        pytest.raises(http.UpstreamError, match="SSLError"),
    ):
        get(address.replace("127.0.0.1", "localhost"), scheme="https")


def test_an_untrusted_certificate_is_rejected(certificate, monkeypatch):
    distrust(monkeypatch)

    with (
        loopback.serving(loopback.secured(certificate, loopback.respond(b"ok"))) as address,
        pytest.raises(http.UpstreamError, match="SSLError"),
    ):
        get(address, scheme="https")


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "127.0.0.1", "http://", "http://a..b/", ""])
def test_an_invalid_address_is_an_upstream_error(url):
    with pytest.raises(http.UpstreamError):
        http.get(url, timeout_s=0.3, limit=0)


def test_invalid_json_is_an_upstream_error():
    with pytest.raises(http.UpstreamError):
        http.UpstreamResponse(200, b"\xff").json()
    assert http.UpstreamResponse(200, json.dumps({"a": [1]}).encode()).json() == {"a": [1]}
