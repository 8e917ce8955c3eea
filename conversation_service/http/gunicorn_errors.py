"""Responses to requests that gunicorn rejects before Django handles them."""

import secrets
from typing import Any

from django.http import HttpRequest
from gunicorn.http import errors as gunicorn

from conversation_service import errors
from conversation_service.errors import ServiceError
from conversation_service.http import cors
from conversation_service.http.exception_handler import failure_response
from conversation_service.observability.context import request_id
from conversation_service.server.connection import TooSlow
from conversation_service.server.request import BodyIncomplete, EncodedPath, InvalidHost

# The first class that matches the exception counts. Every other exception is a bug.
FAILURES: list[tuple[type[BaseException], type[ServiceError]]] = [
    (TooSlow, errors.RequestTimeout),
    (BodyIncomplete, errors.BodyIncomplete),
    (InvalidHost, errors.HostInvalid),
    (EncodedPath, errors.RouteNotFound),
    (gunicorn.LimitRequestLine, errors.UriTooLong),
    (gunicorn.LimitRequestHeaders, errors.HeadersTooLarge),
    (gunicorn.ExpectationFailed, errors.ExpectationFailed),
    (gunicorn.UnsupportedTransferCoding, errors.TransferCodingUnsupported),
    # Headers in our own response. These are subclasses of ParseException.
    (gunicorn.InvalidResponseHeader, errors.InternalError),
    (gunicorn.InvalidResponseHeaderName, errors.InternalError),
    (gunicorn.ParseException, errors.RequestMalformed),
]


def error_response(req: Any, exc: BaseException, head: bytes = b"") -> tuple[int, bytes]:
    """Return the status and the whole HTTP response, in the shape that every failure has.

    `req` is gunicorn's request, or None if its head could not be read; `head` is what was received.
    """
    kinds = (kind for error, kind in FAILURES if isinstance(exc, error))
    failure = next(kinds, errors.InternalError)()
    request = HttpRequest()
    if req is None:
        request_id.set(secrets.token_hex(16))  # the connection's former request had another
    else:
        request.path = req.path
    response = failure_response(request, failure)
    response.headers["Content-Length"] = str(len(response.content))
    response.headers["Connection"] = "close"
    response.headers["X-Request-ID"] = request_id.get()
    cors.add_headers(response, req, head)
    return response.status_code, (
        f"HTTP/1.1 {response.status_code} {response.reason_phrase}\r\n".encode()
        + response.serialize()
    )
