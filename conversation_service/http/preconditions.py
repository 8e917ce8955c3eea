"""ETags, and the preconditions that use them (RFC 9110, section 13.1).

A proxy that compresses a response changes its ETag, and usually passes on the changed tag in the
next request. nginx, Varnish, HAProxy and h2o make the tag weak, others append the coding. This
service sends each tag for one content only, so a changed tag still identifies that content, and
If-Match accepts a weak tag.
"""

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

_ENTITY_TAG = r'(?:W/)?"([^"\x00-\x20\x7f]*)"'
# Elements of a list can be empty (RFC 9110, section 5.6.1.2).
_ENTITY_TAGS = re.compile(rf"[\t ,]*{_ENTITY_TAG}(?:[\t ]*,[\t ,]*{_ENTITY_TAG})*[\t ,]*")
# Apache and lighttpd append -gzip, Caddy -zstd, Jetty --gzip, Traffic Server -df, and middleware
# for Django and WSGI ;gzip.
_CODING = re.compile(r"(?:--?|;)(?:gzip|br|zstd|deflate|compress|bzip2|df)\Z")
_VERSION = re.compile(r"v([1-9][0-9]{0,15})(?:\.[0-9a-f]{24})?")


def etag(version: int, content: bytes | None = None) -> str:
    """Return the strong tag of a version, or of one content of this version."""
    return f'"v{version}"' if content is None else f'"v{version}.{_digest(content)}"'


def _digest(content: bytes) -> str:
    return sha256(content).hexdigest()[:24]


@dataclass(frozen=True)
class Versions:
    """The versions that a request may update; None accepts every version."""

    accepted: frozenset[int] | None = None


ANY_VERSION = Versions()


def json_or_304(request: Request, body: Any) -> HttpResponse:
    """Return JSON with a weak ETag from its content, or 304 if If-None-Match matches.

    Sends `Cache-Control: private, no-cache`.
    """
    response = JSONResponse(body, headers={"Cache-Control": "private, no-cache"})
    return or_304(request, response, f'W/"{_digest(response.content)}"')


def or_304(request: Request, response: HttpResponse, tag: str) -> HttpResponse:
    """Return a response with a tag, or 304 with the same headers if If-None-Match matches."""
    response.headers["ETag"] = tag
    sent = request.META.get("HTTP_IF_NONE_MATCH")
    if sent is None or (sent.strip() != "*" and not {*_sent_tags(tag)} & {*_sent_tags(sent)}):
        return response
    kept = {name: value for name, value in response.items() if name != "Content-Type"}
    return HttpResponse(status=HTTPStatus.NOT_MODIFIED, headers=kept)


def required_if_match(request: Request, client: str | None) -> Versions:
    """Read If-Match; raise PreconditionRequired if a client in IF_MATCH_REQUIRED_FOR omits it."""
    name = (client or "").partition("/")[0].lower()
    strict = {"*", name} & set(settings.IF_MATCH_REQUIRED_FOR)
    if strict and "HTTP_IF_MATCH" not in request.META:
        raise PreconditionRequired
    return if_match(request)


def if_match(request: Request) -> Versions:
    """Read If-Match, or raise ServiceError if malformed. Other tags than etag() match nothing."""
    header = request.META.get("HTTP_IF_MATCH")
    if header is None or header.strip() == "*":
        return ANY_VERSION
    tags = _sent_tags(header)
    if not tags:
        raise ServiceError(
            _('If-Match must be * or entity tags in quotation marks, as in ETag, such as "v3".')
        )
    versions = (_VERSION.fullmatch(tag) for tag in tags)
    return Versions(frozenset(int(version[1]) for version in versions if version))


def _sent_tags(header: str) -> list[str]:
    """Return the tags of a list as this service sent them; of a malformed header none."""
    if not _ENTITY_TAGS.fullmatch(header):
        return []
    return [_CODING.sub("", tag) for tag in re.findall(_ENTITY_TAG, header)]
