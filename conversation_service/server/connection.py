"""A client's connection, with time limits for the client.

gunicorn has none: a client that sends one byte per second would keep its connection forever. TLS
ends in front of this service, so connections are plain TCP.

Nothing here may import Django or PyMongo at the top: the master loads this module, and sockets
are patched after the fork.
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
# A client must take SEND_BYTES of a response within SEND_S, which is 2.2 kB a second. Only the time
# that the service waits for the client counts.
SEND_BYTES = 64 * 1024
SEND_S = 30.0
# Memory of all responses of one worker that wait for slow readers. The longest list has 3 MiB.
UNREAD_BYTES = 32 * 1024 * 1024
LINGER_S = 2.0
LINGER_BYTES = 1024 * 1024  # of a body, read and dropped before a connection is closed


class TooSlow(BaseException):
    """A request did not arrive in time.

    A BaseException, like gevent's own Timeout: Django would handle an Exception as a bug of the
    view that reads the body.
    """

    def __str__(self) -> str:
        return "the request did not arrive in time"


class Connection(private.Socket):
    """A client's connection with a deadline.

    The worker checks every second whether the deadline has passed, and then ends the wait. If
    there are too many connections, it closes the one that has waited longest for a request, or
    else the one that has waited longest for its client to send a body or to read a response.
    """

    def __init__(self, accepted: gevent.socket.socket) -> None:
        super().__init__(accepted.family, accepted.type, fileno=accepted.detach())
        self.giving_way = False
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            # The kernel then reports progress after each SEND_BYTES. By default it reports after a
            # third of its buffer, up to 1 MB, and an allowed slow reader would exceed SEND_S.
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

    def expect(self, limit_s: float) -> None:
        """Require that the rest of the request arrives within `limit_s`."""
        self.resting = False
        self.deadline = time.monotonic() + limit_s

    def begin_request(self) -> None:
        """Keep the connection until rest(): it does not give way to another client."""
        self.idle_since = None

    def give_way(self) -> None:
        """End the connection at once, without a response, to make room for another client."""
        self.giving_way = True
        self.stop_waiting()

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Return the received bytes, or raise TooSlow.

        Returns no bytes if the client left, if it rested for too long, or if the worker closed
        the connection while it rested or to make room.
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
        return received

    def is_late(self) -> bool:
        return time.monotonic() > self.deadline

    def sendall(self, data: bytes, flags: int = 0) -> None:  # type: ignore[override]
        """Send the data at once if the kernel takes all of it, and wait for the reader if not.

        Raises ConnectionResetError if the client reads more slowly than SEND_BYTES in SEND_S, or
        has waited longest when responses that wait hold UNREAD_BYTES.
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
            self._wait_for_reader(len(data))

    def _wait_for_reader(self, held_bytes: int) -> None:
        began = time.monotonic()
        try:
            with waiting.counted(self, held_bytes):
                wait_write(self.fileno(), self.patience_s, TimeoutError)
        except TimeoutError:
            self._reset_on_close()
            raise ConnectionResetError(errno.ECONNRESET, "the client reads too slowly") from None
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
        """Read the rest of the request first.

        With bytes unread, the kernel would send a reset, after which the client may lose the end
        of its response.
        """
        if not self.resting and not self.giving_way:
            self._read_rest()
        super().close()

    def _read_rest(self) -> None:
        self.idle_since = 0.0  # the first to give way
        with suppress(OSError, TooSlow):
            self.shutdown(socket.SHUT_WR)
            self.expect(LINGER_S)
            self.settimeout(LINGER_S)
            unread = LINGER_BYTES
            while unread > 0 and (received := self.recv(65_536)):
                unread -= len(received)


class WaitingForClients:
    """The connections of this worker that wait within a request for their clients.

    They are in the order in which their waiting began.
    """

    def __init__(self) -> None:
        self._held_bytes: dict[Connection, int] = {}

    @contextmanager
    def counted(self, connection: Connection, held_bytes: int = 0) -> Iterator[None]:
        """Count a connection, and the memory of its response, while it waits."""
        self._held_bytes[connection] = held_bytes
        while sum(self._held_bytes.values()) > UNREAD_BYTES and len(self._held_bytes) > 1:
            self.cut_off_first()
        try:
            yield
        finally:
            self._held_bytes.pop(connection, None)

    def cut_off_first(self) -> Connection | None:
        """Cut off the connection that has waited longest. Return it, or None if none waits."""
        connection = next(iter(self._held_bytes), None)
        if connection:
            del self._held_bytes[connection]
            connection.cut_off()
        return connection


waiting = WaitingForClients()
