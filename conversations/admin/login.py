"""Login limits, applied before a password is hashed or a page is rendered."""

import time
from http import HTTPStatus

from django.conf import settings
from django.contrib import admin
from django.contrib.admin.forms import AdminAuthenticationForm
from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.template.loader import render_to_string
from django.test import RequestFactory
from django.urls import reverse
from django.utils.translation import get_language

from conversation_service.http import ratelimit
from conversation_service.http.middleware import GetResponse
from conversation_service.observability.metrics import RATE_LIMITED

POLICY = "login"
LOGINS_AT_ONCE = 4  # per process: one password is hashed, three wait
BUSY_S = 2  # four hashes take 1 to 2 s
WINDOW_S = 60
MAX_ADDRESS = 64  # characters
MAX_DELAYED = 100  # responses per process; others are sent at once


class LimitLogins:
    """Middleware that responds 429 to logins above either limit.

    LOGIN_REQUESTS_PER_MINUTE bounds the requests from one address. LOGINS_AT_ONCE bounds the logins
    in progress from all addresses. This second limit counts no attempts and is free again within
    seconds, so that no client can lock out all staff.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response
        self.in_progress = 0
        self.delayed = 0

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if request.path_info != reverse("admin:login"):
            return self.get_response(request)
        response = self.limited_response(request)
        failed = request.method == "POST" and response.status_code != HTTPStatus.FOUND
        limited = response.status_code == HTTPStatus.TOO_MANY_REQUESTS
        unavailable = response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR
        if (failed or limited) and not unavailable and self.delayed < MAX_DELAYED:
            self.delayed += 1
            try:
                time.sleep(settings.LOGIN_FAILURE_DELAY_S)  # gevent serves other requests meanwhile
            finally:
                self.delayed -= 1
        return response

    def limited_response(self, request: HttpRequest) -> HttpResponseBase:
        if self.in_progress >= LOGINS_AT_ONCE and request.method == "POST":
            return _too_many(BUSY_S)
        if limit := settings.LOGIN_REQUESTS_PER_MINUTE:
            policy = ratelimit.Policy(POLICY, limit)
            counted = ratelimit.count(f"address:{client_address(request)}", [policy], WINDOW_S)
            if not counted.accepted:
                return _too_many(counted.wait_s)
        if request.method != "POST":
            return self.get_response(request)
        request.body  # noqa: B018 - read first, so that a slow client is not yet counted
        self.in_progress += 1
        try:
            return self.get_response(request)
        finally:
            self.in_progress -= 1


def render_once() -> None:
    """Render the login page, which loads its templates. A worker calls this before it serves.

    Raise ValueError if the static files are not collected.
    """
    request = RequestFactory().get(reverse("admin:login"))
    request.user = AnonymousUser()
    context = admin.site.each_context(request) | {"form": AdminAuthenticationForm(request)}
    render_to_string("admin/login.html", context, request)


def client_address(request: HttpRequest) -> str:
    """Return the last address in X-Forwarded-For, from the nearest proxy, or the peer's address.

    A client without a proxy can send any X-Forwarded-For, and avoids only the limit per address.
    """
    forwarded: str = request.META.get("HTTP_X_FORWARDED_FOR", "")
    nearest = forwarded.rpartition(",")[2].strip()
    return nearest[:MAX_ADDRESS] or request.META["REMOTE_ADDR"]


def _too_many(wait_s: int) -> HttpResponse:
    RATE_LIMITED.labels(POLICY).inc()
    page = render_to_string("console/too_many_logins.html", {"language": get_language()})
    response = HttpResponse(page, status=HTTPStatus.TOO_MANY_REQUESTS)
    response.headers["Retry-After"] = str(wait_s)
    return response
