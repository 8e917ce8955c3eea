"""Pages that explain each error code. The `type` of an error response is the page's address."""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils.html import escape
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy as _

from conversation_service.errors import Message, RouteNotFound, ServiceError
from conversation_service.http import rendering
from conversation_service.http.exception_handler import failure_response, problem_type
from conversation_service.http.pages import page_or_json

_RETRY_AFTER = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}
_JSON, _HTML = frozenset({"application/json"}), frozenset({"text/html"})

REPEAT_IF_SAFE = _(
    "The request may have been executed. These requests are safe to repeat: a GET, a request that "
    "sets a state, and a request with the same `Idempotency-Key`."
)
REPEAT_LATER = _(
    "The request was not executed. It is safe to repeat after the seconds in `Retry-After`."
)
REPEAT_CORRECTED = _(
    "The request was not executed. It is safe to repeat after the correction; without a correction "
    "it fails again."
)


def by_code(kind: type[ServiceError] = ServiceError) -> dict[str, type[ServiceError]]:
    """Return the class for each code. Of classes with the same code, the base class counts."""
    found: dict[str, type[ServiceError]] = {}
    for narrower in kind.__subclasses__():
        found |= by_code(narrower)
    return found | {kind.code: kind}


def repeat(kind: type[ServiceError]) -> Message:
    """Return whether a request that failed in this way is safe to repeat."""
    if kind.may_be_executed:
        return REPEAT_IF_SAFE
    if kind.status in _RETRY_AFTER or kind.again_in_s is not None:
        return REPEAT_LATER
    return REPEAT_CORRECTED


def explanation(kind: type[ServiceError]) -> dict[str, Any]:
    return {
        "type": problem_type(kind.code),
        "code": kind.code,
        "status": int(kind.status),
        "title": kind.title,
        "cause": kind.cause,
        "remedy": kind.remedy,
        "repeat": repeat(kind),
    }


def error_page(request: HttpRequest, code: str) -> HttpResponse:
    """Explain a code in HTML, or in JSON if Accept names application/json and not text/html."""
    kind = by_code().get(code)
    if kind is None:
        return failure_response(request, RouteNotFound(_("/api/errors lists all error codes.")))
    explained = explanation(kind)
    return _response(request, {"error": _as_html(explained)}, explained)


def error_list(request: HttpRequest) -> HttpResponse:
    kinds = sorted(by_code().values(), key=lambda kind: (kind.status, kind.code))
    explained = [explanation(kind) for kind in kinds]
    return _response(request, {"errors": map(_as_html, explained)}, {"errors": explained})


def _as_html(explained: Mapping[str, Any]) -> dict[str, Any]:
    """Return the texts as HTML in which the text between backticks is code."""
    return {
        name: mark_safe(re.sub("`([^`]+)`", r"<code>\1</code>", escape(str(value))))  # noqa: S308
        for name, value in explained.items()
    }


def _response(request: HttpRequest, context: Mapping[str, Any], data: Any) -> HttpResponse:
    accept = request.META.get("HTTP_ACCEPT", "")
    is_json = rendering.names(accept, _JSON) and not rendering.names(accept, _HTML)
    return page_or_json(is_page=not is_json, template="api_errors.html", context=context, data=data)
