"""A request keeps its time limit, reaches checked addresses only, and reads 16 kB of its reply."""

import socket
import time
from threading import Event

import pytest

from conversation_service.outbound import client
from conversation_service.outbound.client import OutboundError, Reply
from tests.conversation_service import loopback
from tests.conversation_service.conftest import CERTIFIED_NAME, distrust
from tests.conversation_service.upstreams import misbehaviour

BODY = b'{"type":"conversation.updated"}'
METADATA = "169.254.169.254"


def post(url, *, timeout_s=5.0, **headers) -> Reply:
    return client.post(url, BODY, headers, timeout_s=timeout_s)


def reason(url, *, timeout_s=5.0) -> str:
    with pytest.raises(OutboundError) as failed:
        post(url, timeout_s=timeout_s)
    assert str(failed.value) == failed.value.reason  # no part of a reply
    assert failed.value.duration_ms >= 0
    return str(failed.value.reason)


@pytest.fixture(autouse=True)
def exempt(settings):
    settings.WEBHOOK_ALLOWED_HOSTS = ["127.0.0.1"]


def receive(channel: socket.socket) -> bytes:
    """Return a whole request: a connection that is closed before would be reset."""
    data = b""
    while not data.endswith(BODY):
        if not (received := channel.recv(65_536)):
            break
        data += received
    return data


def respond(status: str = "200 OK", headers: str = "") -> loopback.Talk:
    return send(f"HTTP/1.1 {status}\r\n{headers}\r\n".encode("latin-1"))


def endless(*parts: bytes) -> loopback.Talk:
    """Read the request, then send the first part once and the last part for ever."""

    def talk(channel: socket.socket) -> None:
        receive(channel)
        channel.sendall(parts[0])
        while True:
            channel.sendall(parts[-1])
            time.sleep(0.001)

    return talk


def send(data: bytes) -> loopback.Talk:
    """Read the request, send this, and close the connection."""

    def talk(channel: socket.socket) -> None:
        receive(channel)
        channel.sendall(data)

    return talk


STATUS = b"HTTP/1.1 200 OK\r\n"
CHUNKED = STATUS + b"Transfer-Encoding: chunked\r\n\r\n"
HUNDRED_MB = 100 * 1024 * 1024
REPLIES = {
    "an empty reply": (send(b"HTTP/1.1 204 No Content\r\n\r\n"), 204),
    "a body": (send(STATUS + b"Content-Length: 2\r\n\r\nok"), 200),
    "an error": (respond(status="500 Internal Server Error"), 500),
    "a client error": (respond(status="410 Gone"), 410),
    "a chunked body": (
        send(CHUNKED + b"2\r\nok\r\n0\r\n\r\n"),
        200,
    ),
    "a malformed chunk": (send(CHUNKED + b"zz\r\n"), 200),
    "a chunk of a negative length": (send(CHUNKED + b"-5\r\nhello"), 200),
    "a chunk of a large negative length": (send(CHUNKED + b"-" + b"f" * 24 + b"\r\n"), 200),
    "a chunk of a large length": (send(CHUNKED + b"f" * 200 + b"\r\n"), 200),
    "a chunk of a large length in an error": (
        send(CHUNKED.replace(b"200", b"503") + b"-" + b"f" * 24 + b"\r\n"),
        503,
    ),
    "a body that ends too early": (send(misbehaviour.HEAD + b"{"), 200),
    "an endless body": (endless(STATUS + b"\r\n", b" " * 65_536), 200),
    "an endless chunked body": (
        endless(
            STATUS + b"Transfer-Encoding: chunked\r\n\r\n", b"1000\r\n" + b"x" * 4096 + b"\r\n"
        ),
        200,
    ),
    "a body of 100 MB": (
        endless(STATUS + b"Content-Length: %d\r\n\r\n" % HUNDRED_MB, b" " * 65_536),
        200,
    ),
    "a length that is no number": (send(STATUS + b"Content-Length: x\r\n\r\nok"), 200),
    "early hints": (
        send(b"HTTP/1.1 103 Early Hints\r\nLink: </>\r\n\r\n" + STATUS + b"\r\n"),
        200,
    ),
    "100 Continue": (send(b"HTTP/1.1 100 Continue\r\n\r\n" + STATUS + b"\r\n"), 200),
}
FAILURES = {
    "a redirect": (respond(status="302 Found", headers="Location: /\r\n"), "redirect"),
    "a redirect to the metadata of a cloud": (
        respond(status="307 Temporary Redirect", headers=f"Location: http://{METADATA}/\r\n"),
        "redirect",
    ),
    "a redirect with an endless body": (misbehaviour.endless_redirect, "redirect"),
    "304 Not Modified": (respond(status="304 Not Modified"), "redirect"),
    "a large head": (send(STATUS + b"X: y" * 5_000 + b"\r\n\r\n"), "too_large"),
    "an endless head": (endless(STATUS, b"X: " + b"y" * 1_000 + b"\r\n"), "too_large"),
    "an endless status": (endless(b"HTTP/1.1 200 ", b"x" * 1_000), "too_large"),
    "endless early hints": (endless(b"HTTP/1.1 103 Early Hints\r\n\r\n"), "too_large"),
    "more than 100 headers": (send(STATUS + b"X: y\r\n" * 101 + b"\r\n"), "protocol"),
    "another protocol": (send(b"+PONG\r\n" * 3), "protocol"),
    "a status that is no number": (send(b"HTTP/1.1 abc OK\r\n\r\n"), "protocol"),
    "a status out of range": (send(b"HTTP/1.1 1000 OK\r\n\r\n"), "protocol"),
    "HTTP/2": (send(b"HTTP/2 200\r\n\r\n"), "protocol"),
    "no reply": (send(b""), "disconnected"),
    "half a status": (send(b"HTTP/1.1 20"), "disconnected"),
    "half a head": (send(STATUS + b"X: y\r\n"), "disconnected"),
}
LATE = {
    "silence": loopback.silence,
    "a head a byte at a time": loopback.trickle,
    "a body a byte at a time": misbehaviour.trickle_body,
}


@pytest.mark.parametrize("behaviour", REPLIES)
def test_the_status_of_a_reply_is_returned(behaviour):
    talk, status = REPLIES[behaviour]

    with loopback.serving(talk) as address:
        assert post(f"http://{address}/").status == status


@pytest.mark.parametrize("behaviour", FAILURES)
def test_a_reply_that_is_not_usable_has_a_reason(behaviour):
    talk, expected = FAILURES[behaviour]

    with loopback.serving(talk) as address:
        assert reason(f"http://{address}/") == expected


def test_endless_interim_replies_end():
    """Some releases of Python limit their number, the others only their size."""
    with loopback.serving(endless(b"HTTP/1.1 100 Continue\r\n\r\n")) as address:
        assert reason(f"http://{address}/") in {"too_large", "protocol"}


@pytest.mark.parametrize("behaviour", LATE)
def test_the_time_limit_is_for_the_whole_exchange(behaviour):
    with loopback.serving(LATE[behaviour]) as address:
        assert reason(f"http://{address}/", timeout_s=0.3) == "timeout"


def test_a_receiver_that_drips_for_ever_is_cut():
    is_cut = Event()

    def drip(channel: socket.socket) -> None:
        try:
            loopback.trickle(channel)
        except OSError:
            is_cut.set()

    with loopback.serving(drip) as address:
        assert reason(f"http://{address}/", timeout_s=0.3) == "timeout"
        assert is_cut.wait(10)


def test_a_large_body_is_not_read():
    sent = []
    stopped = Event()

    def talk(channel: socket.socket) -> None:
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        receive(channel)
        channel.sendall(STATUS + b"Content-Length: %d\r\n\r\n" % HUNDRED_MB)
        try:
            while True:
                sent.append(channel.send(b" " * 65_536))
        except OSError:
            stopped.set()

    with loopback.serving(talk) as address:
        assert post(f"http://{address}/").status == 200
        assert stopped.wait(10)
    assert sum(sent) < HUNDRED_MB / 10  # the buffers of the two sockets


def test_a_redirect_is_not_followed():
    requests: list[socket.socket] = []

    with loopback.serving(requests.append) as other:
        talk = respond("308 Permanent Redirect", f"Location: http://{other}/\r\n")
        with loopback.serving(talk) as address, pytest.raises(OutboundError) as failed:
            post(f"http://{address}/")

    assert failed.value.status == 308
    assert requests == []


def test_a_refused_connection_has_a_reason():
    assert reason(f"http://{loopback.closed_port()}/") == "connect"


@pytest.mark.parametrize(
    "url", ["https://169.254.169.254/latest/", "http://example.org/", "https://user@example.org/"]
)
def test_a_url_that_is_no_longer_allowed_is_not_requested(internet, url):
    assert reason(url) == "address_rejected"
    assert internet.connected == []


def test_a_name_without_an_address_has_a_reason(internet):
    assert reason("https://hooks.example.org/") == "dns"


def test_a_look_up_without_end_has_the_same_time_limit(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: time.sleep(1))

    assert reason("https://hooks.example.org/", timeout_s=0.1) == "timeout"


@pytest.mark.parametrize("private", ["127.0.0.1", METADATA, "::1", "fd00::1", "::ffff:10.0.0.1"])
def test_a_name_that_now_resolves_to_a_private_address_is_not_connected(internet, private):
    """DNS rebinding: the name had a public address when the endpoint was created."""
    internet.names["hooks.example.org"] = [["8.8.8.8"], [private]]
    client.resolve(client.parse("https://hooks.example.org/"))

    assert reason("https://hooks.example.org/") == "address_rejected"
    assert internet.connected == []


def test_a_private_address_beside_public_ones_excludes_all(internet):
    internet.names["hooks.example.org"] = [["8.8.8.8", "1.1.1.1", "10.0.0.1"]]

    assert reason("https://hooks.example.org/") == "address_rejected"
    assert internet.connected == []


def test_the_checked_address_is_connected_without_a_second_look_up(internet, certificate):
    received = []

    def talk(channel: socket.socket) -> None:
        received.append(receive(channel).partition(b"\r\n")[0])
        loopback.write(channel, b"")

    with loopback.serving(loopback.secured(certificate, talk)) as server:
        internet.names[CERTIFIED_NAME] = [["8.8.8.8"], ["127.0.0.1"]]
        internet.servers = {"8.8.8.8": server}
        assert post(f"https://{CERTIFIED_NAME}/a?b=c").status == 200

    assert internet.looked_up == [CERTIFIED_NAME]
    assert internet.connected == ["8.8.8.8"]
    assert received == [b"POST /a?b=c HTTP/1.1"]


def test_the_next_address_is_tried_if_one_does_not_accept(internet, certificate):
    talk = loopback.secured(certificate, respond())
    with loopback.serving(talk) as server:
        internet.names[CERTIFIED_NAME] = [["1.1.1.1", "8.8.8.8"]]
        internet.servers = {"8.8.8.8": server}
        assert post(f"https://{CERTIFIED_NAME}/").status == 200

    assert internet.connected == ["1.1.1.1", "8.8.8.8"]


def test_a_certificate_for_another_name_is_rejected(internet, certificate):
    talk = loopback.secured(certificate, respond())
    with loopback.serving(talk) as server:
        internet.names["other.example.net"] = [["8.8.8.8"]]
        internet.servers = {"8.8.8.8": server}
        assert reason("https://other.example.net/") == "tls"


def test_an_untrusted_certificate_is_rejected(certificate, monkeypatch):
    distrust(monkeypatch)
    talk = loopback.secured(certificate, respond())
    with loopback.serving(talk) as address:
        assert reason(f"https://{address}/") == "tls"


def test_a_server_without_tls_is_rejected():
    with loopback.serving(lambda channel: channel.sendall(STATUS + b"\r\n")) as address:
        assert reason(f"https://{address}/") == "tls"


@pytest.mark.parametrize("behaviour", [*LATE, "no handshake"])
def test_the_time_limit_is_kept_under_tls(certificate, behaviour):
    talk = loopback.silence
    if behaviour != "no handshake":
        talk = loopback.secured(certificate, LATE[behaviour])
    client._tls()

    with loopback.serving(talk) as address:
        assert reason(f"https://{address}/", timeout_s=1) == "timeout"


def test_the_request_has_the_body_and_the_headers_and_no_others():
    received = []

    def talk(channel: socket.socket) -> None:
        received.append(receive(channel).decode())
        loopback.write(channel, b"")

    with loopback.serving(talk) as address:
        post(f"http://{address}/hook", **{"Content-Type": "application/json", "webhook-id": "a_v1"})

    head, _, body = received[0].partition("\r\n\r\n")
    first, *headers = head.split("\r\n")
    assert first == "POST /hook HTTP/1.1"
    assert body.encode() == BODY
    assert dict(header.split(": ") for header in headers) == {
        "Host": address,
        "Accept-Encoding": "identity",
        "Content-Length": str(len(BODY)),
        "User-Agent": "conversation-service",
        "Connection": "close",
        "Content-Type": "application/json",
        "webhook-id": "a_v1",
    }


def test_proxies_and_netrc_do_not_apply(monkeypatch, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(netrc))
    received = []

    def talk(channel: socket.socket) -> None:
        received.append(receive(channel))
        loopback.write(channel, b"")

    with loopback.serving(loopback.silence) as proxy, loopback.serving(talk) as address:
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://{proxy}")
        assert post(f"http://{address}/").status == 200

    assert b"Authorization" not in received[0]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0", 0),
        ("120", 120),
        ("999999999", 999_999_999),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        *((text, None) for text in ("", "-1", "1.5", "soon", "1e3", "9" * 400, "٣")),
        ("Mon, 01 Jan 99999999999 00:00:00 GMT", None),
        ("Mon, 01 Jan 2030 00:00:00 +99999999999999999", None),
        ("Mon, 01 Jan 2030 00:00:00 +9999", None),
        ("Mon, 99 Jan 2030 99:00:00 GMT", None),
        ("Mon, 01 Jan 0001 00:00:00 +2300", 0),
    ],
)
def test_retry_after_is_a_number_of_seconds_or_a_date(value, expected):
    header = f"Retry-After: {value}\r\n".encode().decode("latin-1")
    talk = respond("503 Service Unavailable", header)

    with loopback.serving(talk) as address:
        assert post(f"http://{address}/").retry_after_s == expected


def test_a_date_in_retry_after_is_the_time_until_then():
    header = "Retry-After: Fri, 31 Dec 2100 23:59:59 GMT\r\n"

    with loopback.serving(respond(headers=header)) as address:
        seconds = post(f"http://{address}/").retry_after_s

    assert seconds is not None
    assert seconds > 1e9
