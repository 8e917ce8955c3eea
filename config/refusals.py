"""What gunicorn refuses before Django sees it, in the one shape that every failure has."""

import secrets
from http import HTTPStatus
from typing import Any

from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from gunicorn.http import errors as gunicorn

from config.worker import TooSlow
from conversation_service.errors import InternalError, ServiceError
from conversation_service.exception_handler import failure_response
from conversation_service.observability.logs import request_id


class RequestTimeout(ServiceError):
    status = HTTPStatus.REQUEST_TIMEOUT
    code = "REQUEST_TIMEOUT"
    title = _("The request did not arrive in time")


class UriTooLong(ServiceError):
    status = HTTPStatus.REQUEST_URI_TOO_LONG
    code = "URI_TOO_LONG"
    title = _("The address is too long")


class HeadersTooLarge(ServiceError):
    status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    code = "HEADERS_TOO_LARGE"
    title = _("The headers are too many or too large")


class ExpectationFailed(ServiceError):
    status = HTTPStatus.EXPECTATION_FAILED
    code = "EXPECTATION_FAILED"
    title = _("The only expectation that can be met is 100-continue")


class TransferCodingUnsupported(ServiceError):
    status = HTTPStatus.NOT_IMPLEMENTED
    code = "TRANSFER_CODING_UNSUPPORTED"
    title = _("That transfer coding is not supported")


# The first that fits; whatever does not is a bug of ours.
FAILURES: list[tuple[type[BaseException], type[ServiceError]]] = [
    (TooSlow, RequestTimeout),
    (gunicorn.LimitRequestLine, UriTooLong),
    (gunicorn.LimitRequestHeaders, HeadersTooLarge),
    (gunicorn.ExpectationFailed, ExpectationFailed),
    (gunicorn.UnsupportedTransferCoding, TransferCodingUnsupported),
    # The application's own headers, by inheritance a kind of the next.
    (gunicorn.InvalidResponseHeader, InternalError),
    (gunicorn.InvalidResponseHeaderName, InternalError),
    (gunicorn.ParseException, ServiceError),
]


def refusal(req: Any, exc: BaseException) -> tuple[ServiceError, bytes]:
    """Return the failure and the whole HTTP answer that tells the client of it.

    `req` is gunicorn's request, or None where not even the head could be read.
    """
    failure = next((kind for error, kind in FAILURES if isinstance(exc, error)), InternalError)()
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
