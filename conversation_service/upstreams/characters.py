"""The client of Characters, which has each character's name and description."""

import unicodedata
from dataclasses import asdict, dataclass
from functools import partial
from http import HTTPStatus
from urllib.parse import quote

from django.conf import settings
from django.utils.translation import gettext_lazy as _

from config.upstreams import UPSTREAMS
from conversation_service.errors import ServiceError
from conversation_service.upstreams import http
from conversation_service.upstreams.response_cache import Fetched, ResponseCache

NAME_LENGTH = 200

SHAPE = 1  # raise it when Character changes: entries in Redis outlive a deployment

# HTTP clients and proxies resolve these path segments, percent-encoded ones included.
_DOT_SEGMENTS = {".", ".."}


class CharacterServiceUnavailable(ServiceError):
    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "CHARACTER_SERVICE_UNAVAILABLE"
    title = _("The Characters service is unavailable")
    cause = _("The Characters service does not respond. The character cannot be verified.")
    remedy = _("Wait for the seconds in `Retry-After`, then send the request again.")


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
    absent = Fetched(None, _UPSTREAM.absent_s, _UPSTREAM.absent_s)

    def fetch() -> Fetched:
        quoted = quote(character_id, safe="")
        address = path.format(id=quoted, name=quoted)
        if not _DOT_SEGMENTS.isdisjoint(address.partition("?")[0].split("/")):
            return absent
        read = partial(_read, "name" if "{name}" in path else "id", character_id)
        character = http.client(_UPSTREAM.name).get(address, read)
        if character is None:
            return absent
        return Fetched(asdict(character), _UPSTREAM.fresh_s, _UPSTREAM.usable_s)

    # An entry is valid for this service, path and shape of Character.
    key = f"{SHAPE}:{settings.CHARACTERS_SERVICE_URL}{path}:{character_id}"
    try:
        known = _cache.get(key, fetch)
    except http.UpstreamError as error:
        raise CharacterServiceUnavailable(again_in_s=error.retry_after_s) from None
    return Character(**known) if known else None


def _read(key: str, wanted: str, response: http.UpstreamResponse) -> Character | None:
    """Return the character with `wanted` as `key`. The body is a character or a list of them."""
    if response.status in {HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY}:  # an invalid id
        return None
    if response.status != HTTPStatus.OK:
        raise http.UpstreamRejection(f"The status is {response.status}")
    body = response.json()
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
