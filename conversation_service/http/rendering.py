"""JSON in and out, by orjson."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
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
    raise TypeError(f"{type(value).__name__} has no JSON form here.")


@lru_cache(maxsize=16_384)  # a list has a hundred, and hardly any that was not in it before
def _moment(value: datetime) -> str:
    # Naive times come from PyMongo, which means UTC by them.
    moment = value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
    return moment.isoformat(timespec="milliseconds") + "Z"


_FORMS: Mapping[type, Callable[[Any], str]] = {datetime: _moment, ObjectId: str}


class JSONResponse(HttpResponse):
    """An answer that is rendered already: with one format, DRF has nothing left to choose."""

    def __init__(self, data: Any, **options: Any) -> None:
        super().__init__(dumps(data), **{"content_type": "application/json"} | options)


class JSONRenderer(BaseRenderer):
    """For DRF, which wants to know what can be served."""

    media_type = "application/json"
    format = "json"
    charset = None  # RFC 8259 section 11: JSON has no charset parameter

    def render(
        self,
        data: Any,
        accepted_media_type: str | None = None,
        renderer_context: Mapping[str, Any] | None = None,
    ) -> bytes:
        return b"" if data is None else dumps(data)


class JSONParser(BaseParser):
    """Reads at most `max_bytes`. orjson refuses NaN, lone surrogates and deep nesting."""

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
    """One format, so there is nothing to choose: only what cannot be served is found out."""

    acceptable = frozenset({"*/*", "application/*", "application/json", "application/problem+json"})
    readable = frozenset({"application/json", "application/merge-patch+json"})

    def select_renderer(
        self, request: Request, renderers: Any, format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        accept = request.META.get("HTTP_ACCEPT") or "*/*"
        if accept not in self.acceptable and not names(accept, self.acceptable):
            raise NotAcceptable
        return renderers[0], renderers[0].media_type

    def select_parser(self, request: Request, parsers: Any) -> BaseParser:
        encoding = request.META.get("HTTP_CONTENT_ENCODING", "identity")
        if encoding.lower() != "identity" or not _is_one_of(self.readable, request.content_type):
            wanted = " or ".join(sorted(self.readable))
            raise UnsupportedMediaType(
                _("Send it as Content-Type: %(types)s, in UTF-8 and not compressed.")
                % {"types": wanted}
            )
        return parsers[0]  # type: ignore[no-any-return]


@lru_cache(maxsize=256)
def _is_one_of(readable: frozenset[str], content_type: str | None) -> bool:
    media_type, *parameters = (content_type or "").lower().replace(" ", "").split(";")
    charsets = {name for name in parameters if name.startswith("charset=")}
    return media_type in readable and charsets <= {"charset=utf-8", 'charset="utf-8"'}


def names(accept: str, media_types: frozenset[str]) -> bool:
    """Tell whether an Accept header names one of these, and not to refuse it (q=0)."""
    for media_range in accept.lower().replace(" ", "").split(","):
        media_type, *parameters = media_range.split(";")
        refused = any(p.startswith("q=0") and not p.strip("q=0.") for p in parameters)
        if media_type in media_types and not refused:
            return True
    return False
