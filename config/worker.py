"""gunicorn's gevent worker, patient with clients up to a point.

gunicorn has no limit on how long a request may take to arrive: one byte a second holds a
connection for ever. TLS ends in front of this service, so connections are plain TCP.

Nothing here may import Django or PyMongo at the top: the master loads this module, and sockets
are patched after the fork.
"""

import errno
import signal
import socket
import time
from contextlib import AbstractContextManager, nullcontext, suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import gevent.socket
from gunicorn.http import wsgi
from gunicorn.http.errors import ParseException
from gunicorn.util import write_nonblock
from gunicorn.workers.ggevent import GeventWorker

from config.env import env

if TYPE_CHECKING:
    from typing_extensions import Buffer

HEAD_S = env("CLIENT_HEAD_TIMEOUT_S")
BODY_S = env("CLIENT_BODY_TIMEOUT_S")
SEND_S = 30.0
LINGER_S = 2.0
# What may be left unread of a body without losing the connection, and on closing it.
DRAIN_BYTES = 128 * 1024
LINGER_BYTES = 1024 * 1024

wsgi.SERVER = env("SERVICE_NAME")  # the Server header


class TooSlow(BaseException):
    """A request did not arrive in time.

    A BaseException, as gevent's own Timeout is: Django would take an Exception for a bug of the
    view that reads the body.
    """

    def __str__(self) -> str:
        return "the request did not arrive in time"


class Connection(gevent.socket.socket):
    """A client's connection, with a deadline for all that is still to arrive."""

    def __init__(self, accepted: gevent.socket.socket) -> None:
        super().__init__(accepted.family, accepted.type, fileno=accepted.detach())
        self.rest(HEAD_S)

    def rest(self, limit_s: float) -> None:
        """Between requests: wait so long for the next one to begin."""
        self.resting = True
        self.deadline = time.monotonic() + limit_s

    def expect(self, limit_s: float) -> None:
        """Within a request: everything asked for must have arrived after so many seconds."""
        self.resting = False
        self.deadline = time.monotonic() + limit_s

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Return what has arrived, nothing if the client left or rested for too long, or raise
        TooSlow.
        """
        try:
            self.settimeout(self._remaining_s())
            received: bytes = super().recv(size, flags)
        except TimeoutError:
            if self.resting:
                return b""
            raise TooSlow from None
        if self.resting:
            self.expect(HEAD_S)
        return received

    def _remaining_s(self) -> float:
        remaining_s = self.deadline - time.monotonic()
        if remaining_s <= 0:
            raise TimeoutError
        return remaining_s

    def sendall(self, data: "Buffer", flags: int = 0) -> None:
        try:
            self.settimeout(SEND_S)
            super().sendall(data, flags)
        except TimeoutError:
            raise ConnectionResetError(errno.ECONNRESET, "the client does not read") from None

    def close(self) -> None:
        """Take in what is still on its way: with bytes unread, the kernel would answer the client
        with a reset that may destroy our last words to it.
        """
        with suppress(OSError, TooSlow):
            self.shutdown(socket.SHUT_WR)
            self.expect(LINGER_S)
            unread = LINGER_BYTES
            while unread > 0 and (received := self.recv(65_536)):
                unread -= len(received)
        super().close()


class PatientWorker(GeventWorker):  # type: ignore[misc]
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.resting: set[Connection] = set()

    def init_process(self) -> None:
        # gunicorn itself listens only later, after patching: a signal in between would be lost,
        # and the master would wait for this worker until the graceful timeout.
        signal.signal(signal.SIGTERM, self.handle_exit)
        super().init_process()

    def timeout_ctx(self) -> AbstractContextManager[None]:
        return nullcontext()  # connections keep their own time

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        connection = Connection(client)
        self.resting.add(connection)
        try:
            super().handle(listener, connection, addr)
        finally:
            self.resting.discard(connection)

    def handle_request(self, listener_name: Any, req: Any, sock: Connection, addr: Any) -> None:
        self.resting.discard(sock)
        sock.expect(BODY_S)
        super().handle_request(listener_name, req, sock, addr)
        if not self.alive or not drained(req, sock):
            raise StopIteration  # gunicorn's word for closing the connection
        sock.rest(self.cfg.keepalive)
        self.resting.add(sock)

    def notify(self) -> None:
        """When stopping, hang up on resting clients: they would hold it up as requests do.

        Tell it to those who wait, too.
        """
        super().notify()
        if not self.alive:
            from conversation_service import shutdown  # noqa: PLC0415 - after patching

            shutdown.begun.set()
            for connection in self.resting:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RD)

    def handle_error(self, req: Any, client: Connection, addr: Any, exc: BaseException) -> None:
        from config.refusals import refusal  # noqa: PLC0415 - brings Django along

        failure, answer = refusal(req, exc)
        if failure.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self.log.error("Error handling a request", exc_info=exc)
        else:
            self.log.warning("Refused a request from %s: %.100s", (addr or ("",))[0], exc)
        with suppress(OSError):
            write_nonblock(client, answer)


def drained(req: Any, connection: Connection) -> bool:
    """Read what the application left of a body; false if it is too long or too slow for that."""
    connection.expect(LINGER_S)
    try:
        return len(req.body.read(DRAIN_BYTES)) < DRAIN_BYTES
    except (TooSlow, ParseException):
        return False
