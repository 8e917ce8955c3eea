"""All URLs."""

from django.conf import settings
from django.contrib import admin
from django.urls import include, path, re_path
from django.views.i18n import set_language
from django_prometheus.exports import ExportToDjangoView

import conversations.urls
from conversation_service import health
from conversation_service.http import error_pages, openapi
from conversation_service.http.exception_handler import not_found
from conversation_service.http.start_page import start_page
from conversations.views.openapi.conversations import schema

console = settings.CONSOLE_PATH.lstrip("/")

urlpatterns = [
    *conversations.urls.urlpatterns,
    path("", health.safe_only(start_page)),
    path("internal/v1/", include("conversations.internal_urls")),
    re_path("^health/?$", health.report),
    re_path("^health/live/?$", health.live),
    re_path("^health/ready/?$", health.ready),
    path("metrics", health.safe_only(ExportToDjangoView)),
    path("api/errors", health.safe_only(error_pages.error_list)),
    path("api/errors/<str:code>", health.safe_only(error_pages.error_page)),
    path("api/schema", health.safe_only(schema)),
    path("api/docs", openapi.SwaggerView.as_view(url="/api/schema")),
    path("api/redoc", openapi.RedocView.as_view(url="/api/schema")),
    path(f"{console}i18n/setlang", set_language, name="set_language"),
    path(console, admin.site.urls),
    # With DEBUG, Django would respond to an unknown path with its own page.
    re_path("", not_found),
]

handler400 = "conversation_service.http.exception_handler.bad_request"
handler403 = "conversation_service.http.exception_handler.permission_denied"
handler404 = "conversation_service.http.exception_handler.not_found"
handler500 = "conversation_service.http.exception_handler.server_error"
