"""Failures a caller can act on. How they look on the wire is in exception_handler.py."""

from http import HTTPStatus
from math import ceil
from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

Message = str | Promise


class ServiceError(Exception):
    """A failure with a stable code. Clients switch on `code`; people read the message.

    `title` names the kind of failure, `message` this one; both are translated when rendered.
    `details` may hold JSON values only, and never another service's body. `again_in_s` becomes
    a Retry-After of whole seconds, one at least.
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
    """Nothing is wrong but that fields were sent which do not exist."""

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
    title = _("This credential may not do that")


class RateLimitExceeded(ServiceError):
    status = HTTPStatus.TOO_MANY_REQUESTS
    code = "RATE_LIMIT_EXCEEDED"
    title = _("Too many requests in a short time")


class AuthUnavailable(ServiceError):
    """The keys to check a token with cannot be had; the token may well be good."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "AUTH_UNAVAILABLE"
    title = _("Authentication is unavailable")


class DatabaseUnavailable(ServiceError):
    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "DATABASE_UNAVAILABLE"
    title = _("The database is unavailable")
    again_in_s = 2


class StorageFull(ServiceError):
    """The temporary folder cannot take a request body; the log says why."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "STORAGE_FULL"
    title = _("There is no room to receive the request body")
    again_in_s = 5


class PayloadTooLarge(ServiceError):
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    code = "PAYLOAD_TOO_LARGE"
    title = _("The request body is too large")


class InvalidCursor(ServiceError):
    code = "INVALID_CURSOR"
    title = _("The cursor is not valid here")


class PageTooDeep(ServiceError):
    code = "PAGE_TOO_DEEP"
    title = _("That page is too deep; follow the cursor instead")


class RouteNotFound(ServiceError):
    status = HTTPStatus.NOT_FOUND
    code = "NOT_FOUND"
    title = _("There is nothing at this address")


class MethodNotAllowed(ServiceError):
    status = HTTPStatus.METHOD_NOT_ALLOWED
    code = "METHOD_NOT_ALLOWED"
    title = _("This method is not allowed here")


class NotAcceptable(ServiceError):
    status = HTTPStatus.NOT_ACCEPTABLE
    code = "NOT_ACCEPTABLE"
    title = _("Only JSON can be sent back")


class UnsupportedMediaType(ServiceError):
    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    code = "UNSUPPORTED_MEDIA_TYPE"
    title = _("Send plain JSON in UTF-8")


class LengthRequired(ServiceError):
    status = HTTPStatus.LENGTH_REQUIRED
    code = "LENGTH_REQUIRED"
    title = _("The length of the body must be announced")


class Forbidden(ServiceError):
    status = HTTPStatus.FORBIDDEN
    code = "FORBIDDEN"
    title = _("This request is refused")


class InternalError(ServiceError):
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    code = "INTERNAL_ERROR"
    title = _("Something went wrong on our side")


class PreconditionRequired(ServiceError):
    status = HTTPStatus.PRECONDITION_REQUIRED
    code = "PRECONDITION_REQUIRED"
    title = _("This client must say in If-Match which version it changes")


class RequestTimeout(ServiceError):
    status = HTTPStatus.REQUEST_TIMEOUT
    code = "REQUEST_TIMEOUT"
    title = _("The request did not arrive in time")


class RequestMalformed(ServiceError):
    title = _("The request is malformed; what is not ASCII in its address must be percent-encoded")


class HostInvalid(ServiceError):
    title = _("A valid Host header is required: a name or an address, and optionally a port")


class BodyIncomplete(ServiceError):
    title = _("The body is shorter than its Content-Length; send all of it")


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
