"""The code of the guide in a real Chromium, on a page from another origin than the API."""

import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread

import pytest
import requests

from tests.config.test_gunicorn import serving
from tests.conversation_service import loopback
from tests.conversations.admin import chromium
from tests.conversations.admin.chromium import FAILED_TO_LOAD, browser, close_chromium
from tests.docs.guide import GUIDE
from tests.factories import PATH, client_of, token

pytestmark = chromium.in_chromium

TEXT = (GUIDE / "browser.md").read_text(encoding="utf-8")
SCRIPT = "\n".join(re.findall(r"^```js\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL))
TITLE = "Café 🌙 \u65e5\u672c"
START = """
([token, cursor]) => {
  window.changes = [];
  window.tokens = [];
  window.stop = new AbortController();
  const renew = (isRejected) => {
    window.tokens.push(isRejected);
    return isRejected ? token : window.first ?? token;
  };
  const keep = (change, cursor) => window.changes.push([change, cursor]);
  follow(renew, cursor, keep, window.stop.signal).then(
    () => (window.ended = "done"),
    (failure) => (window.ended = failure.message),
  );
}
"""


class Wire:
    """Forwards connections to a port in small pieces, and can cut all of them."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.open: set[socket.socket] = set()

    def forward(self, client: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", self.port)) as server:
            self.open |= {client, server}
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            Thread(target=self._copy, args=(client, server, 65_536), daemon=True).start()
            self._copy(server, client, 7)

    def _copy(self, source: socket.socket, target: socket.socket, size: int) -> None:
        with suppress(OSError):
            while received := source.recv(65_536):
                for start in range(0, len(received), size):
                    target.sendall(received[start : start + size])
            target.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        while self.open:
            with suppress(OSError):
                self.open.pop().shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module", autouse=True)
def _chromium_of_this_module():
    yield
    close_chromium()


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    html = b"<!doctype html><meta charset=utf-8><link rel=icon href=data:,><title>Page</title>"
    with loopback.serving(loopback.respond(html, headers="Content-Type: text/html\r\n")) as address:
        yield f"http://{address}"


@pytest.fixture(scope="module")
def server(tmp_path_factory, origin):
    with serving(
        tmp_path_factory.mktemp("browser") / "log",
        "config.wsgi:application",
        CORS_ALLOWED_ORIGINS=origin,
        CHANGES_LOOK_S="0.1",
    ) as server:
        yield server


@contextmanager
def page_of(origin: str, address: str, *expected: str):
    """Open a page with the code of the guide, for an API at an address."""
    script = re.sub(r'(?<=const API = ")[^"]*', f"{address}/api/v1", SCRIPT)
    with browser(*expected) as page:
        page.goto(origin)
        page.add_script_tag(content=script)
        yield page


def create(server, user, title, **fields):
    """Create a conversation over HTTP: the thread of a page has an event loop, so no ORM."""
    response = requests.post(
        f"http://127.0.0.1:{server.port}{PATH}",
        json={"character_id": "luna", "title": title, **fields},
        headers={"Authorization": f"Bearer {token(user)}"},
        timeout=60,
    )
    assert response.status_code == 201


def cursor_of(user):
    overview = client_of(user).get(f"{PATH}/overview").json()
    return overview["sync_cursor"]


def received(page, count):
    page.wait_for_function("n => window.changes.length >= n", arg=count)
    return page.evaluate("window.changes")


def titles(page, count):
    return [change["conversation"]["title"] for change, _ in received(page, count)]


def test_a_page_of_another_origin_lists_creates_and_edits(server, origin):
    with page_of(origin, f"http://127.0.0.1:{server.port}") as page:
        found = page.evaluate(
            """async ([token, title]) => {
              const created = await call(token, "POST", "/conversations", {
                body: { character_id: "luna" },
                headers: { "Idempotency-Key": "k", "X-Request-ID": "page-1", traceparent: "x" },
              });
              const { id } = await created.json();
              const renamed = await rename(token, id, title);
              const etag = renamed.headers.get("ETag");
              const known = { headers: { "If-None-Match": etag } };
              const again = await call(token, "GET", `/conversations/${id}`, known);
              const list = await call(token, "GET", "/conversations?limit=1");
              const moved = { headers: { Prefer: "return=minimal" } };
              const trashed = await call(token, "DELETE", `/conversations/${id}`, moved);
              return {
                location: created.headers.get("Location"), id, etag, status: again.status,
                request: created.headers.get("X-Request-ID"),
                titles: (await list.json()).conversations.map((c) => c.title),
                listTag: list.headers.get("ETag"), cache: list.headers.get("Cache-Control"),
                applied: trashed.headers.get("Preference-Applied"),
              };
            }""",
            [token("browser"), TITLE],
        )

    assert found["location"] == f"{PATH}/{found['id']}"
    assert (found["etag"], found["status"], found["request"]) == ('"v2"', 304, "page-1")
    assert found["titles"] == [TITLE]
    assert found["listTag"].startswith('W/"')
    assert found["cache"] == "private, no-cache"
    assert found["applied"] == "return=minimal"


def test_a_page_reads_errors_with_their_headers(tmp_path, origin):
    with (
        serving(
            tmp_path / "log",
            "config.wsgi:application",
            CORS_ALLOWED_ORIGINS=origin,
            DJANGO_SETTINGS_MODULE="config.settings.development",
            RATE_LIMIT_LIST="1",
        ) as server,
        page_of(origin, f"http://127.0.0.1:{server.port}", FAILED_TO_LOAD) as page,
    ):
        failures = page.evaluate(
            """async ([token, long]) => {
              const list = () => call(token, "GET", "/conversations");
              await list();
              const requests = [
                list, () => call("nonsense", "GET", "/tags"), () => call(long, "GET", "/tags"),
                () => call(token, "POST", "/conversations", { body: { character_id: "a", x: 1 } }),
              ];
              const failures = [];
              for (const request of requests) {
                await request().catch(({ status, code, retryAfter, requestId }) =>
                  failures.push([status, code, retryAfter > 0, requestId.length > 0]),
                );
              }
              return failures;
            }""",
            [token("browser"), "x" * 9_000],
        )

    assert failures == [
        [429, "RATE_LIMIT_EXCEEDED", True, True],
        [401, "AUTH_TOKEN_INVALID", False, True],
        [431, "HEADERS_TOO_LARGE", False, True],
        [400, "UNKNOWN_FIELD", False, True],
    ]


def test_an_origin_that_is_not_allowed_can_read_nothing(server):
    with (
        loopback.serving(loopback.respond(b"<title>x</title>")) as other,
        page_of(
            f"http://{other}", f"http://127.0.0.1:{server.port}", "CORS", FAILED_TO_LOAD
        ) as page,
    ):
        failure = page.evaluate(
            "(token) => call(token, 'GET', '/conversations').catch((e) => e.message)", token()
        )

    assert failure == "Failed to fetch"


def test_a_page_follows_a_stream_over_cuts_without_loss_or_repetition(server, origin):
    wire = Wire(server.port)
    cursor = cursor_of("follower")
    names = [f"{TITLE} {n}" for n in range(9)]
    with (
        loopback.serving(wire.forward) as address,
        page_of(origin, f"http://{address}", FAILED_TO_LOAD) as page,
    ):
        page.evaluate(START, [token("follower"), cursor])
        for n, name in enumerate(names):
            create(server, "follower", name, custom={"lines": "a\u2028b\u2029c\x85d"})
            assert titles(page, n + 1) == names[: n + 1]
            if n % 3 == 1:
                wire.cut()
        [[change, last], *_] = received(page, 9)[::-1]
        page.evaluate("window.stop.abort()")
        page.wait_for_function("window.ended")

    assert change["conversation"]["custom"] == {"lines": "a\u2028b\u2029c\x85d"}
    assert last != cursor


def test_a_page_survives_a_restart_of_the_service(tmp_path, server, origin):
    settings = {
        "application": "config.wsgi:application",
        "CORS_ALLOWED_ORIGINS": origin,
        "CHANGES_LOOK_S": "0.1",
    }
    cursor = cursor_of("restart")
    wire = Wire(0)
    with (
        loopback.serving(wire.forward) as address,
        page_of(origin, f"http://{address}", FAILED_TO_LOAD) as page,
    ):
        with serving(tmp_path / "log", **settings) as restarted:
            wire.port = restarted.port
            page.evaluate(START, [token("restart"), cursor])
            create(server, "restart", "before")
            assert titles(page, 1) == ["before"]
        create(server, "restart", "meanwhile")
        with serving(tmp_path / "log", **settings) as restarted:
            wire.port = restarted.port
            assert titles(page, 2) == ["before", "meanwhile"]
            create(server, "restart", "after")
            assert titles(page, 3) == ["before", "meanwhile", "after"]


def test_a_page_renews_a_token_that_expires(server, origin):
    cursor = cursor_of("renewal")
    with page_of(origin, f"http://127.0.0.1:{server.port}", FAILED_TO_LOAD) as page:
        page.evaluate("(t) => (window.first = t)", token("renewal", exp=int(time.time()) + 2))
        page.evaluate(START, [token("renewal"), cursor])
        create(server, "renewal", "first")
        assert titles(page, 1) == ["first"]
        page.wait_for_function("window.tokens.includes(true)")
        create(server, "renewal", "second")
        assert titles(page, 2) == ["first", "second"]


@pytest.mark.parametrize(("sent", "ended"), [("nonsense", "HTTP 401"), (None, "HTTP 400")])
def test_follow_ends_with_a_response_that_no_repetition_changes(server, origin, sent, ended):
    with page_of(origin, f"http://127.0.0.1:{server.port}", FAILED_TO_LOAD) as page:
        page.evaluate(START, [sent or token(), "not-a-cursor"])
        page.wait_for_function("window.ended")

        assert page.evaluate("window.ended") == ended


EVENT = 'event: change\r\ndata: {"title": "Caf\u00e9 \U0001f319"}\r\nid: c1\r\n\r\n'
STREAMS = {
    "one piece": [": heartbeat\n\n" + EVENT.replace("\r\n", "\n")],
    "CRLF": [EVENT],
    "CR": [EVENT.replace("\r\n", "\r")],
    "two events in one piece": [EVENT + EVENT.replace("c1", "c2")],
}


@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_follow_reads_events_over_every_border_of_pieces(origin, kind, size):
    [stream] = STREAMS[kind]
    raw = stream.encode()

    def talk(client):
        request = client.recv(65_536).lower()
        headers = (
            f"Access-Control-Allow-Origin: {origin}\r\nConnection: close\r\n"
            "Access-Control-Allow-Headers: authorization, last-event-id\r\n"
        )
        if request.startswith(b"options") or b"last-event-id: c" in request:
            loopback.write(client, b"", headers=headers)
            return
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{headers}\r\n"
        client.sendall(head.encode())
        for start in range(0, len(raw), size):
            client.sendall(raw[start : start + size])
            time.sleep(0.002)

    with (
        loopback.serving(talk) as address,
        page_of(origin, f"http://{address}", FAILED_TO_LOAD) as page,
    ):
        page.evaluate(START, ["t", None])
        found = received(page, raw.count(b"event:"))

    assert [change for change, _ in found] == [{"title": "Café 🌙"}] * raw.count(b"event:")
    assert [cursor for _, cursor in found] == re.findall(r"id: (c\d)", stream)


def test_both_pages_have_the_same_function():
    pattern = r"^async function follow\(.*?^}$"
    [here] = re.findall(pattern, TEXT, re.MULTILINE | re.DOTALL)
    sync = (GUIDE / "sync.md").read_text(encoding="utf-8")

    assert re.findall(pattern, sync, re.MULTILINE | re.DOTALL) == [here]
    assert "Buffer" not in sync + TEXT
    assert not re.search(r"for await", sync + TEXT)
