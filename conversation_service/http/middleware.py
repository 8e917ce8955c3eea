"""The middleware of the API. It calls the middleware of the console."""

from collections.abc import Callable
from contextlib import suppress
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
from conversation_service.http.exception_handler import failure_response, handle_in_console

GetResponse = Callable[[HttpRequest], HttpResponseBase]

_API = ("/api/", "/internal/")
_PAGES = (settings.CONSOLE_PATH, settings.STATIC_URL)
_NO_BODY = {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}


class ApiOrPages:
    """Apply the API's rules to its requests, and settings.PAGES_MIDDLEWARE to all pages.

    Pages are the console and its static files. A body without a Content-Length is rejected, since
    WSGI passes it to Django as an empty body.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response
        self.pages = get_response
        self.page_view_hooks: list[Callable[..., HttpResponseBase | None]] = []
        for path in reversed(settings.PAGES_MIDDLEWARE):
            middleware = import_string(path)(self.pages)
            if hasattr(middleware, "process_view"):
                self.page_view_hooks.insert(0, middleware.process_view)
            self.pages = cast(GetResponse, convert_exception_to_response(middleware))

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if request.path_info.startswith(_PAGES):
            return self.pages(request)
        language = preferred_language(request.META.get("HTTP_ACCEPT_LANGUAGE", ""))
        translation.activate(language)
        is_api = request.path_info.startswith(_API)
        if is_api:
            request.path_info = request.path_info.removesuffix("/")
        has_transfer_coding = "HTTP_TRANSFER_ENCODING" in request.META
        if is_api and has_transfer_coding and not request.META.get("CONTENT_LENGTH"):
            response: HttpResponseBase = failure_response(request, LengthRequired())
        else:
            response = self.get_response(request)
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

    def process_exception(self, request: HttpRequest, exc: Exception) -> HttpResponse | None:
        in_console = request.path_info.startswith(settings.CONSOLE_PATH)
        return handle_in_console(request, exc) if in_console else None

    def process_view(self, request: HttpRequest, *view: Any) -> HttpResponseBase | None:
        if request.path_info.startswith(_PAGES):
            for hook in self.page_view_hooks:
                if response := hook(request, *view):
                    return response
        return None


def preferred_language(accepted: str) -> str:
    """Return the first supported language in an Accept-Language header, or the default."""
    for code, _weight in parse_accept_lang_header(accepted):
        with suppress(LookupError):
            return get_supported_language_variant(code)
    return settings.LANGUAGE_CODE
