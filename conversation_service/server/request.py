"""Checks of a request that HTTP requires and gunicorn omits.

Do not import Django or PyMongo at the top: the master loads this module, and sockets are patched
after the fork.
"""

import re
from ipaddress import AddressValueError, IPv6Address
from typing import Any

from gunicorn.http import body
from gunicorn.http.errors import ParseException

from config.variables import HIGHEST_PORT
from conversation_service.server import private
from conversation_service.server.connection import Connection

READ_AHEAD_BYTES = 64 * 1024  # per connection; a user's longest JSON body

# RFC 3986 section 3.2.2. A Host header has no user information.
_HOST = re.compile(
    r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+)"
    r"(?::(?P<port>[0-9]{0,5}))?"
)


class InvalidHost(ParseException):  # type: ignore[misc]  # gunicorn has no types
    def __str__(self) -> str:
        return "the Host header is missing or invalid"


class EncodedPath(ParseException):  # type: ignore[misc]
    def __str__(self) -> str:
        return "the path has an encoded slash or an encoded first segment"


class BodyIncomplete(BaseException):
    """The body ended before its Content-Length.

    A BaseException, like TooSlow: Django would handle an OSError as an empty form, and an
    Exception as a bug in the view that reads the body.
    """

    def __str__(self) -> str:
        return "the body is shorter than its Content-Length"


class WholeBodyReader(body.LengthReader):  # type: ignore[misc]
    """gunicorn's reader for a body with a Content-Length; rejects a body that is too short."""

    length: int

    def read(self, size: int) -> bytes:
        expected = min(self.length, size)
        received: bytes = super().read(size)
        if len(received) < expected:
            raise BodyIncomplete
        return received


def check_head(request: Any) -> None:
    """Raise InvalidHost (RFC 9112 section 3.2) or EncodedPath.

    `%2F` is not a slash (RFC 3986 section 2.2). A gateway that routes by prefix does not take
    `/internal%2Fv1` or `/%69nternal/v1` for `/internal/`, so the service must not either.
    """
    host = next((value for name, value in request.headers if name == "HOST"), None)
    if host is None:
        if request.version >= (1, 1):
            raise InvalidHost
    elif not is_host(host):
        raise InvalidHost
    if "%" in request.path:
        first_segment = request.path.lstrip("/").partition("/")[0]
        if "%" in first_segment or "%2f" in request.path.lower():
            raise EncodedPath


def is_host(value: str) -> bool:
    found = _HOST.fullmatch(value)
    if not found or int(found["port"] or 0) > HIGHEST_PORT:
        return False
    if found["ipv6"]:
        try:
            IPv6Address(found["ipv6"])
        except AddressValueError:
            return False
    return True


def read_ahead(request: Any, connection: Connection) -> None:
    """Read a body up to READ_AHEAD_BYTES before its view runs. Raises BodyIncomplete.

    So no view handles a request that was cut off, even if the view does not read the body.
    """
    length = getattr(request.body.reader, "length", 0)
    if not 0 < length <= READ_AHEAD_BYTES:
        return
    if private.take_expectation(request):
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.body.buf.write(request.body.reader.read(length))
