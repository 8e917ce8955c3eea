"""JSON in and out, by orjson."""

import json
import re
from codecs import BOM_UTF8
from collections.abc import Iterable, Mapping
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
from django.utils.translation import gettext_lazy
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

from conversation_service.errors import (
    MAX_ECHO,
    NotAcceptable,
    PayloadTooLarge,
    ServiceError,
    UnsupportedMediaType,
)

_ENTITY_TAG = r'(?:W/)?"([^"\x00-\x20\x7f]*)"'
# Elements of a list can be empty (RFC 9110, section 5.6.1.2).
ENTITY_TAGS = re.compile(rf"[\t ,]*{_ENTITY_TAG}(?:[\t ]*,[\t ,]*{_ENTITY_TAG})*[\t ,]*")
# Apache and lighttpd append -gzip, Caddy -zstd, Jetty --gzip, Traffic Server -df, and middleware
# for Django and WSGI ;gzip.
CODING = r"(?:--?|;)(?:gzip|br|zstd|deflate|compress|bzip2|df)"


_UTF_8 = {f"charset={name}" for name in ("utf-8", "utf8", '"utf-8"', '"utf8"')}


def dumps(value: Any) -> bytes:
    """Return JSON: ObjectIds as hex digits, times as RFC 3339 in UTC with exactly milliseconds."""
    return orjson.dumps(value, default=_plain, option=orjson.OPT_PASSTHROUGH_DATETIME)


def _plain(value: Any) -> str:
    if isinstance(value, datetime):
        return _moment(value)
    if isinstance(value, (ObjectId, Promise)):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be rendered as JSON.")


@lru_cache(maxsize=16_384)  # a list has up to 400 times, mostly rendered before
def _moment(value: datetime) -> str:
    # Naive times come from PyMongo, and are in UTC.
    moment = value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
    return moment.isoformat(timespec="milliseconds") + "Z"


def replace_unpaired_surrogates(line: bytes, replacement: bytes) -> bytes:
    """Replace the escapes that JSON has for half a character.

    JavaScript cuts texts by UTF-16 units, and so within an emoji.
    """
    return _ESCAPE.sub(lambda escape: replacement if escape["unpaired"] else escape[0], line)


_ESCAPE = re.compile(
    rb"\\u[dD][89abAB][\da-fA-F]{2}\\u[dD][c-fC-F][\da-fA-F]{2}"
    rb"|(?P<unpaired>\\u[dD][89a-fA-F][\da-fA-F]{2})"
    rb"|\\.",
    re.DOTALL,
)


def loads(text: bytes, *, line: int = 1, structure: bytes | None = None) -> Any:
    """Parse JSON. `line` is the number of the text's first line in the body.

    `structure` is the text without the contents of its strings, if the caller knows it. Raises
    ServiceError with the fault and its place. A key that an object repeats is a fault, too: orjson
    silently keeps its last value.
    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        place = {"line": line + error.lineno - 1, "column": error.colno}
        raise ServiceError(_fault(text, error) % place) from None
    if structure is None:
        structure = b"".join(without_escaped_quotes(text).split(b'"')[::2])
    if _number_of_keys(value) != structure.count(b":"):
        try:
            path = _path_of_repeated(json.loads(text, object_pairs_hook=_Pairs, parse_int=float))
        except RecursionError:
            raise ServiceError(_("The body is nested too deeply.")) from None
        message = _("The object has this key more than once. Send the key once.")
        fault = {"pointer": json_pointer(path)[:MAX_ECHO], "code": "repeated", "message": message}
        raise ServiceError(errors=[fault])
    return value


def without_escaped_quotes(text: bytes) -> bytes:
    """Return JSON of the same length in which each quotation mark starts or ends a string."""
    return text.replace(rb"\\", b"__").replace(rb"\"", b"__")


def json_pointer(path: Iterable[str | int]) -> str:
    """Return a JSON pointer (RFC 6901)."""
    steps = (str(step).replace("~", "~0").replace("/", "~1") for step in path)
    return "".join(f"/{step}" for step in steps)


def _number_of_keys(value: Any) -> int:
    number = 0
    parts = [value]
    for part in parts:  # it grows meanwhile
        if isinstance(part, dict):
            number += len(part)
            parts += part.values()
        elif isinstance(part, list):
            parts += part
    return number


class _Pairs(list):
    """The keys and values of an object as in its text."""


def _path_of_repeated(value: Any) -> list[str | int]:
    """Return the path to a repeated key in parsed JSON with _Pairs, or []."""
    found = set()
    for step, inner in value if isinstance(value, _Pairs) else enumerate(value):
        if step in found:
            return [step]
        found.add(step)
        if isinstance(inner, list) and (path := _path_of_repeated(inner)):
            return [step, *path]
    return []


def _fault(text: bytes, error: orjson.JSONDecodeError) -> str:
    """Return the fault of a text, with parameters for its place.

    For a wrong encoding, orjson names line 1, column 1.
    """
    if text.startswith(BOM_UTF8):
        return _("Send the body without a byte order mark (BOM).")
    try:
        text.decode()
    except UnicodeDecodeError:
        return _("The body is not in UTF-8.")
    if _NOT_FINITE.match(error.doc, error.pos):
        return _(
            "The body has NaN or Infinity, which JSON does not have "
            "(line %(line)d, column %(column)d). Send a finite number."
        )
    other = _("The body is not valid JSON (line %(line)d, column %(column)d).")
    return next((str(fault) for part, fault in _FAULTS.items() if part in error.msg), other)


# By a part of the message of orjson.
_FAULTS = {
    "surrogate": gettext_lazy(
        "The body has half of a surrogate pair. Send whole characters "
        "(line %(line)d, column %(column)d)."
    ),
    "infinity": gettext_lazy(
        "The body has a number beyond 1.8e308 (line %(line)d, column %(column)d). Send a smaller "
        "number."
    ),
    "depth": gettext_lazy(
        "The body is nested too deeply (line %(line)d, column %(column)d). Use at most 1,024 "
        "levels."
    ),
}
_NOT_FINITE = re.compile(r"[+-]?(?:nan|inf|infinity)\b", re.IGNORECASE)


class JSONResponse(HttpResponse):
    """A response with a rendered body: with one format, DRF need not choose a renderer."""

    def __init__(self, data: Any, **options: Any) -> None:
        super().__init__(dumps(data), **{"content_type": "application/json"} | options)


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


def etag(version: int, content: bytes | None = None) -> str:
    """Return a version's strong tag; with `content`, the tag for this content of the version."""
    return f'"v{version}"' if content is None else f'"v{version}.{_digest(content)}"'


def _digest(content: bytes) -> str:
    return sha256(content).hexdigest()[:24]


def _sent_tags(header: str) -> list[str]:
    """Return the tags in a header as this service sent them; none if it is malformed.

    A proxy that compresses a response changes its ETag, and usually passes on the changed tag in
    the next request. nginx, Varnish, HAProxy and h2o make the tag weak, others append the coding.
    This service sends each tag for one content only, so a changed tag still identifies it.
    """
    if not ENTITY_TAGS.fullmatch(header):
        return []
    return [re.sub(rf"{CODING}\Z", "", tag) for tag in re.findall(_ENTITY_TAG, header)]


class JSONRenderer(BaseRenderer):
    """Names the media type for DRF, which renders no response: each is a JSONResponse."""

    media_type = "application/json"
    format = "json"


class JSONParser(BaseParser):
    """Reads at most `max_bytes`."""

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
        return loads(body)


class JSONNegotiation(BaseContentNegotiation):
    """JSON only: rejects requests that cannot send or accept JSON.

    The rejection names the media types and codings that would be accepted.
    """

    acceptable = frozenset({"*/*", "application/*", "application/json", "application/problem+json"})
    readable = frozenset({"application/json", "application/merge-patch+json"})
    # The values in Content-Encoding that the parser reads.
    encodings = frozenset({"identity"})

    def select_renderer(
        self, request: Request, renderers: Any, format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        accept = request.META.get("HTTP_ACCEPT") or "*/*"
        if accept not in self.acceptable and not names(accept, self.acceptable):
            types = sorted(name for name in self.acceptable if "*" not in name)
            raise NotAcceptable(
                _("Send an Accept header that includes %(types)s.") % {"types": types[0]},
                media_types=types,
            )
        return renderers[0], renderers[0].media_type

    def select_parser(self, request: Request, parsers: Any) -> BaseParser:
        coding = request.META.get("HTTP_CONTENT_ENCODING", "")
        headers = {}
        if coding.strip().lower() not in {"", *self.encodings}:
            headers["Accept-Encoding"] = ", ".join(sorted(self.encodings))
        media_type, *parameters = (request.content_type or "").lower().replace(" ", "").split(";")
        charsets = {name for name in parameters if name.startswith("charset=")}
        if media_type not in self.readable or not charsets <= _UTF_8:
            headers |= self.accepted_bodies(request.method) | {"Accept": ", ".join(self.types())}
        if headers:
            raise UnsupportedMediaType(
                _(
                    "Send the body with Content-Type: %(types)s, in UTF-8, and with "
                    "Content-Encoding: %(encodings)s."
                )
                % {
                    "types": " or ".join(self.types()),
                    "encodings": " or ".join(sorted(self.encodings)),
                },
                headers=headers,
            )
        return parsers[0]  # type: ignore[no-any-return]

    def types(self) -> list[str]:
        """Return the accepted media types for a body."""
        return sorted(self.readable)

    def accepted_bodies(self, *methods: str | None) -> dict[str, str]:
        """Return Accept-Patch (RFC 5789) and Accept-Post (W3C LDP 1.0) for these methods."""
        names = {"PATCH": "Accept-Patch", "POST": "Accept-Post"}
        return {names[m]: ", ".join(self.types()) for m in methods if m in names}


def names(accept: str, media_types: frozenset[str]) -> bool:
    """Return True if an Accept header names one of these media types without q=0."""
    for media_range in accept.lower().replace(" ", "").split(","):
        media_type, *parameters = media_range.split(";")
        is_excluded = any(p.startswith("q=0") and not p.strip("q=0.") for p in parameters)
        if media_type in media_types and not is_excluded:
            return True
    return False
