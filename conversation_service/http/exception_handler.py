"""Renders every failure in one shape."""

import logging
import secrets
import sys
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from django.conf import settings
from django.core.exceptions import (
    BadRequest,
    PermissionDenied,
    RequestDataTooBig,
    SuspiciousOperation,
)
from django.core.signals import got_request_exception
from django.http import Http404, HttpRequest, HttpResponse, UnreadablePostError
from django.template.loader import render_to_string
from rest_framework import exceptions as drf

from conversation_service import errors
from conversation_service.errors import MAX_ECHO, ServiceError
from conversation_service.http import rendering
from conversation_service.mongodb import failures
from conversation_service.mongodb.monitor import unavailable
from conversation_service.observability.context import request_id

logger = logging.getLogger(__name__)

MAX_FIELD_ERRORS = 50

# The field `type`, for clients that handle failures by their status.
_FAMILIES = {
    400: "ValidationError",
    401: "AuthenticationError",
    403: "PermissionError",
    404: "NotFoundError",
    409: "ConflictError",
    410: "GoneError",
    412: "PreconditionFailedError",
    413: "PayloadTooLargeError",
    422: "UnprocessableError",
    428: "PreconditionRequiredError",
    429: "RateLimitError",
    500: "InternalError",
    503: "ServiceUnavailableError",
}

# The failure for each exception from Django and DRF.
_FAILURES: dict[type[Exception], type[ServiceError]] = {
    drf.MethodNotAllowed: errors.MethodNotAllowed,
    drf.NotFound: errors.RouteNotFound,
    Http404: errors.RouteNotFound,
    drf.PermissionDenied: errors.Forbidden,
    PermissionDenied: errors.Forbidden,
    RequestDataTooBig: errors.PayloadTooLarge,
    SuspiciousOperation: ServiceError,
    BadRequest: ServiceError,
    UnreadablePostError: ServiceError,
}


def handle(exc: Exception, context: dict[str, Any]) -> HttpResponse:
    """Return the response to a view's exception (DRF's EXCEPTION_HANDLER)."""
    request = context["request"]
    failure = _failure_of(exc) or _bug(request, exc)
    if isinstance(failure, errors.MethodNotAllowed):
        failure.headers["Allow"] = ", ".join(context["view"].allowed_methods)
    return failure_response(request, failure)


def handle_in_console(request: HttpRequest, exc: Exception) -> HttpResponse:
    """Return the page for a view's exception. Django's own page needs inline scripts in DEBUG."""
    return _page(request, _failure_of(exc) or _bug(request, exc))


def _bug(request: HttpRequest, exc: Exception) -> ServiceError:
    got_request_exception.send(sender=handle, request=request)
    logger.error("Unhandled exception in %s %s", request.method, request.path, exc_info=exc)
    return errors.InternalError()


def failure_response(request: HttpRequest, failure: ServiceError) -> HttpResponse:
    error_id = secrets.token_hex(8)
    if failure.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.error("Responding %s %s, error id %s", failure.status, failure.code, error_id)
    wants_problem = "application/problem+json" in request.META.get("HTTP_ACCEPT", "")
    return HttpResponse(
        rendering.dumps(problem(failure, request.path, error_id, request_id.get())),
        status=failure.status,
        headers=failure.headers,
        content_type="application/problem+json" if wants_problem else "application/json",
    )


def problem(failure: ServiceError, path: str, error_id: str, request: str) -> dict[str, Any]:
    """Return a failure's body; `request` is the request's id."""
    return {
        "type": problem_type(failure.code),
        "title": str(failure.title),
        "status": int(failure.status),
        "detail": str(failure.message),
        "instance": path[:MAX_ECHO],
        "error": {
            "code": failure.code,
            "type": _FAMILIES.get(failure.status, "RequestError"),
            "message": str(failure.message),
            "details": failure.details,
            "error_id": error_id,
            "request_id": request,
        },
    }


def problem_type(code: str) -> str:
    """Return the path to the page that explains a code."""
    return f"/api/errors/{code}"


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _response(request, _failure_of(exception) or ServiceError())


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _response(request, errors.Forbidden())


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return _response(request, errors.RouteNotFound())


def server_error(request: HttpRequest) -> HttpResponse:
    """Render an exception that no view caught. Django calls this while it handles the exception."""
    exc = sys.exc_info()[1]
    failure = (_failure_of(exc) if isinstance(exc, Exception) else None) or errors.InternalError()
    return _response(request, failure)


def csrf_failure(request: HttpRequest, reason: str) -> HttpResponse:
    """Render a form without a valid CSRF token (CSRF_FAILURE_VIEW); only the console has forms."""
    return _page(request, errors.Forbidden(), is_form=True)


def _response(request: HttpRequest, failure: ServiceError) -> HttpResponse:
    if request.path_info.startswith(settings.CONSOLE_PATH):
        return _page(request, failure)
    return failure_response(request, failure)


def _page(request: HttpRequest, failure: ServiceError, *, is_form: bool = False) -> HttpResponse:
    """Return a failure's page, which needs no database."""
    context = {"failure": failure, "request_id": request_id.get(), "is_form": is_form}
    page = render_to_string("console/error.html", context, request)
    return HttpResponse(page, status=failure.status, headers=failure.headers)


def _failure_of(exc: Exception) -> ServiceError | None:
    """Return the failure for an exception, or None if the exception is a bug."""
    if unavailability := failures.find(exc):
        return unavailable(unavailability)
    if isinstance(exc, ServiceError):
        return exc
    if isinstance(exc, drf.ValidationError):
        return invalid_input(exc)
    if isinstance(exc, drf.ParseError):
        return ServiceError(str(exc.detail))
    kinds = (failure for kind, failure in _FAILURES.items() if isinstance(exc, kind))
    return next((failure() for failure in kinds), None)


def invalid_input(exc: drf.ValidationError) -> ServiceError:
    found = list(_field_errors(exc.detail))
    only_unknown = all(error["code"] == "unknown_field" for error in found)
    kind = errors.UnknownField if only_unknown else ServiceError
    return kind(errors=found[:MAX_FIELD_ERRORS])


def _field_errors(detail: Any, pointer: str = "") -> Iterator[dict[str, str]]:
    """Flatten DRF's nested errors. Pointers (RFC 6901) are cut to MAX_ECHO characters."""
    if isinstance(detail, drf.ErrorDetail):
        yield {"pointer": pointer[:MAX_ECHO], "code": str(detail.code), "message": str(detail)}
    elif isinstance(detail, dict):
        for key, inner in detail.items():
            step = "" if key is None else rendering.json_pointer([key])
            yield from _field_errors(inner, pointer + step)
    else:
        for index, inner in enumerate(detail):
            leaf = isinstance(inner, drf.ErrorDetail)
            yield from _field_errors(inner, pointer if leaf else f"{pointer}/{index}")
