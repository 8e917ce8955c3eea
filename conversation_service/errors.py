"""The failures that http/exception_handler.py renders."""

from http import HTTPStatus
from math import ceil
from typing import Any, Self

from django.utils.functional import Promise
from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _

Message = str | Promise

MAX_ECHO = 100  # input characters that a response repeats


class ServiceError(Exception):
    """A failure with a stable `code` for programs, and a message for users.

    `title` names the kind of failure, `message` this failure. `cause` and `remedy` are for the page
    that explains the code, and for docs/guide/errors.md. All are translated when rendered.
    `details` contains JSON values only, and never an upstream's body. `again_in_s` is sent as
    Retry-After, in whole seconds, 1 at least.
    """

    status = HTTPStatus.BAD_REQUEST
    code = "VALIDATION_ERROR"
    title: Message = _("The request is not valid")
    cause: Message = _(
        "A field, a parameter, a header or the URL has a value that the service does not accept."
    )
    remedy: Message = _("Correct the values that `details.errors` or `message` names.")
    default_message: Message = ""  # if empty, the title
    again_in_s: float | None = None
    may_be_executed = False  # True if the request can have had its effect

    def __init__(
        self,
        message: Message = "",
        *,
        headers: dict[str, str] | None = None,
        again_in_s: float | None = None,
        **details: Any,
    ) -> None:
        super().__init__(message)
        self.message = message or self.default_message or self.title
        self.details = details
        self.headers = headers or {}
        wait_s = self.again_in_s if again_in_s is None else again_in_s
        if wait_s is not None:
            self.headers["Retry-After"] = str(max(1, ceil(wait_s)))

    @classmethod
    def example(cls) -> Self:
        """Return a failure for the API documentation."""
        return cls()


class UnknownField(ServiceError):
    """The only fault is that some sent fields do not exist."""

    code = "UNKNOWN_FIELD"
    cause = _(
        "The body or the query string has fields that do not exist. All other fields are valid."
    )
    remedy = _("Correct the names of the fields in `details.errors`, or remove the fields.")


class TokenMissing(ServiceError):
    status = HTTPStatus.UNAUTHORIZED
    code = "AUTH_TOKEN_MISSING"
    title = _("No access token was sent")
    cause = _("The request has no header `Authorization: Bearer …`.")
    remedy = _("Get an access token from the Auth service, and send it in this header.")


class TokenExpired(ServiceError):
    status = HTTPStatus.UNAUTHORIZED
    code = "AUTH_TOKEN_EXPIRED"
    title = _("The access token has expired")
    cause = _("The time in the claim `exp` of the token has passed.")
    remedy = _("Get a new token from the Auth service, and send the request again once.")


class TokenInvalid(ServiceError):
    status = HTTPStatus.UNAUTHORIZED
    code = "AUTH_TOKEN_INVALID"
    title = _("The access token is not valid")
    cause = _(
        "The token is malformed, revoked, of another kind or from another issuer. `message` "
        "gives the reason."
    )
    remedy = _(
        "Correct the cause in `message`, or get a new token from the Auth service. Send the "
        "request again once."
    )


class InsufficientPermissions(ServiceError):
    status = HTTPStatus.FORBIDDEN
    code = "INSUFFICIENT_PERMISSIONS"
    title = _("The token lacks the required scope")
    cause = _("The token is valid, but lacks a scope that this endpoint requires.")
    remedy = _("Get a token with the scope that the documentation of the endpoint names.")


class RateLimitExceeded(ServiceError):
    status = HTTPStatus.TOO_MANY_REQUESTS
    code = "RATE_LIMIT_EXCEEDED"
    title = _("Too many requests in a short time")
    cause = _(
        "The user has sent the maximum number of requests in the time window, or runs the "
        "maximum number of imports or exports."
    )
    remedy = _("Wait for the seconds in `Retry-After`, and send fewer requests.")


class AuthUnavailable(ServiceError):
    """The token cannot be verified: the issuer's keys, or Auth, are unavailable."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "AUTH_UNAVAILABLE"
    title = _("Authentication is unavailable")
    cause = _(
        "The Auth service, or the address with the keys of the issuer, does not respond. The "
        "token cannot be verified."
    )
    remedy = _("Wait for the seconds in `Retry-After`, then send the request again.")


class DatabaseUnavailable(ServiceError):
    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "DATABASE_UNAVAILABLE"
    may_be_executed = True
    title = _("The database is unavailable")
    cause = _("The database does not respond in time, or has no primary at the moment.")
    remedy = _(
        "Wait for the seconds in `Retry-After`. Repeat a write with the same `Idempotency-Key`."
    )
    again_in_s = 2


class StorageFull(ServiceError):
    """The request body cannot be written to the temporary folder; the log has the reason."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "STORAGE_FULL"
    title = _("The server cannot store the request body")
    cause = _("The temporary folder of the server is full or cannot be written.")
    remedy = _(
        "Wait for the seconds in `Retry-After`, then send the request again. If the error stays, "
        "inform the operator."
    )
    again_in_s = 5


class PayloadTooLarge(ServiceError):
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    code = "PAYLOAD_TOO_LARGE"
    title = _("The request body is too large")
    cause = _("The body exceeds a limit of this endpoint. `details` names the limit.")
    remedy = _("Send less data in each request.")


class InvalidCursor(ServiceError):
    code = "INVALID_CURSOR"
    title = _("The cursor is not valid for this request")
    cause = _("The cursor is damaged, or belongs to another user, filter or sort order.")
    remedy = _("Start at the first page, and keep the filter and the sort order on all pages.")


class PageTooDeep(ServiceError):
    code = "PAGE_TOO_DEEP"
    title = _("The page number is too high; use the cursor")
    cause = _("The page is beyond the first 10,000 rows.")
    remedy = _("Continue with `next_cursor` instead of a page number.")


class RouteNotFound(ServiceError):
    status = HTTPStatus.NOT_FOUND
    code = "NOT_FOUND"
    title = _("No endpoint exists at this path")
    cause = _("The path is misspelt, or belongs to another service or version.")
    remedy = _("Compare the path with the documentation at `/api/docs`.")


class MethodNotAllowed(ServiceError):
    status = HTTPStatus.METHOD_NOT_ALLOWED
    code = "METHOD_NOT_ALLOWED"
    title = _("The endpoint does not support this method")
    cause = _("The path exists, but not with this method.")
    remedy = _("Use a method that the header `Allow` of the response names.")


class NotAcceptable(ServiceError):
    status = HTTPStatus.NOT_ACCEPTABLE
    code = "NOT_ACCEPTABLE"
    title = _("The Accept header excludes the media type of the response")
    cause = _("The endpoint has no response in a media type that the header `Accept` allows.")
    remedy = _("Send an `Accept` with a type in `details.media_types`.")


class UnsupportedMediaType(ServiceError):
    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    code = "UNSUPPORTED_MEDIA_TYPE"
    title = _("The Content-Type or Content-Encoding of the body is not supported")
    cause = _("The endpoint does not read bodies of this media type, character set or compression.")
    remedy = _(
        "Send a type and a coding that the headers `Accept`, `Accept-Patch`, `Accept-Post` and "
        "`Accept-Encoding` of the response name."
    )


class LengthRequired(ServiceError):
    status = HTTPStatus.LENGTH_REQUIRED
    code = "LENGTH_REQUIRED"
    title = _("A Content-Length header is required")
    cause = _("The body was sent in chunks, without its length.")
    remedy = _("Send the length of the body in `Content-Length`.")


class Forbidden(ServiceError):
    status = HTTPStatus.FORBIDDEN
    code = "FORBIDDEN"
    title = _("This request is forbidden")
    cause = _("A rule of the server excludes this request.")
    remedy = _("Request access from the operator.")


class InternalError(ServiceError):
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    code = "INTERNAL_ERROR"
    may_be_executed = True
    title = _("The server failed to handle the request")
    cause = _("The service has a bug.")
    remedy = _("Report the `error_id` to the operator.")


class PreconditionRequired(ServiceError):
    status = HTTPStatus.PRECONDITION_REQUIRED
    code = "PRECONDITION_REQUIRED"
    title = _("This client must send If-Match with each update")
    cause = _(
        "The operator requires `If-Match` from this client, so that no update overwrites another "
        "one."
    )
    remedy = _("Read the conversation, and send its `ETag` in `If-Match`.")


class RequestTimeout(ServiceError):
    status = HTTPStatus.REQUEST_TIMEOUT
    code = "REQUEST_TIMEOUT"
    title = _("The request did not arrive in time")
    cause = _("The headers or the body arrived too slowly.")
    remedy = _("Send the request again on a new connection.")


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
    cause = _(
        "The request line, which has the method, the URL and the version of HTTP, is longer than "
        "8,190 bytes."
    )
    remedy = _(
        "Shorten the query string, for example the text in `search`. A non-ASCII character takes "
        "6 to 12 bytes in a URL."
    )
    default_message = format_lazy("{} {}", cause, remedy)


class HeadersTooLarge(ServiceError):
    status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    code = "HEADERS_TOO_LARGE"
    title = _("The headers are too many or too large")
    cause = _("The request has more than 64 headers, or a header with more than 8,190 bytes.")
    remedy = _("Send fewer or shorter headers, for example without cookies.")
    default_message = format_lazy("{} {}", cause, remedy)


class ExpectationFailed(ServiceError):
    status = HTTPStatus.EXPECTATION_FAILED
    code = "EXPECTATION_FAILED"
    title = _("Only `Expect: 100-continue` is supported")
    cause = _("The header `Expect` has another value than `100-continue`.")
    remedy = _("Remove the header `Expect`.")


class TransferCodingUnsupported(ServiceError):
    status = HTTPStatus.NOT_IMPLEMENTED
    code = "TRANSFER_CODING_UNSUPPORTED"
    title = _("The transfer coding is not supported")
    cause = _("The header `Transfer-Encoding` names a coding that the server cannot read.")
    remedy = _("Send the body with `Content-Length` and without `Transfer-Encoding`.")
