"""A client's connection, with a deadline for whatever is still to arrive.

gunicorn has no limit on how long a request may take to arrive: one byte a second holds a
connection for ever. TLS ends in front of this service, so connections are plain TCP.

Nothing here may import Django or PyMongo at the top: the master loads this module, and sockets
are patched after the fork.
"""

import errno
import socket
import time
from contextlib import suppress
from typing import Any

import gevent.socket
from gevent.socket import cancel_wait, cancel_wait_ex  # type: ignore[attr-defined]

from config.env import env

HEAD_S = env("CLIENT_HEAD_TIMEOUT_S")
SEND_S = 30.0
LINGER_S = 2.0
LINGER_BYTES = 1024 * 1024  # what may be left unread of a body on closing a connection


class TooSlow(BaseException):
    """A request did not arrive in time.

    A BaseException, as gevent's own Timeout is: Django would take an Exception for a bug of the
    view that reads the body.
    """

    def __str__(self) -> str:
        return "the request did not arrive in time"


class Connection(gevent.socket.socket):
    """A client's connection, with a deadline for all that is still to arrive.

    Whoever has it looks every second whether it is late, and ends its waiting then.
    """

    _sock: socket.socket  # never waits
    _read_event: Any  # of the loop

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
        """Return what has arrived, or raise TooSlow.

        Nothing if the client left, rested for too long, or was hung up on while it rested.
        """
        try:
            if self.is_late():
                raise TimeoutError
            received: bytes = super().recv(size, flags)
        except (TimeoutError, cancel_wait_ex):
            if self.resting:
                return b""
            raise TooSlow from None
        if self.resting:
            self.expect(HEAD_S)
        return received

    def is_late(self) -> bool:
        return time.monotonic() > self.deadline

    def stop_waiting(self) -> None:
        """End a recv() that waits. A timer for each would cost more than all that it does."""
        cancel_wait(self._read_event, TimeoutError)

    def sendall(self, data: bytes, flags: int = 0) -> None:  # type: ignore[override]
        """Send at once what the kernel takes, which nearly always is all, and wait for the rest."""
        try:
            sent = self._sock.send(data, flags)
        except BlockingIOError:
            sent = 0
        if sent == len(data):
            return
        try:
            self.settimeout(SEND_S)
            super().sendall(memoryview(data)[sent:], flags)
        except TimeoutError:
            raise ConnectionResetError(errno.ECONNRESET, "the client does not read") from None
        finally:
            self.settimeout(None)

    def close(self) -> None:
        """Take in what is still on its way: with bytes unread, the kernel would answer the client
        with a reset that may destroy our last words to it.
        """
        with suppress(OSError, TooSlow):
            self.shutdown(socket.SHUT_WR)
            self.expect(LINGER_S)
            self.settimeout(LINGER_S)
            unread = LINGER_BYTES
            while unread > 0 and (received := self.recv(65_536)):
                unread -= len(received)
        super().close()
