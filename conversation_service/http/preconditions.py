"""ETags, and what clients ask by them (RFC 9110 section 13.1)."""

import re
from dataclasses import dataclass
from hashlib import sha256
from http import HTTPStatus
from typing import Any

from django.conf import settings
from django.http import HttpResponse
from django.utils.translation import gettext_lazy as _
from rest_framework.request import Request

from conversation_service.errors import PreconditionRequired, ServiceError
from conversation_service.http.rendering import JSONResponse

_ENTITY_TAGS = re.compile(r'\s*(?:W/)?"[^"\s]*"\s*(?:,\s*(?:W/)?"[^"\s]*"\s*)*')
_STRONG_VERSION = re.compile(r'(?<!W/)"v(\d{1,16})"')


def etag(version: int) -> str:
    return f'"v{version}"'


@dataclass(frozen=True)
class Versions:
    """The versions that an update accepts, from If-Match; None accepts any."""

    accepted: frozenset[int] | None = None


ANY_VERSION = Versions()


def json_or_304(request: Request, body: Any) -> HttpResponse:
    """Return JSON with a weak ETag of its content, or 304 if the caller has just that.

    Nobody may keep it for others, and everybody has to ask again.
    """
    response: HttpResponse = JSONResponse(body)
    tag = f'W/"{sha256(response.content).hexdigest()[:24]}"'
    known = re.findall(r'"[^"]*"', request.META.get("HTTP_IF_NONE_MATCH", ""))
    if tag.removeprefix("W/") in known:
        response = HttpResponse(status=HTTPStatus.NOT_MODIFIED)
    response.headers["ETag"] = tag
    response.headers["Cache-Control"] = "private, no-cache"
    return response


def required_if_match(request: Request, client: str | None) -> Versions:
    """Read If-Match, which some clients must send: see IF_MATCH_REQUIRED_FOR.

    Raises PreconditionRequired where such a one did not.
    """
    name = (client or "").partition("/")[0].lower()
    strict = {"*", name} & set(settings.IF_MATCH_REQUIRED_FOR)
    if strict and "HTTP_IF_MATCH" not in request.META:
        raise PreconditionRequired
    return if_match(request)


def if_match(request: Request) -> Versions:
    """Read If-Match. A weak tag never matches; what is not an entity tag raises ServiceError."""
    header = request.META.get("HTTP_IF_MATCH")
    if header is None or header.strip() == "*":
        return ANY_VERSION
    if not _ENTITY_TAGS.fullmatch(header):
        raise ServiceError(_('If-Match takes entity tags as in ETag, such as "v3".'))
    return Versions(frozenset(map(int, _STRONG_VERSION.findall(header))))
