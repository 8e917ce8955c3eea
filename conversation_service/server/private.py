"""Every use of a library's private parts, with its reason and the test that guards it.

Private parts can change in any release. After an update of gunicorn, gevent or PyMongo, the tests
named here must pass; tests/conversation_service/server/test_private.py finds uses in other files.

Do not import Django or PyMongo at the top: gunicorn's master loads this module, and sockets are
patched after the fork.
"""

import logging
import socket
from email.utils import formatdate
from operator import attrgetter
from typing import Any

import gevent.socket
from gevent.server import StreamServer
from gevent.socket import cancel_wait
from gevent.thread import LockType  # type: ignore[import-not-found]
from gunicorn.http import message, wsgi
from gunicorn.workers import ggevent

ONE_SEGMENT = 64 * 1024  # bytes


# gunicorn 27.0: gunicorn.http.wsgi


class Response(wsgi.Response):  # type: ignore[misc]
    """gunicorn's response, in one TCP segment and without checks that Django has already done.

    Saves 4 % of a GET (docs/performance.md). Guards: tests/config/test_gunicorn.py, for example
    test_it_starts_without_a_warning, and tests/conversation_service/server/test_connections.py.
    """

    headers_sent: bool

    def write(self, part: bytes) -> None:
        """Send the head and a short body in a single segment if the body comes in a single part.

        A long body would be in memory twice while its client reads it.
        """
        in_parts = self.headers_sent or len(part) != self.response_length
        if in_parts or self._omits_body or len(part) > ONE_SEGMENT:
            super().write(part)
            return
        head = "".join(self.default_headers()) + "\r\n".join(map(": ".join, self.headers))
        self.headers_sent = True
        self.sent = len(part)
        self.sock.sendall(b"%s\r\n\r\n%s" % (head.encode("latin-1"), part))

    def process_headers(self, headers: list[tuple[str, str]]) -> None:
        """Accept the headers unchecked: Django rejects line breaks and sends no hop-by-hop ones."""
        self.headers = headers
        for name, value in headers:
            if name.lower() == "content-length":
                self.response_length = int(value)

    def default_headers(self) -> list[str]:
        lines = [
            f"HTTP/1.1 {self.status}\r\n",
            f"Server: {self.version}\r\n",
            f"Date: {formatdate(usegmt=True)}\r\n",
            f"Connection: {'close' if self.should_close() else 'keep-alive'}\r\n",
        ]
        return [*lines, "Transfer-Encoding: chunked\r\n"] if self.chunked else lines


class Server(StreamServer):
    """gevent's server; at its end it serves the connections that the kernel has accepted.

    The kernel would reset them. Guard: test_a_stopping_server_resets_no_connection of
    tests/config/test_gunicorn.py.
    """

    def close(self) -> None:
        while self.started and not self.full() and (accepted := self.do_read()):
            self.do_handle(*accepted)
        super().close()


def change_gunicorn(*, server: str, body_reader: type) -> None:
    """Use the classes above, this Server header, and this reader for bodies with a length.

    gunicorn has no setting for them. Its own reader accepts a body that ends before its
    Content-Length. Guards: tests/config/test_gunicorn.py, and the tests of bodies that end early in
    tests/conversation_service/server/test_request.py.
    """
    ggevent.StreamServer = Server
    wsgi.SERVER = server
    wsgi.Response = Response
    message.LengthReader = body_reader


def read_settings_once(cfg: Any) -> None:
    """Store the value of each gunicorn setting in its configuration object.

    gunicorn reads about 20 settings per request, each with two function calls. Saves 3 % of a GET.
    Guard: test_it_starts_without_a_warning in tests/config/test_gunicorn.py.
    """
    cfg.__dict__.update({name: setting.get() for name, setting in cfg.settings.items()})


def take_expectation(request: Any) -> bool:
    """Return True if the client waits for `100 Continue`, which the caller must then send.

    gunicorn sends it with the first read, but the body is read before the view runs. Guard:
    test_a_client_that_waits_for_100_continue_gets_it_once of
    tests/conversation_service/server/test_request.py.
    """
    expected: bool = request._expected_100_continue
    request._expected_100_continue = False
    return expected


# gevent 26.9


class Socket(gevent.socket.socket):
    """gevent's socket with three more operations.

    Guards: tests/conversation_service/server/test_connections.py, and the tests of slow clients in
    tests/config/test_gunicorn.py.
    """

    _sock: socket.socket
    _read_event: Any  # the event loop's

    def send_now(self, data: bytes | memoryview, flags: int = 0) -> int:
        """Return how many bytes the kernel took at once. Raises BlockingIOError."""
        return self._sock.send(data, flags)

    def shut_down_now(self) -> None:
        """End both directions, also while a greenlet waits. Raises OSError."""
        self._sock.shutdown(socket.SHUT_RDWR)

    def stop_waiting(self) -> None:
        """Raise TimeoutError in a recv() that waits. A timer for each recv() is much slower."""
        cancel_wait(self._read_event, TimeoutError)


def change_gevent() -> None:
    """Let a threading.Condition check its lock without a switch to other greenlets.

    Without `_is_owned`, Condition tries to acquire the lock, and gevent's lock then runs all other
    greenlets first. PyMongo does that twice per command. Guard:
    tests/conversation_service/server/test_private.py.
    """
    LockType._is_owned = LockType.locked


# Python's logging


def skip_callers() -> None:
    """Create log records without the file, line, thread and process name of the call.

    No formatter writes them. Python's Logging HOWTO describes these switches under "Optimization".
    Guard: test_a_log_record_has_no_caller of tests/conversation_service/server/test_private.py.
    """
    logging._srcfile = None
    logging.logThreads = False
    logging.logMultiprocessing = False


# PyMongo 4.20


# A database's method that returns the reply to a command, given the command and its name. The
# command is retried once as PyMongo's own reads are: Database.command() does not retry, and a
# cursor costs a sixth more than one batch. All attempts share one timeoutMS. Guards:
# tests/conversations/test_unavailable_database.py and tests/conversations/test_failover.py.
read_command = attrgetter("_retryable_read_command")


def pool_sizes(client: Any) -> tuple[int, int]:
    """Return a MongoClient's open connections, and how many are in use.

    PyMongo's events have the same information, but cost 15 µs per command: more than 2 % of a GET.
    Guard: test_commands_and_connections_of_mongodb_are_counted of
    tests/conversation_service/observability/test_metrics.py.
    """
    pools = [server.pool for server in [*client._topology._servers.values()]]
    in_use = sum(pool.active_sockets for pool in pools)
    return in_use + sum(len(pool.conns) for pool in pools), in_use


def remaining_timeout(limit_s: float) -> float:
    """Return the seconds that pymongo.timeout() leaves, `limit_s` at most.

    Guard: test_a_host_with_a_hanging_name_resolution_is_503 of
    tests/conversation_service/mongodb/test_connecting.py.
    """
    from pymongo import _csot  # noqa: PLC0415 - after sockets are patched

    return _csot.clamp_remaining(limit_s)
