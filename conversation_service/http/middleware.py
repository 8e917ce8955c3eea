"""What happens to every request before a view sees it."""

import re
import secrets
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from http import HTTPStatus
from typing import Any, cast

from django.conf import settings
from django.core.handlers.exception import convert_exception_to_response
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils import translation
from django.utils.cache import patch_vary_headers
from django.utils.module_loading import import_string
from django.utils.translation import get_supported_language_variant
from django.utils.translation.trans_real import parse_accept_lang_header

from conversation_service.errors import LengthRequired
from conversation_service.http.exception_handler import failure_response
from conversation_service.observability import tracing
from conversation_service.observability.context import (
    rejection_reason,
    request_id,
    traceparent,
    user_id,
)
from conversation_service.upstreams import http

GetResponse = Callable[[HttpRequest], HttpResponseBase]

_ACCEPTED_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_API = ("/api/", "/internal/")
_PAGES = (settings.CONSOLE_PATH, settings.STATIC_URL)
_NO_BODY = {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}


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
        rejection_reason.set("")
        traceparent.set(tracing.accepted(request.META.get("HTTP_TRACEPARENT", "")))
        with http.Budget():
            response = self.get_response(request)
        response.headers["X-Request-ID"] = chosen
        return response


class Api:
    """Do for everything but the console what Django's middleware does, and the API's own ways.

    Every path of the API may end with a slash, without a redirect. A body of unannounced length is
    refused, since WSGI would hand it to Django as an empty one; that of each answer is announced.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if is_page(request):
            return self.get_response(request)
        language = preferred_language(request.META.get("HTTP_ACCEPT_LANGUAGE", ""))
        translation.activate(language)
        response = self._answer(request)
        if response.status_code in _NO_BODY:
            response.headers.pop("Content-Type", None)
        elif isinstance(response, HttpResponse):
            response.headers.setdefault("Content-Length", str(len(response.content)))
        if "Vary" in response.headers:
            patch_vary_headers(response, ["Accept-Language"])
        else:
            response.headers["Vary"] = "Accept-Language"
        response.headers["Content-Language"] = language
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    def _answer(self, request: HttpRequest) -> HttpResponseBase:
        if request.path_info.startswith(_API):
            request.path_info = request.path_info.removesuffix("/")
            if "HTTP_TRANSFER_ENCODING" in request.META and not request.META.get("CONTENT_LENGTH"):
                return failure_response(request, LengthRequired())
        return self.get_response(request)


@lru_cache(maxsize=1_000)
def preferred_language(accepted: str) -> str:
    """Return the one of LANGUAGES that an Accept-Language header names first, or the default."""
    for code, _weight in parse_accept_lang_header(accepted):
        with suppress(LookupError):
            return get_supported_language_variant(code)
    return settings.LANGUAGE_CODE


class Pages:
    """Put settings.PAGES_MIDDLEWARE around what a browser shows to staff, and around nothing else.

    The API has no sessions, forms or cookies, and is asked under addresses that no ALLOWED_HOSTS
    can know; what it does not need costs it nothing.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response
        self.pages = get_response
        self.views: list[Callable[..., HttpResponseBase | None]] = []
        for path in reversed(settings.PAGES_MIDDLEWARE):
            middleware = import_string(path)(self.pages)
            if hasattr(middleware, "process_view"):
                self.views.insert(0, middleware.process_view)
            self.pages = cast(GetResponse, convert_exception_to_response(middleware))

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        return self.pages(request) if is_page(request) else self.get_response(request)

    def process_view(self, request: HttpRequest, *view: Any) -> HttpResponseBase | None:
        if not is_page(request):
            return None
        answers = (process(request, *view) for process in self.views)
        return next((answer for answer in answers if answer), None)


def is_page(request: HttpRequest) -> bool:
    return request.path_info.startswith(_PAGES)
