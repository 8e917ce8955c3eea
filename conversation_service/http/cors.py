"""CORS: pages on the origins in CORS_ALLOWED_ORIGINS can call the API from a browser."""

import re
from contextlib import suppress
from typing import Any

from corsheaders.conf import conf
from corsheaders.middleware import CorsMiddleware
from django.core.exceptions import MiddlewareNotUsed
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

_REQUEST_LINE = re.compile(rb"([A-Z]+) ([^ ?\r\n]*)")
_ORIGIN = re.compile(rb"\r\norigin:[ \t]*([!-~]+)[ \t]*\r\n", re.IGNORECASE)


class Cors(CorsMiddleware):
    """Responds to preflights, and lets pages read responses. Not in use without allowed origins.

    It stands before authentication and rate limits, as browsers send no token with a preflight, and
    around every error response: otherwise a page could not tell a 401 from a lost connection. The
    settings CORS_... limit it to the API.
    """

    def __init__(self, get_response: Any) -> None:
        if not conf.CORS_ALLOWED_ORIGINS and not conf.CORS_ALLOWED_ORIGIN_REGEXES:
            raise MiddlewareNotUsed
        super().__init__(get_response)

    def check_preflight(self, request: HttpRequest) -> HttpResponseBase | None:
        """Return None for an OPTIONS without Origin: no browser sent it."""
        return super().check_preflight(request) if "HTTP_ORIGIN" in request.META else None


def add_headers(response: HttpResponse, req: Any, head: bytes) -> None:
    """Add the CORS headers to a response to a request that Django did not handle.

    `req` is gunicorn's request, or None if its head could not be read; `head` is what was received.
    """
    request = HttpRequest()
    if req is None:
        line, origin = _REQUEST_LINE.match(head), _ORIGIN.search(head)
        if not line or not origin:
            return
        request.method, request.path_info = line[1].decode(), line[2].decode("latin-1")
        request.META["HTTP_ORIGIN"] = origin[1].decode()
    else:
        request.method, request.path_info = req.method, req.path
        sent = {name: value for name, value in req.headers if name == "ORIGIN"}
        request.META |= {f"HTTP_{name}": value for name, value in sent.items()}
    with suppress(MiddlewareNotUsed):
        Cors(lambda _request: response)(request)
