"""By which names requests are counted, traced and logged: few, whatever callers send."""

import re
from functools import cache

from django.conf import settings
from django.http import HttpRequest

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "OTHER"
UNMATCHED = "<unmatched>"
# Asked every few seconds by machines: of no interest, and they would hide what is.
NOT_OBSERVED = ("/health", "/metrics")

_PARAMETER = re.compile(r"<(?:\w+:)?(\w+)>")


def method_of(request: HttpRequest) -> str:
    method = request.method or OTHER
    return method if method in METHODS else OTHER


def route_of(request: HttpRequest) -> str:
    """Return the template of the address, such as /api/v1/conversations/{id}."""
    if request.path_info.startswith(settings.STATIC_URL):
        return f"{settings.STATIC_URL}{{path}}"
    match = request.resolver_match
    return _template(match.route) if match and match.route else UNMATCHED


@cache  # there are as many as urls.py has lines
def _template(route: str) -> str:
    return "/" + _PARAMETER.sub(r"{\1}", route)
