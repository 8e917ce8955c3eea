"""The page at `/`, with links to the other pages; for programs, the same addresses as JSON."""

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.cache import patch_vary_headers

from conversation_service.http.rendering import JSONResponse

_CONTENT_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; "
    "form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
)


def start_page(request: HttpRequest) -> HttpResponse:
    """Respond with HTML if the client prefers it, as browsers do, and else with JSON."""
    addresses = {
        "conversations": "/api/v1/conversations",
        "documentation": "/api/docs",
        "reference": "/api/redoc",
        "schema": "/api/schema",
        "console": settings.CONSOLE_PATH,
        "health": "/health",
    }
    service = {"service": settings.SERVICE_NAME, "version": settings.VERSION}
    if request.get_preferred_type(["application/json", "text/html"]) == "text/html":
        response = render(request, "start_page.html", {**service, "addresses": addresses})
        response.headers["Content-Security-Policy"] = _CONTENT_POLICY
    else:
        response = JSONResponse({**service, "links": addresses})
    patch_vary_headers(response, ["Accept"])
    return response
