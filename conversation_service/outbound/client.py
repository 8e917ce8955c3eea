"""POST requests to URLs that staff or another service enters, such as those of webhooks.

No proxy, netrc, cookie or redirect applies, and each request has its own connection. The reply's
body is dropped: otherwise a URL's author could read from the network that this process is in.
"""

import re
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from functools import cache, partial
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse
from io import BufferedReader, RawIOBase
from time import monotonic
from typing import Any, NamedTuple, cast

from django.conf import settings

from config.variables import DEFAULT_PORTS
from conversation_service.outbound.addresses import AddressRejected, Target, parse, resolve
from conversation_service.upstreams.http import Exchange, register_socket

# A reply's limit, head and body together. A longer head is an error; a longer body is cut.
MAX_BYTES = 16 * 1024
# A host's addresses to connect to, in the system's order. They share the time that is left. All
# other addresses are checked too.
MAX_CONNECTS = 4


class Reason(StrEnum):
    """Why a request has no usable reply. The values are stored and are labels of metrics."""

    ADDRESS_REJECTED = "address_rejected"  # the URL, or an address of its host
    DNS = "dns"  # the host has no address, or the name server failed
    CONNECT = "connect"  # no address accepts a connection
    TLS = "tls"  # also a certificate that is not trusted, or is for another name
    TIMEOUT = "timeout"
    DISCONNECTED = "disconnected"  # before the end of the reply's head
    PROTOCOL = "protocol"  # the reply is not HTTP
    TOO_LARGE = "too_large"  # the reply's head
    REDIRECT = "redirect"  # the status is 3xx


class Reply(NamedTuple):
    """Any status but 3xx. `retry_after_s` is not negative, and has no upper bound."""

    status: int
    retry_after_s: float | None
    duration_ms: int


class OutboundError(Exception):
    """The request has no usable reply. The receiver can have got it, except before `tls`.

    `status` is set for a redirect only. No attribute contains a part from the reply's body.
    """

    def __init__(self, reason: Reason, duration_ms: int, status: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.duration_ms = duration_ms
        self.status = status


def post(url: str, body: bytes, headers: Mapping[str, str], *, timeout_s: float) -> Reply:
    """POST to a URL that the address guard allows. Raises OutboundError.

    `timeout_s` limits everything together: look-up, connection, TLS, request and reply. The reply's
    body, or its first 16 kB, must arrive within the limit too.
    """
    started = monotonic()
    try:
        send = partial(_send, parse(url), body, headers, started + timeout_s)
        status, retry_after_s = Exchange(send).wait(timeout_s)
    except FAILURES as error:
        reason = next(reason for kind, reason in _REASONS if isinstance(error, kind))
        raise OutboundError(reason, _elapsed_ms(started)) from None
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        raise OutboundError(Reason.REDIRECT, _elapsed_ms(started), status)
    return Reply(status, retry_after_s, _elapsed_ms(started))


class _NotConnected(Exception):
    pass


class _TooLarge(Exception):
    pass


# In this order: the first match counts.
_REASONS: list[tuple[type[Exception], Reason]] = [
    (AddressRejected, Reason.ADDRESS_REJECTED),
    (_NotConnected, Reason.CONNECT),
    (socket.gaierror, Reason.DNS),
    (TimeoutError, Reason.TIMEOUT),
    (ssl.SSLError, Reason.TLS),
    (_TooLarge, Reason.TOO_LARGE),
    (EOFError, Reason.DISCONNECTED),
    (OSError, Reason.DISCONNECTED),
    (HTTPException, Reason.PROTOCOL),
    (ValueError, Reason.PROTOCOL),  # http.client does not check all numbers in a reply
    (OverflowError, Reason.PROTOCOL),
]
FAILURES = tuple(kind for kind, _reason in _REASONS)


class _Reader(BufferedReader):
    def flush(self) -> None:
        """Do nothing: an HTTPResponse that is finalized flushes a reader that can be closed."""


class _BoundedReply(RawIOBase):
    """The first MAX_BYTES from a socket. At the end of the data it raises EOFError.

    Otherwise http.client would accept a head that ends too early.
    """

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._left = MAX_BYTES
        self._buffered = _Reader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._left:
            raise _TooLarge
        size = self._socket.recv_into(buffer, min(len(buffer), self._left))
        if not size:
            raise EOFError
        self._left -= size
        return size

    def makefile(self, _mode: str) -> _Reader:
        """Replace the socket's method, which HTTPResponse calls."""
        return self._buffered


def _send(
    target: Target, body: bytes, headers: Mapping[str, str], deadline: float
) -> tuple[int, float | None]:
    """Return the status and the seconds in Retry-After."""
    with _connect(target, deadline) as connected:
        connection = HTTPConnection(target.host, target.port)
        connection.default_port = DEFAULT_PORTS[target.scheme]  # which Host omits
        connection.sock = connected
        sent = {"User-Agent": settings.SERVICE_NAME, "Connection": "close", **headers}
        connection.request("POST", target.path, body, sent)
        reply = _BoundedReply(connected)
        heads = [_read_head(reply)]  # a response that is not referenced closes its socket
        while heads[-1].status < HTTPStatus.OK:  # such as 103 Early Hints: another head follows
            heads.append(_read_head(reply))
        response = heads[-1]
        # http.client raises ValueError or OverflowError for a chunk with a negative size.
        broken = (EOFError, ConnectionError, HTTPException, ValueError, OverflowError)
        with suppress(_TooLarge, *broken):
            response.read(MAX_BYTES)
    return response.status, _retry_after_s(response.headers.get("Retry-After", ""))


def _connect(target: Target, deadline: float) -> socket.socket:
    """Connect to a checked address, with TLS if the scheme is https."""
    found = resolve(target)[:MAX_CONNECTS]
    error: OSError | None = None
    for number, (family, kind, protocol, _name, address) in enumerate(found):
        connected = socket.socket(family, kind, protocol)
        try:
            register_socket(connected)
            connected.settimeout(_left_s(deadline) / (len(found) - number))
            connected.connect(address)
            # Head and body are two writes, and the second must not wait for an acknowledgement.
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            break
        except OSError as failed:
            connected.close()
            error = failed
    else:
        raise error if isinstance(error, TimeoutError) else _NotConnected
    connected.settimeout(_left_s(deadline))
    if target.scheme == "http":
        return connected
    try:
        return _tls().wrap_socket(connected, server_hostname=target.host)
    except BaseException:
        connected.close()
        raise


@cache
def _tls() -> ssl.SSLContext:
    """Return this process's context with the system's certificates. Loading them takes 20 ms."""
    return ssl.create_default_context()


def _read_head(reply: _BoundedReply) -> HTTPResponse:
    response = HTTPResponse(cast(socket.socket, reply), method="POST")
    response.begin()
    return response


def _retry_after_s(value: str) -> float | None:
    """Return the seconds in Retry-After, which is a number or a date; None if it is neither."""
    if re.fullmatch("[0-9]{1,9}", value.strip()):
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):  # OverflowError: a year or zone with 10 digits or more
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def _left_s(deadline: float) -> float:
    return max(0.001, deadline - monotonic())  # with 0, a socket would not block


def _elapsed_ms(started: float) -> int:
    return round((monotonic() - started) * 1_000)
