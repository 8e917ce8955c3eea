"""The client of Characters, which has the name and the description of each character."""

import unicodedata
from dataclasses import asdict, dataclass
from functools import partial
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from django.conf import settings
from django.utils.translation import gettext_lazy as _

from config.upstreams import UPSTREAMS
from conversation_service.errors import ServiceError
from conversation_service.upstreams import http
from conversation_service.upstreams.response_cache import Fetched, ResponseCache

NAME_LENGTH = 200

SHAPE = 1  # raise it with each change of Character: entries in Redis outlive a deployment

# HTTP clients and proxies resolve these path segments, percent-encoded ones included.
_DOT_SEGMENTS = {".", ".."}


class CharacterServiceUnavailable(ServiceError):
    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "CHARACTER_SERVICE_UNAVAILABLE"
    title = _("The Characters service is unavailable")


@dataclass(frozen=True)
class Character:
    """`id` is the character_id of conversations: the name, if CHARACTER_PATH has `{name}`."""

    id: str
    name: str
    description: str


_UPSTREAM = UPSTREAMS["characters"]
_cache = ResponseCache(_UPSTREAM.name)


def get(character_id: str) -> Character | None:
    """Return the character, or None if it does not exist.

    Raises CharacterServiceUnavailable if Characters does not respond and no usable response is
    cached. An id that would be the path segment `.` or `..` is not looked up: no such character
    exists.
    """
    path = settings.CHARACTER_PATH
    # An entry is valid for one service, one path and one shape of Character.
    key = f"{SHAPE}:{settings.CHARACTERS_SERVICE_URL}{path}:{character_id}"
    try:
        known = _cache.get(key, partial(_fetch, path, character_id))
    except http.UpstreamError as error:
        raise CharacterServiceUnavailable(again_in_s=error.retry_after_s) from None
    return Character(**known) if known else None


def _fetch(path: str, character_id: str) -> Fetched:
    quoted = quote(character_id, safe="")
    address = path.format(id=quoted, name=quoted)
    if not _DOT_SEGMENTS.isdisjoint(address.partition("?")[0].split("/")):
        return Fetched(None, _UPSTREAM.absent_s, _UPSTREAM.absent_s)
    read = partial(_read, "name" if "{name}" in path else "id", character_id)
    character = http.client(_UPSTREAM.name).get(address, read)
    if character is None:
        return Fetched(None, _UPSTREAM.absent_s, _UPSTREAM.absent_s)
    return Fetched(asdict(character), _UPSTREAM.fresh_s, _UPSTREAM.usable_s)


def _read(key: str, wanted: str, response: http.UpstreamResponse) -> Character | None:
    match response.status:
        case HTTPStatus.OK:
            return _find(key, wanted, response.json())
        case HTTPStatus.NOT_FOUND | HTTPStatus.UNPROCESSABLE_ENTITY:  # an invalid id, there
            return None
    raise http.UpstreamRejection(f"The status is {response.status}")


def _find(key: str, wanted: str, body: Any) -> Character | None:
    """Return the requested character from a body that is one character or a list of characters."""
    entries = body if isinstance(body, list) else [body]
    if not all(isinstance(entry, dict) for entry in entries):
        raise http.UpstreamError("The response is not a character or a list of characters")
    found = next((entry for entry in entries if entry.get(key) == wanted), None)
    if found is None:
        if isinstance(body, list):
            return None
        raise http.UpstreamError("The response is another character than the requested one")
    match found:
        case {"id": str(), "name": str(name), "description": str(description)} if _line(name):
            return Character(wanted, _line(name), description)
    raise http.UpstreamError("The character has no name or no description")


def _line(name: str) -> str:
    """Return a name as one line that can be a title."""
    line = unicodedata.normalize("NFC", " ".join(name.split()))
    printable = (c for c in line if unicodedata.category(c) not in {"Cc", "Zl", "Zp"})
    return "".join(printable)[:NAME_LENGTH].strip()
