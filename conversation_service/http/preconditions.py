"""ETags, and the preconditions that use them (RFC 9110, section 13.1)."""

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
    """The versions that a request may update; None accepts every version."""

    accepted: frozenset[int] | None = None

    def condition(self) -> dict[str, Any]:
        if self.accepted is None:
            return {}
        # A document without a version reads as version 1; None matches it.
        missing = [None] if 1 in self.accepted else []
        return {"version": {"$in": [*sorted(self.accepted), *missing]}}

    def exclude(self, version: int) -> bool:
        return self.accepted is not None and version not in self.accepted


ANY_VERSION = Versions()


def json_or_304(request: Request, body: Any) -> HttpResponse:
    """Return JSON with a weak ETag from its content, or 304 if If-None-Match matches.

    Sends `Cache-Control: private, no-cache`.
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
    """Read If-Match; raise PreconditionRequired if a client in IF_MATCH_REQUIRED_FOR omits it."""
    name = (client or "").partition("/")[0].lower()
    strict = {"*", name} & set(settings.IF_MATCH_REQUIRED_FOR)
    if strict and "HTTP_IF_MATCH" not in request.META:
        raise PreconditionRequired
    return if_match(request)


def if_match(request: Request) -> Versions:
    """Read If-Match, or raise ServiceError if malformed. A weak tag never matches."""
    header = request.META.get("HTTP_IF_MATCH")
    if header is None or header.strip() == "*":
        return ANY_VERSION
    if not _ENTITY_TAGS.fullmatch(header):
        raise ServiceError(_('If-Match takes entity tags as in ETag, such as "v3".'))
    return Versions(frozenset(map(int, _STRONG_VERSION.findall(header))))
