"""A client's connection, with time limits for the client.

gunicorn has no such limits: a client that sends a byte per second would keep its connection
forever. TLS ends in front of this service, so connections are plain TCP.

Do not import Django or PyMongo at the top: the master loads this module, and sockets are patched
after the fork.
"""

import errno
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import gevent.socket
from gevent.socket import cancel_wait_ex, wait_write  # type: ignore[attr-defined]

from config.env import env
from conversation_service.server import private

HEAD_S = env("CLIENT_HEAD_TIMEOUT_S")
# A client must read SEND_BYTES within SEND_S, which is 2.2 kB a second. Only the time in which the
# service waits for the client counts.
SEND_BYTES = 64 * 1024
SEND_S = 30.0
# A worker's memory for responses that wait for slow readers. The longest list has 3 MiB.
UNREAD_BYTES = 32 * 1024 * 1024
LINGER_S = 2.0
LINGER_BYTES = 1024 * 1024  # of a body, read before a connection is closed


class TooSlow(BaseException):
    """A request did not arrive in time.

    A BaseException, like gevent's own Timeout: Django would handle an Exception as a bug in the
    view that reads the body.
    """

    def __str__(self) -> str:
        return "the request did not arrive in time"


class Connection(private.Socket):
    """A client's connection with a deadline.

    The worker checks every second whether the deadline has passed, and then ends the wait. If
    there are too many connections, it closes the connection that has waited longest for a request,
    or else the connection that has waited longest for its client to send a body or to read.
    """

    def __init__(self, accepted: gevent.socket.socket) -> None:
        super().__init__(accepted.family, accepted.type, fileno=accepted.detach())
        self.giving_way = False
        self.head: list[bytes] = []  # received for the next request, until its head is read
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            # The kernel then reports progress after each SEND_BYTES. Its default is a third of its
            # buffer, up to 1 MB, with which an allowed slow reader would exceed SEND_S.
            lowat = 2 * SEND_BYTES
            self.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, lowat)
        self.sent = 0
        self.patience_s = SEND_S
        self.rest(HEAD_S)

    def rest(self, limit_s: float) -> None:
        """Wait up to `limit_s` for the next request to begin."""
        self.resting = True
        self.idle_since: float | None = time.monotonic()
        self.deadline = self.idle_since + limit_s

    def is_unused(self, since: float, for_s: float) -> bool:
        """Return True if it has waited for a request for `for_s` since a time (monotonic)."""
        waiting_since = max(since, self.idle_since or 0.0)
        return self.resting and time.monotonic() - waiting_since >= for_s

    def expect(self, limit_s: float) -> None:
        """Require that the whole request arrives within `limit_s`."""
        self.resting = False
        self.deadline = time.monotonic() + limit_s

    def begin_request(self) -> None:
        """Do not give way to another client until rest()."""
        self.idle_since = None
        self.head.clear()

    def give_way(self) -> None:
        """End the connection at once, without a response, to make room for another client."""
        self.giving_way = True
        self.stop_waiting()

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Return the received bytes, or raise TooSlow.

        Returns no bytes if the client left, if the connection rested for too long, or if the
        worker closed it while it rested or to make room.
        """
        if self.giving_way:
            return b""
        try:
            if self.is_late():
                raise TimeoutError
            if self.idle_since is None:
                with waiting.counted(self):
                    received: bytes = super().recv(size, flags)
            else:
                received = super().recv(size, flags)
        except (TimeoutError, cancel_wait_ex):
            if self.resting or self.giving_way:
                return b""
            raise TooSlow from None
        if self.resting:
            self.expect(HEAD_S)
            self.head = [received]
        elif self.idle_since is not None:
            self.head.append(received)
        return received

    def is_late(self) -> bool:
        return time.monotonic() > self.deadline

    def sendall(self, data: bytes, flags: int = 0) -> None:  # type: ignore[override]
        """Send the data at once if the kernel takes everything, and wait for the reader if not.

        Raises ConnectionResetError if the client reads more slowly than SEND_BYTES in SEND_S, or
        has waited longest when waiting responses hold UNREAD_BYTES.
        """
        unsent: bytes | memoryview = data
        while True:
            try:
                sent = self.send_now(unsent, flags)
            except BlockingIOError:
                sent = 0
            self.sent += sent
            if self.sent >= SEND_BYTES:
                self.sent = 0
                self.patience_s = SEND_S
            if sent == len(unsent):
                return
            unsent = memoryview(unsent)[sent:]
            began = time.monotonic()
            try:
                with waiting.counted(self, len(data)):
                    wait_write(self.fileno(), self.patience_s, TimeoutError)
            except TimeoutError:
                self._reset_on_close()
                reason = "the client reads too slowly"
                raise ConnectionResetError(errno.ECONNRESET, reason) from None
            self.patience_s = max(0.0, self.patience_s - (time.monotonic() - began))

    def cut_off(self) -> None:
        """End a request that waits for its client: its send or receive raises OSError."""
        self.giving_way = True
        self._reset_on_close()
        with suppress(OSError):  # the client has left
            self.shut_down_now()

    def _reset_on_close(self) -> None:
        """Let the kernel drop unsent data when the connection is closed."""
        self.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def close(self) -> None:
        """Read the unread bytes first.

        Otherwise the kernel would send a reset, and the client might lose the response's end.
        """
        if not self.resting and not self.giving_way:
            self.idle_since = 0.0  # the first to give way
            with suppress(OSError, TooSlow):
                self.shutdown(socket.SHUT_WR)
                self.expect(LINGER_S)
                self.settimeout(LINGER_S)
                unread = LINGER_BYTES
                while unread > 0 and (received := self.recv(65_536)):
                    unread -= len(received)
        super().close()


class WaitingForClients:
    """This worker's connections that wait within a request for their clients.

    The connection that has waited longest is the first.
    """

    def __init__(self) -> None:
        self._held_bytes: dict[Connection, int] = {}

    @contextmanager
    def counted(self, connection: Connection, held_bytes: int = 0) -> Iterator[None]:
        """Count a connection, and its response's memory, while it waits."""
        self._held_bytes[connection] = held_bytes
        while sum(self._held_bytes.values()) > UNREAD_BYTES and len(self._held_bytes) > 1:
            self.cut_off_first()
        try:
            yield
        finally:
            self._held_bytes.pop(connection, None)

    def cut_off_first(self) -> Connection | None:
        """Cut off the connection that has waited longest. Return None if none waits."""
        connection = next(iter(self._held_bytes), None)
        if connection:
            del self._held_bytes[connection]
            connection.cut_off()
        return connection


waiting = WaitingForClients()
