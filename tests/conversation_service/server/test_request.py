"""Requests over raw sockets that HTTP forbids or that end early, to the real gunicorn."""

import json
import socket

import pytest

from tests.config.test_gunicorn import read, serving
from tests.factories import token

CONVERSATIONS = "/api/v1/conversations"
CREATE = json.dumps({"character_id": "luna", "title": "Cut short"}).encode()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("requests") / "log") as server:
        yield server


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    log = tmp_path_factory.mktemp("service") / "log"
    with serving(log, "config.wsgi:application") as server:
        yield server


def send(server, request: bytes) -> tuple[int, bytes]:
    """Send a request, end the sending direction, and return the status and the body."""
    with server.connect() as client:
        client.sendall(request)
        client.shutdown(socket.SHUT_WR)
        response = read(client)
    head, _, body = response.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def get(path: str = "/", host: bytes | None = b"a", version: str = "1.1") -> bytes:
    line = b"" if host is None else b"Host: " + host + b"\r\n"
    return f"GET {path} HTTP/{version}\r\n".encode() + line + b"Connection: close\r\n\r\n"


def post(path: str, announced: int, body: bytes, *headers: str, method: str = "POST") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {announced}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + body


@pytest.mark.parametrize(
    "host",
    [
        *(b"", b"a b", b"a/b", b"a?b", b"user@a", b"a:b", b"a:99999", b"a:1:2", b"<script>"),
        *(b"[::1", b"[::g]", b"[1.2.3.4]", b"::1", b"a%zz", b"\xe9", b'"a"', b"a\\b"),
    ],
)
def test_an_invalid_host_is_rejected(server, host):
    status, body = send(server, get(host=host))

    assert status == 400
    assert "Host" in json.loads(body)["error"]["message"]


@pytest.mark.parametrize(
    "host",
    [
        *(b"localhost", b"localhost:8003", b"10.0.0.7:8003", b"[::1]:8003", b"[::ffff:10.0.0.7]"),
        *(b"conversation_service:8003", b"api.example.com.", b"a:", b"A-b.c~d", b"a%20b"),
    ],
)
def test_a_valid_host_is_accepted(server, host):
    assert send(server, get(host=host)) == (200, b"quick")


def test_only_http_1_0_may_come_without_a_host(server):
    assert send(server, get(host=None, version="1.0")) == (200, b"quick")
    assert send(server, get(host=None, version="1.1"))[0] == 400


def test_two_hosts_are_rejected(server):
    assert send(server, get(host=b"a\r\nHost: a"))[0] == 400


def test_an_empty_line_before_the_request_is_ignored(server):
    assert send(server, b"\r\n" + get()) == (200, b"quick")


@pytest.mark.parametrize(
    "path",
    [
        *("/internal%2fv1/authorize", "/internal%2Fv1%2Fauthorize", "/internal/v1%2Fauthorize"),
        *("/%69nternal/v1/authorize", "//%69nternal/v1/authorize", "/%2finternal/v1/authorize"),
        *("/%6detrics", "/health%2flive", "/admin%2flogin/", "/api/v1%2fconversations"),
        "http://a/internal%2fv1/authorize",
    ],
)
def test_no_route_is_reached_by_an_encoded_slash_or_first_segment(service, path):
    status, body = send(service, get(path))

    assert status == 404
    assert json.loads(body)["error"]["code"] == "NOT_FOUND"


def test_other_encoded_characters_of_a_path_are_decoded(service):
    assert send(service, get("/health/l%69ve"))[0] == 200
    assert send(service, get("/health/live?next=%2Fa"))[0] == 200


@pytest.mark.parametrize(
    ("path", "announced", "sent"),
    [("/", 1, 0), ("/", 500, 42), ("/body", 1, 0), ("/body", 500, 42), ("/body", 70_000, 69_999)],
)
def test_a_body_that_ends_early_is_rejected_whether_or_not_it_is_read(
    server, path, announced, sent
):
    status, body = send(server, post(path, announced, b"a" * sent))

    assert status == 400
    assert "Content-Length" in json.loads(body)["error"]["message"]


@pytest.mark.parametrize("length", [1, 65_536, 65_537, 900_000])
def test_a_body_in_pieces_arrives_whole(server, length):
    body = bytes(n % 251 for n in range(length))
    with server.connect() as client:
        client.sendall(post("/body", length, body[: length // 2], "Connection: close"))
        client.sendall(body[length // 2 :])

        assert read(client).partition(b"\r\n\r\n")[2] == body


def test_pipelined_requests_get_responses_in_order(server):
    together = post("/body", 3, b"one") + post("/body", 3, b"two") + get()

    with server.connect() as client:
        client.sendall(together)
        responses = read(client)

    bodies = [part.partition(b"\r\n\r\n")[2] for part in responses.split(b"HTTP/1.1 ")[1:]]
    assert bodies == [b"one", b"two", b"quick"]


def test_a_client_that_waits_for_100_continue_gets_it_once(server):
    with server.connect() as client:
        client.sendall(post("/body", 3, b"", "Expect: 100-continue", "Connection: close"))
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"abc")
        response = read(client)

    assert response.startswith(b"HTTP/1.1 200 ")
    assert response.endswith(b"\r\n\r\nabc")
    assert b"100 Continue" not in response


def authorized(content_type: str = "application/json") -> list[str]:
    return [f"Authorization: Bearer {token('alice')}", f"Content-Type: {content_type}"]


def stored(mongo) -> list[dict]:
    return list(mongo["conversations"].find({}, {"title": 1, "status": 1, "version": 1}))


def test_nothing_is_created_from_a_body_that_ends_early(service, mongo):
    request = post(CONVERSATIONS, 500, CREATE, *authorized())

    assert send(service, request)[0] == 400
    assert not stored(mongo)


def test_nothing_is_imported_from_lines_that_end_early(service, mongo, alice):
    alice.post(CONVERSATIONS, {"character_id": "luna"})
    line = alice.get(f"{CONVERSATIONS}/export").getvalue()
    mongo["conversations"].delete_many({})
    lines = line.replace(b"\n", b" " * 40_000 + b"\n") * 2  # more than is read ahead

    request = post(
        f"{CONVERSATIONS}/import",
        len(lines) + 1,
        lines,
        *authorized("application/x-ndjson"),
    )

    assert send(service, request)[0] == 400
    assert not stored(mongo)


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/archive"), ("POST", "/duplicate"), ("PATCH", ""), ("DELETE", "")],
)
def test_nothing_is_changed_by_a_request_that_ends_early(service, mongo, alice, method, path):
    id_ = alice.post(CONVERSATIONS, {"character_id": "luna"}).json()["id"]
    before = stored(mongo)
    request = post(f"{CONVERSATIONS}/{id_}{path}", 500, b"{}", *authorized(), method=method)

    assert send(service, request)[0] == 400
    assert stored(mongo) == before


def test_a_form_of_the_console_that_ends_early_is_rejected(service):
    form = b"username=ops&password=secret&csrfmiddlewaretoken=" + b"a" * 32
    headers = [
        "Content-Type: application/x-www-form-urlencoded",
        "Cookie: csrftoken=" + "a" * 32,
    ]

    assert send(service, post("/admin/login/", 500, form, *headers))[0] == 400


def test_a_chunked_body_that_ends_early_creates_nothing(service, mongo):
    head = [f"POST {CONVERSATIONS} HTTP/1.1", "Host: localhost", "Transfer-Encoding: chunked"]
    request = "\r\n".join([*head, *authorized(), "", ""]).encode() + b"40\r\n" + CREATE

    assert send(service, request)[0] == 411
    assert not stored(mongo)
