"""The Characters service: whom one can talk with."""

import unicodedata
from dataclasses import asdict, dataclass
from functools import partial
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from django.conf import settings
from django.utils.translation import gettext_lazy as _

from conversation_service.errors import ServiceError
from conversation_service.upstreams import http
from conversation_service.upstreams.memory import Answered, Memory

FRESH_S = 300.0
ABSENT_S = 30.0  # a character made just now is found after that long at the latest
USABLE_S = 3_600.0
NAME_LENGTH = 200

SHAPE = 1  # to be raised with each change of Character, as Redis outlives deployments

# HTTP clients and proxies resolve these path segments, percent-encoded ones included.
_DOT_SEGMENTS = {".", ".."}


class CharacterServiceUnavailable(ServiceError):
    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "CHARACTER_SERVICE_UNAVAILABLE"
    title = _("The characters are unavailable")


@dataclass(frozen=True)
class Character:
    """`id` is what our conversations know it by, whatever Characters keeps it under."""

    id: str
    name: str
    description: str


_memory = Memory("characters")


def get(character_id: str) -> Character | None:
    """Return the character, at most FRESH_S old, or USABLE_S while Characters does not answer.

    Raises CharacterServiceUnavailable if it does not, and the character is not remembered. An id
    that would be the path segment `.` or `..` is not looked up: no such character exists.
    """
    path = settings.CHARACTER_PATH
    # Another service, another way to ask, another shape of Character: another entry.
    key = f"{SHAPE}:{settings.CHARACTERS_SERVICE_URL}{path}:{character_id}"
    try:
        known = _memory.answer(key, partial(_ask, path, character_id))
    except http.NoAnswer as error:
        raise CharacterServiceUnavailable(again_in_s=error.retry_after_s) from None
    return Character(**known) if known else None


def _ask(path: str, character_id: str) -> Answered:
    quoted = quote(character_id, safe="")
    address = path.format(id=quoted, name=quoted)
    if not _DOT_SEGMENTS.isdisjoint(address.partition("?")[0].split("/")):
        return Answered(None, ABSENT_S, ABSENT_S)
    read = partial(_read, "name" if "{name}" in path else "id", character_id)
    character = http.neighbour("CHARACTERS").ask(address, read)
    if character is None:
        return Answered(None, ABSENT_S, ABSENT_S)
    return Answered(asdict(character), FRESH_S, USABLE_S)


def _read(key: str, wanted: str, answer: http.Answer) -> Character | None:
    match answer.status:
        case HTTPStatus.OK:
            return _find(key, wanted, answer.json())
        case HTTPStatus.NOT_FOUND | HTTPStatus.UNPROCESSABLE_ENTITY:  # not even an id, over there
            return None
    raise http.Refused(f"The status is {answer.status}")


def _find(key: str, wanted: str, body: Any) -> Character | None:
    """Return the character that was asked for, from an answer that is one or a list of them."""
    if isinstance(body, list):
        return next((_checked(wanted, one) for one in body if _is(one, key, wanted)), None)
    if not _is(body, key, wanted):
        raise http.NoAnswer("This is not the character that was asked for")
    return _checked(wanted, body)


def _is(entry: Any, key: str, wanted: str) -> bool:
    if not isinstance(entry, dict):
        raise http.NoAnswer("This is not a character")
    return bool(entry.get(key) == wanted)


def _checked(wanted: str, entry: dict[str, Any]) -> Character:
    match entry:
        case {"id": str(), "name": str(name), "description": str(description)} if _line(name):
            return Character(wanted, _line(name), description)
    raise http.NoAnswer("The character has no name, or no description")


def _line(name: str) -> str:
    """Return a name, which may be anything, as one line that can be a title."""
    line = unicodedata.normalize("NFC", " ".join(name.split()))
    printable = (c for c in line if unicodedata.category(c) not in {"Cc", "Zl", "Zp"})
    return "".join(printable)[:NAME_LENGTH].strip()
