"""What happens to every request before a view sees it."""

import re
import secrets
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.messages.middleware import MessageMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.middleware.common import CommonMiddleware
from django.middleware.csrf import CsrfViewMiddleware
from django.utils.deprecation import MiddlewareMixin

from conversation_service.clients import http
from conversation_service.errors import LengthRequired
from conversation_service.exception_handler import failure_response
from conversation_service.observability import tracing
from conversation_service.observability.context import request_id, traceparent, user_id

GetResponse = Callable[[HttpRequest], HttpResponseBase]

_ACCEPTED_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_API = ("/api/", "/internal/")
_NO_BODY = {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}
_CONSOLE = "/admin/"


class RequestId:
    """Accept or make the id that ties an answer to its log lines, and always return it.

    Here a request begins, and with it the time that it may spend on neighbours.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        sent = request.META.get("HTTP_X_REQUEST_ID", "")
        chosen = sent if _ACCEPTED_REQUEST_ID.fullmatch(sent) else secrets.token_hex(16)
        request_id.set(chosen)
        user_id.set("")
        traceparent.set(tracing.accepted(request.META.get("HTTP_TRACEPARENT", "")))
        with http.budget():
            response = self.get_response(request)
        response.headers["X-Request-ID"] = chosen
        return response


class ApiPaths:
    """Let every path of the API end with or without a slash, without a redirect.

    Also refuse a body of unannounced length, which WSGI would hand to Django as an empty one,
    and announce that of each answer.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if request.path_info.startswith(_API):
            request.path_info = request.path_info.removesuffix("/")
            if "HTTP_TRANSFER_ENCODING" in request.META and not request.META.get("CONTENT_LENGTH"):
                return failure_response(request, LengthRequired())
        response = self.get_response(request)
        if isinstance(response, HttpResponse) and response.status_code not in _NO_BODY:
            response.headers.setdefault("Content-Length", str(len(response.content)))
        return response


class _ConsoleOnly(MiddlewareMixin):
    """Skip a middleware of Django's outside the console: nothing else has cookies or forms."""

    def __call__(self, request: HttpRequest) -> Any:
        if request.path_info.startswith(_CONSOLE):
            return super().__call__(request)
        return self.get_response(request)

    def process_view(self, request: HttpRequest, *view: Any) -> Any:
        inherited = getattr(super(), "process_view", None)
        if inherited and request.path_info.startswith(_CONSOLE):
            return inherited(request, *view)
        return None


class ConsoleCommon(_ConsoleOnly, CommonMiddleware):
    """Check the Host header, which the API never uses: probes and Prometheus call by pod IP."""


class ConsoleSession(_ConsoleOnly, SessionMiddleware):
    pass


class ConsoleCsrf(_ConsoleOnly, CsrfViewMiddleware):
    pass


class ConsoleAuthentication(_ConsoleOnly, AuthenticationMiddleware):
    pass


class ConsoleMessages(_ConsoleOnly, MessageMiddleware):
    pass
