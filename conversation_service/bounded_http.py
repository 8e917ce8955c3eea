"""One small GET that ends in time, whatever the other side does.

The timeouts of requests, like those of sockets, bound each single read: a server that sends a
byte every second is never late for them, not even with its headers.
"""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from http.client import HTTPConnection, HTTPException
from threading import Timer
from time import monotonic
from urllib.parse import SplitResult, urlsplit

# Everything that get() raises.
GetFailed = (OSError, HTTPException, ValueError)

_PORTS = {"http": 80, "https": 443}


def get(url: str, *, timeout_s: float, limit: int) -> tuple[int, bytes]:
    """Return the status and the body of an http or https URL, following no redirect.

    Raises one of GetFailed if that takes longer than `timeout_s`, or if the body has more than
    `limit` bytes; with a limit of 0 the body is not read at all. Only the look-up of the host's
    name, and a second address of it, can exceed the time.
    """
    target = urlsplit(url)
    if target.scheme not in _PORTS or not target.hostname:
        raise ValueError("This is not an http or https URL")
    deadline = monotonic() + timeout_s
    with _channel(target, timeout_s) as channel, _cut_at(deadline, channel):
        if isinstance(channel, ssl.SSLSocket):
            channel.do_handshake()
        status, body = _exchange(channel, target, limit)
    if monotonic() >= deadline:  # a connection that was cut may look like the end of an answer
        raise TimeoutError("The answer took too long")
    return status, body


def _channel(target: SplitResult, timeout_s: float) -> socket.socket:
    address = (target.hostname, target.port or _PORTS[target.scheme])
    plain = socket.create_connection(address, timeout_s)
    if target.scheme == "http":
        return plain
    return _tls().wrap_socket(plain, server_hostname=target.hostname, do_handshake_on_connect=False)


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


@contextmanager
def _cut_at(deadline: float, channel: socket.socket) -> Iterator[None]:
    timer = Timer(deadline - monotonic(), _cut, [channel])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _cut(channel: socket.socket) -> None:
    with suppress(OSError):  # it has ended by itself
        # Not SSLSocket's, which would unwrap the stream under its reader.
        socket.socket.shutdown(channel, socket.SHUT_RDWR)


def _exchange(channel: socket.socket, target: SplitResult, limit: int) -> tuple[int, bytes]:
    connection = HTTPConnection(str(target.hostname), target.port or _PORTS[target.scheme])
    connection.sock = channel
    path = target._replace(scheme="", netloc="", path=target.path or "/", fragment="").geturl()
    connection.request("GET", path, headers={"Accept": "application/json", "Connection": "close"})
    response = connection.getresponse()
    if limit == 0:
        return response.status, b""
    body = response.read(limit + 1)
    if len(body) > limit:
        raise ValueError(f"The body has more than {limit} bytes")
    return response.status, body
