"""Requests to upstreams keep their time budget, and an open circuit breaker sends none."""

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event
from threading import enumerate as threads

import pytest
from django.urls import path
from rest_framework.test import APIClient
from rest_framework.views import APIView

from conversation_service.http.rendering import JSONResponse
from conversation_service.upstreams import http
from tests.config.processes import eventually
from tests.conversation_service import loopback
from tests.conversation_service.conftest import distrust
from tests.conversation_service.upstreams.conftest import (
    BUDGET_S,
    RECOVERY_S,
    SHORT_BUDGET_S,
    THRESHOLD,
    configure,
    let_recovery_time_pass,
)
from tests.conversation_service.upstreams.misbehaviour import ENDLESS, WAYS

pytestmark = pytest.mark.urls(__name__)


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


def exchanges() -> list[str]:
    return [thread.name for thread in threads() if thread.name == "exchange"]


def fail_until_the_breaker_opens() -> None:
    for _ in range(THRESHOLD):
        assert breaker().state == "closed"
        assert outcome() == "UpstreamError"
    assert breaker().state == "open"
    eventually(lambda: not exchanges())


@pytest.mark.parametrize("way", [way for way in WAYS if way not in ENDLESS])
def test_an_unusable_response_opens_the_breaker(upstream, way):
    upstream.talk = WAYS[way]

    fail_until_the_breaker_opens()

    assert len(upstream.received) == THRESHOLD


@pytest.mark.usefixtures("short_budget")
@pytest.mark.parametrize("way", ENDLESS)
def test_a_response_without_end_ends_with_the_budget_and_opens_the_breaker(upstream, way):
    upstream.talk = WAYS[way]

    fail_until_the_breaker_opens()


def test_a_refused_connection_opens_the_breaker(upstream, settings):
    settings.AUTH_SERVICE_URL = f"http://{loopback.closed_port()}"

    fail_until_the_breaker_opens()


def test_an_open_breaker_sends_no_request_until_the_recovery_time(upstream, monkeypatch):
    upstream.talk = WAYS["has a bug"]
    for _ in range(THRESHOLD):
        outcome()

    with pytest.raises(http.UpstreamError) as rejected:
        fetch()
    assert 0 < rejected.value.retry_after_s <= RECOVERY_S
    assert len(upstream.received) == THRESHOLD

    upstream.talk = loopback.respond(b"[1]")
    let_recovery_time_pass(monkeypatch)
    assert fetch() == [1]
    assert breaker().state == "closed"


def test_a_half_open_breaker_sends_one_request(upstream, monkeypatch):
    upstream.talk = WAYS["has a bug"]
    for _ in range(THRESHOLD):
        outcome()
    sent = len(upstream.received)
    let_recovery_time_pass(monkeypatch)
    others_ended = Event()

    def fail_last(channel) -> None:
        others_ended.wait(BUDGET_S)
        WAYS["has a bug"](channel)

    upstream.talk = fail_last

    with ThreadPoolExecutor(8) as pool:
        outcomes = [pool.submit(outcome) for _ in range(8)]
        eventually(lambda: sum(outcome.done() for outcome in outcomes) == 7)
        others_ended.set()

    assert len(upstream.received) == sent + 1
    assert breaker().state == "open"


def test_requests_are_sent_concurrently(upstream):
    """The lock of pybreaker would serialize them."""
    all_are_here = Barrier(20)

    def together(channel) -> None:
        all_are_here.wait(BUDGET_S)
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
def test_retries_share_the_budget(upstream, settings, monkeypatch, way):
    settings.NEIGHBOUR_BUDGET_S = SHORT_BUDGET_S
    monkeypatch.setattr(http, "PAUSE_S", SHORT_BUDGET_S)
    configure(settings, "auth", retries=50, read_timeout_s=0.1)
    upstream.talk = WAYS[way]

    outcome()

    assert len(upstream.received) <= 2  # half of PAUSE_S before the second, PAUSE_S before a third
    assert breaker().state == "closed"  # one request, one failure


def test_one_request_has_one_budget(upstream, settings):
    settings.NEIGHBOUR_BUDGET_S = SHORT_BUDGET_S
    upstream.talk = WAYS["trickles headers"]

    response = APIClient().get("/api/v1/fetch")

    assert response.json() == {"times": ["UpstreamError", "UpstreamError"]}
    assert len(upstream.received) <= 1
    settings.NEIGHBOUR_BUDGET_S = BUDGET_S
    upstream.talk = loopback.respond(b"[1]")
    assert outcome() == "answered"  # outside of a request each upstream request has its own


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


def test_a_reused_connection_has_the_same_time_limit(upstream, settings):
    def once_then_trickle(channel) -> None:
        loopback.reply(channel, b"[1]")
        channel.recv(65_536)
        loopback.trickle(channel)

    upstream.talk = once_then_trickle
    fetch()
    settings.NEIGHBOUR_BUDGET_S = SHORT_BUDGET_S

    assert outcome() == "UpstreamError"
    assert len(upstream.received) == 1  # connections
    eventually(lambda: not exchanges())


@pytest.mark.usefixtures("short_budget")
def test_a_slow_name_lookup_is_limited_by_the_budget(upstream, monkeypatch):
    look_up = socket.getaddrinfo
    request_ended = Event()

    def slowly(*arguments):
        request_ended.wait(BUDGET_S)
        return look_up(*arguments)

    monkeypatch.setattr(socket, "getaddrinfo", slowly)

    assert outcome() == "UpstreamError"
    assert exchanges()
    request_ended.set()
    eventually(lambda: not exchanges())
    assert upstream.received == []  # the client had stopped waiting


def test_the_number_of_concurrent_requests_is_bounded(upstream, monkeypatch):
    monkeypatch.setattr(http, "MAX_EXCHANGES", 2)
    under_way, seen = [], []
    two_are_here = Barrier(2)

    def together(channel) -> None:
        under_way.append(channel)
        seen.append(len(under_way))
        two_are_here.wait(BUDGET_S)
        under_way.remove(channel)
        loopback.reply(channel, b"[1]", headers="Connection: close\r\n")

    upstream.talk = together

    with ThreadPoolExecutor(6) as pool:
        responses = list(pool.map(lambda _: fetch(), range(6)))

    assert responses == [[1]] * 6
    assert max(seen) == 2


@pytest.mark.usefixtures("short_budget")
def test_a_request_without_a_free_connection_in_time_fails(upstream, monkeypatch):
    monkeypatch.setattr(http, "MAX_EXCHANGES", 0)

    assert outcome() == "UpstreamError"
    assert upstream.received == []


def test_cookies_are_not_stored(upstream):
    upstream.talk = loopback.respond(headers="Set-Cookie: a=b; Path=/\r\n")

    fetch()
    fetch()

    assert "Cookie" not in upstream.received[1]


def get(
    address: str, *, scheme: str = "http", limit: int = 100, timeout_s: float = BUDGET_S
) -> http.UpstreamResponse:
    return http.get(f"{scheme}://{address}/x?y=1", timeout_s=timeout_s, limit=limit)


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
        with pytest.raises(http.UpstreamError):
            get(address, scheme="https", limit=1_000_000, timeout_s=1)

        eventually(lambda: not exchanges())


def test_the_budget_is_kept_during_the_tls_handshake(certificate):
    with loopback.serving(loopback.silence) as address:
        with pytest.raises(http.UpstreamError):
            get(address, scheme="https", timeout_s=SHORT_BUDGET_S)

        eventually(lambda: not exchanges())


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
        http.get(url, timeout_s=BUDGET_S, limit=0)


def test_invalid_json_is_an_upstream_error():
    with pytest.raises(http.UpstreamError):
        http.UpstreamResponse(200, b"\xff").json()
    assert http.UpstreamResponse(200, json.dumps({"a": [1]}).encode()).json() == {"a": [1]}
