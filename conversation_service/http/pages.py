"""Pages for browsers that have the same content as JSON for programs."""

from collections.abc import Mapping
from typing import Any

from django.http import HttpResponse
from django.template.loader import render_to_string

from conversation_service.http.rendering import JSONResponse

_CONTENT_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'none'; "
    "frame-ancestors 'none'; base-uri 'none'"
)


def page_or_json(
    *, is_page: bool, template: str, context: Mapping[str, Any], data: Any
) -> HttpResponse:
    """Return a page or JSON, which the view chooses by Accept.

    The template is rendered without the request: a page has no form, token or script.
    """
    if not is_page:
        return JSONResponse(data, headers={"Vary": "Accept"})
    return HttpResponse(
        render_to_string(template, context),
        headers={"Vary": "Accept", "Content-Security-Policy": _CONTENT_POLICY},
    )
