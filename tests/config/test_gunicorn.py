"""The real gunicorn with the real configuration, one worker, and an application that waits."""

import json
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from uuid import uuid4

import pytest
import requests
from redis import Redis

from config.env import env
from conversation_service.development.process import free_port
from tests import leaks
from tests.config.processes import environment, eventually, is_open

PATIENT_S = "60"  # a busy machine must not count as a slow client
LIMIT_S = 0.5
REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
COMMAND = [sys.executable, "-m", "gunicorn", "-c", "config/gunicorn.conf.py"]


class Server:
    def __init__(self, process: subprocess.Popen, port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.log = log

    def get(self, path: str, **options) -> requests.Response:
        return requests.get(f"http://127.0.0.1:{self.port}{path}", timeout=60, **options)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def send(self, *pieces: bytes) -> bytes:
        """Send the pieces, and return the whole response."""
        with self.connect() as client:
            for piece in pieces:
                client.sendall(piece)
            return read(client)

    def trickle(self, head: bytes, piece: bytes) -> bytes:
        """Send a piece each 0.1 s until the server responds; return the whole response."""
        with self.connect() as client:
            client.sendall(head)
            while not select.select([client], [], [], 0.1)[0]:
                client.sendall(piece)
            return read(client)


class Wait:
    """Requests to tests/config/waiting_app.py that wait until a test ends them."""

    def __init__(self) -> None:
        self._key = uuid4().hex
        self._valkey = Redis.from_url(env("REDIS_URL"))

    def path(self, way: str) -> str:
        return f"/{way}?until={self._key}"

    def arrived(self) -> int:
        return int(self._valkey.get(f"{self._key}:arrived") or 0)

    def end(self) -> None:
        self._valkey.set(self._key, "")
        self._valkey.close()


def read(client: socket.socket) -> bytes:
    """Return everything up to the end of the connection."""
    return b"".join(iter(lambda: client.recv(65_536), b""))


@contextmanager
def serving(
    log: Path,
    application: str = "tests.config.waiting_app:application",
    *,
    folder: Path | None = None,
    **changes: str,
) -> Iterator[Server]:
    """Serve an application of this checkout, or of the checkout in `folder`.

    Fails if this checkout logs a text of a request at LOG_LEVEL=DEBUG.
    """
    port = int(changes.get("PORT") or free_port())
    settings = {
        "LOG_LEVEL": "INFO" if folder else "DEBUG",
        "DJANGO_SETTINGS_MODULE": "config.settings.test",
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "WEB_CONCURRENCY": "1",
        "CLIENT_HEAD_TIMEOUT_S": PATIENT_S,
        "CLIENT_BODY_TIMEOUT_S": PATIENT_S,
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*COMMAND, application],
            cwd=folder,
            env=environment(**settings | changes),
            stdout=output,
            stderr=output,
        )
    try:
        with leaks.requests_sent() as sent:
            wait_until_ready(process, port, log)
            yield Server(process, port, log)
    finally:
        process.terminate()
        process.wait(60)
    if not folder:
        leaks.check_log(log.read_text(), sent)


def wait_until_ready(process: subprocess.Popen, port: int, log: Path) -> None:
    """Wait until a worker responds: on a busy machine, long after the master listens."""

    def responds() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            requests.get(f"http://127.0.0.1:{port}/", timeout=60)
        except requests.ConnectionError:
            return False
        return True

    eventually(responds, log=log)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("gunicorn") / "log", PYTHONDEVMODE="1") as server:
        yield server


@pytest.fixture(scope="module")
def strict_server(tmp_path_factory):
    """A server that waits LIMIT_S for a head or a body."""
    limits = {"CLIENT_HEAD_TIMEOUT_S": str(LIMIT_S), "CLIENT_BODY_TIMEOUT_S": str(LIMIT_S)}
    with serving(tmp_path_factory.mktemp("strict") / "log", **limits) as server:
        yield server


def test_it_starts_without_a_warning(server):
    assert "Warning" not in server.log.read_text()


def test_one_worker_serves_waiting_requests_concurrently(server, mongo):
    ways = ["mongodb", "valkey", "upstream"] * 15
    wait = Wait()
    with ThreadPoolExecutor(len(ways)) as pool, Redis.from_url(env("REDIS_URL")) as valkey:
        responses = [pool.submit(server.get, wait.path(way)) for way in ways]
        eventually(lambda: wait.arrived() == 60)  # the 15 requests of `upstream` count twice
        assert server.get("/").content == b"quick"
        assert not any(response.done() for response in responses)

        wait.end()
        for _ in range(15):
            valkey.rpush("waited_for", "")

        def all_have_ended() -> bool:
            mongo["waited_for"].insert_one({})  # again for a statement that started meanwhile
            return all(response.done() for response in responses)

        eventually(all_have_ended)
        assert {response.result().status_code for response in responses} == {200}


@pytest.mark.parametrize(
    ("head", "status", "code"),
    [
        (b"NONSENSE\r\n\r\n", 400, "VALIDATION_ERROR"),
        (b"GET / HTTP/1.1\r\nBad Name: x\r\n\r\n", 400, "VALIDATION_ERROR"),
        (
            b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            400,
            "VALIDATION_ERROR",
        ),
        (b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\n\r\n", 414, "URI_TOO_LONG"),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 9_000 + b"\r\n\r\n", 431, "HEADERS_TOO_LARGE"),
        (b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 65 + b"\r\n", 431, "HEADERS_TOO_LARGE"),
        (b"GET / HTTP/1.1\r\nExpect: a miracle\r\n\r\n", 417, "EXPECTATION_FAILED"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "VALIDATION_ERROR"),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "VALIDATION_ERROR"),
        (b"GET /a%2Fb HTTP/1.1\r\nHost: a\r\n\r\n", 404, "NOT_FOUND"),
    ],
)
def test_requests_that_gunicorn_rejects_get_the_error_format_of_the_api(server, head, status, code):
    answer_head, body = server.send(head).split(b"\r\n\r\n", 1)

    response = json.loads(body)
    assert answer_head.startswith(b"HTTP/1.1 %d " % status)
    assert b"application/json" in answer_head
    assert response["status"] == status
    assert response["error"]["code"] == code
    assert response["error"].keys() == {
        *("code", "type", "message", "details", "error_id", "request_id"),
    }
    assert response["error"]["request_id"].encode() in answer_head


@pytest.mark.parametrize(
    ("head", "advice"),
    [
        (b"GET /?search=" + b"a" * 8_200 + b" HTTP/1.1\r\n\r\n", "Shorten the query string"),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 9_000 + b"\r\n\r\n", "Send fewer or shorter headers"),
    ],
)
def test_a_head_that_is_too_long_names_the_limit_and_the_remedy(server, head, advice):
    problem = json.loads(server.send(head).split(b"\r\n\r\n", 1)[1])

    assert "8,190 bytes" in problem["detail"]
    assert advice in problem["detail"]
    assert problem["error"]["message"] == problem["detail"]
    assert problem["type"] == f"/api/errors/{problem['error']['code']}"


def test_a_request_line_may_have_8190_bytes(server):
    line = b"GET /" + b"a" * (8_190 - len(b"GET / HTTP/1.1")) + b" HTTP/1.1\r\nHost: a\r\n\r\n"

    assert b"414" not in server.send(line).split(b"\r\n", 1)[0]


def test_a_slow_request_head_is_cut_off(strict_server):
    response = strict_server.trickle(b"GET / HTTP/1.1\r\n", b"A: 1\r\n")

    assert response.startswith(b"HTTP/1.1 408 ")


def test_a_slow_request_body_is_cut_off(strict_server):
    head = b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"

    response = strict_server.trickle(head, b"a")

    assert response.startswith(b"HTTP/1.1 408 ")
    assert b"REQUEST_TIMEOUT" in response


def test_a_silent_client_is_disconnected(strict_server):
    assert strict_server.send() == b""


def test_an_idle_connection_is_kept_longer_than_the_head_timeout(strict_server):
    with requests.Session() as session:
        url = f"http://127.0.0.1:{strict_server.port}/"
        session.get(url, timeout=60)
        connection = next(iter(session.adapters["http://"].poolmanager.pools._container.values()))
        time.sleep(LIMIT_S + 0.2)
        response = session.get(url, timeout=60)

    assert response.content == b"quick"
    assert connection.num_connections == 1


def test_a_response_reaches_a_client_that_is_still_sending(server):
    response = requests.post(f"http://127.0.0.1:{server.port}/", data=b"x" * 900_000, timeout=60)

    assert response.content == b"quick"


def test_a_stopping_server_finishes_requests_and_closes_idle_connections(tmp_path):
    with serving(tmp_path / "log") as server, server.connect() as resting:
        resting.sendall(REQUEST)
        wait = Wait()
        with ThreadPoolExecutor() as pool:
            response = pool.submit(server.get, wait.path("sleep"))
            eventually(lambda: wait.arrived() == 1)
            server.process.send_signal(signal.SIGTERM)
            assert read(resting).endswith(b"quick")
            wait.end()
            assert response.result().content == b"slept"

        assert server.process.wait(60) == 0
        assert "Traceback" not in server.log.read_text()


def kept_connection(server: Server) -> HTTPConnection:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("GET", "/")
    response = connection.getresponse()
    assert response.read() == b"quick"
    assert response.headers["Connection"] == "keep-alive"
    return connection


def connection_header(connection: HTTPConnection) -> str:
    connection.request("GET", "/")
    response = connection.getresponse()
    assert response.read() == b"quick"
    return response.headers["Connection"]


def is_draining(server: Server) -> bool:
    return server.get("/").headers["Connection"] == "close"


@pytest.mark.parametrize("name", ["SIGUSR1", "SIGTERM", "SIGHUP"])
def test_a_draining_server_responds_on_kept_connections_and_closes_them(tmp_path, name):
    with (
        serving(tmp_path / "log") as server,
        closing(kept_connection(server)) as kept,
        closing(kept_connection(server)) as idle,
    ):
        server.process.send_signal(signal.Signals[name])
        eventually(lambda: is_draining(server))

        assert connection_header(kept) == "close"
        assert is_draining(server)  # a new connection
        if name == "SIGUSR1":
            assert connection_header(idle) == "close"
            server.process.terminate()
        assert idle.sock is None or idle.sock.recv(1) == b""


def test_a_stopping_server_resets_no_connection(tmp_path):
    application = "tests.config.waiting_app:hurried"
    with serving(tmp_path / "log", application) as server, ExitStack() as opened:
        blocking = opened.enter_context(server.connect())
        wait = Wait()
        blocking.sendall(f"GET {wait.path('block')} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        eventually(lambda: wait.arrived() == 1)
        waiting = [opened.enter_context(server.connect()) for _ in range(20)]
        for client in waiting:
            client.sendall(REQUEST)
        server.process.terminate()

        assert read(blocking).endswith(b"blocked")
        assert {read(client)[-5:] for client in waiting} == {b"quick"}
        assert server.process.wait(60) == 0


def test_a_worker_without_its_master_finishes_its_requests_and_stops(tmp_path):
    with serving(tmp_path / "log") as server, ThreadPoolExecutor() as pool:
        wait = Wait()
        response = pool.submit(server.get, wait.path("sleep"))
        eventually(lambda: wait.arrived() == 1)
        server.process.kill()

        eventually(lambda: not is_open(server.port))
        assert not response.done()
        wait.end()
        assert response.result().content == b"slept"


def test_a_worker_starts_without_mongodb(tmp_path):
    nowhere = f"mongodb://127.0.0.1:{free_port()}/?replicaSet=rs0"

    with serving(tmp_path / "log", MONGODB_URL=nowhere, MONGODB_TIMEOUT_MS="100") as server:
        assert server.get("/").content == b"quick"

    [line] = [line for line in server.log.read_text().splitlines() if "cannot be used yet" in line]
    assert "Connection refused" in line


def test_the_master_imports_no_module_that_gevent_must_patch_first():
    program = "import runpy, sys; runpy.run_path('config/gunicorn.conf.py'); print(*sys.modules)"

    modules = subprocess.check_output([sys.executable, "-c", program], text=True).split()

    assert not {"asgiref", "django.db", "pymongo", "requests", "redis"} & {*modules}
