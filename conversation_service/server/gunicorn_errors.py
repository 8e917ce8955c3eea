"""What gunicorn refuses before Django sees it, in the one shape that every failure has."""

import secrets
from typing import Any

from django.http import HttpRequest
from gunicorn.http import errors as gunicorn

from conversation_service import errors
from conversation_service.errors import ServiceError
from conversation_service.http.exception_handler import failure_response
from conversation_service.observability.context import request_id
from conversation_service.server.connection import TooSlow
from conversation_service.server.request import BodyIncomplete, EncodedPath, InvalidHost

# The first that fits; whatever does not is a bug of ours.
FAILURES: list[tuple[type[BaseException], type[ServiceError]]] = [
    (TooSlow, errors.RequestTimeout),
    (BodyIncomplete, errors.BodyIncomplete),
    (InvalidHost, errors.HostInvalid),
    (EncodedPath, errors.RouteNotFound),
    (gunicorn.LimitRequestLine, errors.UriTooLong),
    (gunicorn.LimitRequestHeaders, errors.HeadersTooLarge),
    (gunicorn.ExpectationFailed, errors.ExpectationFailed),
    (gunicorn.UnsupportedTransferCoding, errors.TransferCodingUnsupported),
    # The application's own headers, by inheritance a kind of the next.
    (gunicorn.InvalidResponseHeader, errors.InternalError),
    (gunicorn.InvalidResponseHeaderName, errors.InternalError),
    (gunicorn.ParseException, errors.RequestMalformed),
]


def refusal(req: Any, exc: BaseException) -> tuple[ServiceError, bytes]:
    """Return the failure and the whole HTTP answer that tells the client of it.

    `req` is gunicorn's request, or None where not even the head could be read.
    """
    kinds = (kind for error, kind in FAILURES if isinstance(exc, error))
    failure = next(kinds, errors.InternalError)()
    request = HttpRequest()
    if req is None:
        request_id.set(secrets.token_hex(16))  # not that of the connection's last request
    else:
        request.path = req.path
    response = failure_response(request, failure)
    response.headers["Content-Length"] = str(len(response.content))
    response.headers["Connection"] = "close"
    response.headers["X-Request-ID"] = request_id.get()
    return failure, (
        f"HTTP/1.1 {response.status_code} {response.reason_phrase}\r\n".encode()
        + response.serialize()
    )
