"""JSON in and out, by orjson."""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from http import HTTPStatus
from typing import Any

import orjson
from bson import ObjectId
from django.http import HttpResponse
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from rest_framework.exceptions import ParseError
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

from conversation_service.errors import NotAcceptable, PayloadTooLarge, UnsupportedMediaType


def dumps(value: Any) -> bytes:
    """Return JSON: ObjectIds as hex digits, times as RFC 3339 in UTC with exactly milliseconds."""
    return orjson.dumps(value, default=_plain, option=orjson.OPT_PASSTHROUGH_DATETIME)


def _plain(value: Any) -> str:
    if form := _FORMS.get(type(value)):
        return form(value)
    if isinstance(value, Promise):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be rendered as JSON.")


@lru_cache(maxsize=16_384)  # a list has up to 400 times, most of them rendered before
def _moment(value: datetime) -> str:
    # Naive times come from PyMongo, and are in UTC.
    moment = value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
    return moment.isoformat(timespec="milliseconds") + "Z"


_FORMS: Mapping[type, Callable[[Any], str]] = {datetime: _moment, ObjectId: str}


class JSONResponse(HttpResponse):
    """A response with a rendered body: with one format, DRF need not choose a renderer."""

    def __init__(self, data: Any, **options: Any) -> None:
        super().__init__(dumps(data), **{"content_type": "application/json"} | options)


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


class JSONRenderer(BaseRenderer):
    """Names the media type for DRF, which renders no response: each is a JSONResponse."""

    media_type = "application/json"
    format = "json"


class JSONParser(BaseParser):
    """Reads at most `max_bytes`. orjson rejects NaN, lone surrogates and deep nesting."""

    media_type = "application/json"
    max_bytes = 64 * 1024

    def parse(
        self,
        stream: Any,
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        body = stream.read(self.max_bytes + 1)
        if len(body) > self.max_bytes:
            raise PayloadTooLarge(limit_bytes=self.max_bytes)
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise ParseError(
                _("The body is not valid JSON (line %(line)d, column %(column)d).")
                % {"line": error.lineno, "column": error.colno}
            ) from None


class JSONNegotiation(BaseContentNegotiation):
    """JSON only: rejects requests that cannot send or accept JSON."""

    acceptable = frozenset({"*/*", "application/*", "application/json", "application/problem+json"})
    readable = frozenset({"application/json", "application/merge-patch+json"})
    # Values of Content-Encoding that the parser reads.
    encodings = frozenset({"identity"})

    def select_renderer(
        self, request: Request, renderers: Any, format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        accept = request.META.get("HTTP_ACCEPT") or "*/*"
        if accept not in self.acceptable and not names(accept, self.acceptable):
            raise NotAcceptable
        return renderers[0], renderers[0].media_type

    def select_parser(self, request: Request, parsers: Any) -> BaseParser:
        coding = request.META.get("HTTP_CONTENT_ENCODING", "")
        headers = {}
        if coding.strip().lower() not in {"", *self.encodings}:
            headers["Accept-Encoding"] = ", ".join(sorted(self.encodings))
        media_type, *parameters = request.content_type.lower().replace(" ", "").split(";")
        charsets = {name for name in parameters if name.startswith("charset=")}
        is_utf8 = charsets <= {"charset=utf-8", 'charset="utf-8"'}
        if headers or media_type not in self.readable or not is_utf8:
            types = " or ".join(sorted(self.readable))
            encodings = " or ".join(sorted(self.encodings))
            raise UnsupportedMediaType(
                _(
                    "Send the body with Content-Type: %(types)s, in UTF-8, and with "
                    "Content-Encoding: %(encodings)s."
                )
                % {"types": types, "encodings": encodings},
                headers=headers,
            )
        return parsers[0]  # type: ignore[no-any-return]


def names(accept: str, media_types: frozenset[str]) -> bool:
    """Return True if an Accept header names one of these media types without q=0."""
    for media_range in accept.lower().replace(" ", "").split(","):
        media_type, *parameters = media_range.split(";")
        is_excluded = any(p.startswith("q=0") and not p.strip("q=0.") for p in parameters)
        if media_type in media_types and not is_excluded:
            return True
    return False
