"""The page at `/`, with links to the other pages; for programs, the same addresses as JSON."""

from django.conf import settings
from django.http import HttpRequest, HttpResponse

from conversation_service.http.pages import page_or_json


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
    preferred = request.get_preferred_type(["application/json", "text/html"])
    return page_or_json(
        is_page=preferred == "text/html",
        template="start_page.html",
        context={**service, "addresses": addresses},
        data={**service, "links": addresses},
    )
