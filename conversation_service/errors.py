"""The failures that http/exception_handler.py renders."""

from http import HTTPStatus
from math import ceil
from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

Message = str | Promise


class ServiceError(Exception):
    """A failure with a stable `code` for programs, and a message for users.

    `title` names the kind of failure, `message` this failure; both are translated when rendered.
    `details` contains JSON values only, and never an upstream's body. `again_in_s` is sent as
    Retry-After, in whole seconds, 1 at least.
    """

    status = HTTPStatus.BAD_REQUEST
    code = "VALIDATION_ERROR"
    title: Message = _("The request is not valid")
    again_in_s: float | None = None

    def __init__(
        self,
        message: Message = "",
        *,
        headers: dict[str, str] | None = None,
        again_in_s: float | None = None,
        **details: Any,
    ) -> None:
        super().__init__(message)
        self.message = message or self.title
        self.details = details
        self.headers = headers or {}
        wait_s = self.again_in_s if again_in_s is None else again_in_s
        if wait_s is not None:
            self.headers["Retry-After"] = str(max(1, ceil(wait_s)))


class UnknownField(ServiceError):
    """The only fault is that some sent fields do not exist."""

    code = "UNKNOWN_FIELD"


class TokenMissing(ServiceError):
    status = HTTPStatus.UNAUTHORIZED
    code = "AUTH_TOKEN_MISSING"
    title = _("No access token was sent")


class TokenExpired(ServiceError):
    status = HTTPStatus.UNAUTHORIZED
    code = "AUTH_TOKEN_EXPIRED"
    title = _("The access token has expired")


class TokenInvalid(ServiceError):
    status = HTTPStatus.UNAUTHORIZED
    code = "AUTH_TOKEN_INVALID"
    title = _("The access token is not valid")


class InsufficientPermissions(ServiceError):
    status = HTTPStatus.FORBIDDEN
    code = "INSUFFICIENT_PERMISSIONS"
    title = _("The token lacks the required scope")


class RateLimitExceeded(ServiceError):
    status = HTTPStatus.TOO_MANY_REQUESTS
    code = "RATE_LIMIT_EXCEEDED"
    title = _("Too many requests in a short time")


class AuthUnavailable(ServiceError):
    """The token cannot be verified: the issuer's keys, or Auth, are unavailable."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "AUTH_UNAVAILABLE"
    title = _("Authentication is unavailable")


class DatabaseUnavailable(ServiceError):
    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "DATABASE_UNAVAILABLE"
    title = _("The database is unavailable")
    again_in_s = 2


class StorageFull(ServiceError):
    """The request body cannot be written to the temporary folder; the log has the reason."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "STORAGE_FULL"
    title = _("The server cannot store the request body")
    again_in_s = 5


class PayloadTooLarge(ServiceError):
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    code = "PAYLOAD_TOO_LARGE"
    title = _("The request body is too large")


class InvalidCursor(ServiceError):
    code = "INVALID_CURSOR"
    title = _("The cursor is not valid for this request")


class PageTooDeep(ServiceError):
    code = "PAGE_TOO_DEEP"
    title = _("The page number is too high; use the cursor")


class RouteNotFound(ServiceError):
    status = HTTPStatus.NOT_FOUND
    code = "NOT_FOUND"
    title = _("No endpoint exists at this path")


class MethodNotAllowed(ServiceError):
    status = HTTPStatus.METHOD_NOT_ALLOWED
    code = "METHOD_NOT_ALLOWED"
    title = _("The endpoint does not support this method")


class NotAcceptable(ServiceError):
    status = HTTPStatus.NOT_ACCEPTABLE
    code = "NOT_ACCEPTABLE"
    title = _("The Accept header excludes the media type of the response")


class UnsupportedMediaType(ServiceError):
    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    code = "UNSUPPORTED_MEDIA_TYPE"
    title = _("The Content-Type or Content-Encoding of the body is not supported")


class LengthRequired(ServiceError):
    status = HTTPStatus.LENGTH_REQUIRED
    code = "LENGTH_REQUIRED"
    title = _("A Content-Length header is required")


class Forbidden(ServiceError):
    status = HTTPStatus.FORBIDDEN
    code = "FORBIDDEN"
    title = _("This request is forbidden")


class InternalError(ServiceError):
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    code = "INTERNAL_ERROR"
    title = _("The server failed to handle the request")


class PreconditionRequired(ServiceError):
    status = HTTPStatus.PRECONDITION_REQUIRED
    code = "PRECONDITION_REQUIRED"
    title = _("This client must send If-Match with each update")


class RequestTimeout(ServiceError):
    status = HTTPStatus.REQUEST_TIMEOUT
    code = "REQUEST_TIMEOUT"
    title = _("The request did not arrive in time")


class RequestMalformed(ServiceError):
    title = _("The request is malformed; percent-encode each non-ASCII character of its URL")


class HostInvalid(ServiceError):
    title = _("A valid Host header is required: a name or an address, and optionally a port")


class BodyIncomplete(ServiceError):
    title = _("The body is shorter than its Content-Length; send the whole body")


class UriTooLong(ServiceError):
    status = HTTPStatus.REQUEST_URI_TOO_LONG
    code = "URI_TOO_LONG"
    title = _("The URL is too long")


class HeadersTooLarge(ServiceError):
    status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    code = "HEADERS_TOO_LARGE"
    title = _("The headers are too many or too large")


class ExpectationFailed(ServiceError):
    status = HTTPStatus.EXPECTATION_FAILED
    code = "EXPECTATION_FAILED"
    title = _("Only `Expect: 100-continue` is supported")


class TransferCodingUnsupported(ServiceError):
    status = HTTPStatus.NOT_IMPLEMENTED
    code = "TRANSFER_CODING_UNSUPPORTED"
    title = _("The transfer coding is not supported")
