"""More connections than the limit of a worker, and clients that do not read, with gunicorn."""

import socket
import time
from contextlib import ExitStack, suppress

import pytest

from tests.config.processes import eventually
from tests.config.test_gunicorn import Wait, read, serving

LIMIT = 8
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LONG = b"GET /long HTTP/1.1\r\nHost: a\r\n\r\n"
MEGABYTE = 1_000_000
LAST = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    log = tmp_path_factory.mktemp("connections") / "log"
    arguments = f"--worker-connections {LIMIT}"
    with serving(log, GUNICORN_CMD_ARGS=arguments) as server:
        yield server


@pytest.fixture
def clients():
    with ExitStack() as clients:
        yield clients


def connect(server, clients, sent: bytes = b"") -> socket.socket:
    client = clients.enter_context(socket.socket())
    # Without this the kernel may buffer a long response for a client that does not read.
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    client.settimeout(60)
    client.connect(("127.0.0.1", server.port))
    client.sendall(sent)
    return client


def rest(server, clients) -> socket.socket:
    """Return a connection that has had its response and stays open."""
    client = connect(server, clients, GET)
    receive_response(client)
    return client


def receive_response(client: socket.socket) -> None:
    received = b""
    while not received.endswith(b"quick"):
        received += client.recv(1_000)


def is_closed(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
    finally:
        client.settimeout(60)


def test_a_new_client_replaces_the_longest_idle_one(server, clients):
    resting = [rest(server, clients) for _ in range(LIMIT - 1)]

    receive_response(connect(server, clients, GET))

    eventually(lambda: is_closed(resting[0]))
    assert not [client for client in resting[1:] if is_closed(client)]


def test_another_request_restarts_the_idle_time(server, clients):
    resting = [rest(server, clients) for _ in range(LIMIT - 1)]
    resting[0].sendall(GET)
    receive_response(resting[0])

    receive_response(connect(server, clients, GET))

    eventually(lambda: is_closed(resting[1]))
    assert not is_closed(resting[0])


@pytest.mark.parametrize(
    "sent",
    [
        GET,
        b"",
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ",
        b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\nabc",
        b"NONSENSE\r\n\r\n",
        GET + LAST,
        LONG,
        b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\nabc",
    ],
    ids=[
        *("resting", "silent", "slow head", "slow body", "rejected", "closed by the server"),
        *("unread response", "slow long body", "long body that is not needed"),
    ],
)
def test_a_health_check_is_served_beside_many_waiting_clients(server, clients, sent):
    for _ in range(3 * LIMIT):
        connect(server, clients, sent)
        assert server.send(LAST).endswith(b"quick")


def test_an_idle_client_is_closed_before_a_slow_reader(server, clients):
    reading = connect(server, clients, LONG)
    resting = [rest(server, clients) for _ in range(LIMIT - 2)]

    receive_response(connect(server, clients, GET))

    eventually(lambda: is_closed(resting[0]))
    assert receive(reading, MEGABYTE) >= MEGABYTE


def receive(client: socket.socket, size: int) -> int:
    """Return the number of bytes, up to a size, before the connection ends in any way."""
    received = 0
    with suppress(ConnectionResetError):
        while received < size and (piece := client.recv(1_000_000)):
            received += len(piece)
    return received


def test_unread_responses_use_bounded_memory(tmp_path, clients):
    """Two of 1 MB are held; each further one replaces an earlier one."""
    with serving(tmp_path / "log", "tests.config.waiting_app:frugal") as server:
        reading = [connect(server, clients, LONG) for _ in range(6)]
        for client in reading:
            assert client.recv(1)  # the response has begun

        complete = [client for client in reading if receive(client, MEGABYTE) >= MEGABYTE]

        assert len(complete) == 2


def test_no_request_in_progress_is_aborted_for_a_new_client(server, clients):
    wait = Wait()
    head = f"GET {wait.path('sleep')} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    working = [connect(server, clients, head.encode()) for _ in range(LIMIT + 2)]
    eventually(lambda: wait.arrived() >= LIMIT - 1)
    wait.end()

    responses = [read(client) for client in working]

    assert [response.endswith(b"slept") for response in responses] == [True] * (LIMIT + 2)
    assert server.send(LAST).endswith(b"quick")


def test_pipelined_requests_count_as_one_client(server, clients):
    for _ in range(2 * LIMIT):
        connect(server, clients, GET * 50)

    assert server.send(LAST).endswith(b"quick")


@pytest.fixture(scope="module")
def impatient(tmp_path_factory):
    """A server that waits less than the real one for clients that read slowly."""
    log = tmp_path_factory.mktemp("readers") / "log"
    with serving(log, "tests.config.waiting_app:impatient") as server:
        yield server


def read_slowly(client: socket.socket) -> None:
    """Read everything, 20 kB a second."""
    while client.recv(200):
        time.sleep(0.01)


@pytest.mark.parametrize("path", ["/rows", "/one", "/file"])
def test_a_client_that_reads_too_slowly_is_cut_off(impatient, path):
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.settimeout(60)
        client.connect(("127.0.0.1", impatient.port))
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())

        with pytest.raises(ConnectionResetError):
            read_slowly(client)


@pytest.mark.parametrize("path", ["/rows", "/one", "/file"])
def test_a_client_that_reads_steadily_gets_the_whole_response(impatient, path):
    assert len(impatient.get(path).content) == 10_000_000


def test_a_client_above_the_minimum_rate_is_not_cut_off(impatient):
    """The kernel reports only a third of its buffer as progress."""
    with impatient.connect() as client:
        client.sendall(b"GET /rows HTTP/1.1\r\nHost: a\r\n\r\n")
        received = 0
        while received < 3_000_000:
            piece = client.recv(4_000)
            assert piece, "the server closed the connection"
            received += len(piece)
            time.sleep(0.01)
