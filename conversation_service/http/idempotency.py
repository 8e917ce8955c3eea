"""Idempotency-Key: a request that is sent again is not done again.

A key is remembered by the statement that makes the change, beside what it changed, so there is
nothing to fall between the two. Here is what a key is; where it is kept is the domain's business.
"""

import re
from dataclasses import dataclass
from datetime import timedelta
from hashlib import blake2b
from http import HTTPStatus

import orjson
from django.utils.translation import gettext_lazy as _
from rest_framework.request import Request

from conversation_service.errors import ServiceError

LIFETIME = timedelta(hours=24)

# RFC 8941 strings are quoted; most clients send the bare value.
_KEY = re.compile(r'"([!#-~]{1,255})"|([!#-~][!-~]{0,254})')


class IdempotencyKeyReused(ServiceError):
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "IDEMPOTENCY_KEY_REUSED"
    title = _("This Idempotency-Key was sent with another request")


class IdempotencyInProgress(ServiceError):
    """The first request with this key has not ended yet; `Retry-After` says when to ask again."""

    status = HTTPStatus.CONFLICT
    code = "IDEMPOTENCY_IN_PROGRESS"
    title = _("A request with this Idempotency-Key is still being processed")
    again_in_s = 1


@dataclass(frozen=True)
class IdempotencyKey:
    """A key with its scope, method and path; the user is the scope of where it is kept.

    A request is the same if its key is stored under one of the `scopes`: `scope`, or the one of
    release 0.1.0, which stored a path in the letter case of the request.
    """

    scope: str
    fingerprint: str
    scopes: list[str]

    def check(self, fingerprint: str) -> None:
        """Raise IdempotencyKeyReused unless the remembered request was this one."""
        if fingerprint != self.fingerprint:
            raise IdempotencyKeyReused


def sent_with(request: Request) -> IdempotencyKey | None:
    """Read the header, or raise ServiceError for one that is no key.

    The fingerprint is that of the parsed body: another spelling of the same JSON is the same.
    """
    header = request.META.get("HTTP_IDEMPOTENCY_KEY")
    if header is None:
        return None
    match = _KEY.fullmatch(header.strip())
    if match is None:
        raise ServiceError(_("An Idempotency-Key has 1 to 255 visible ASCII characters."))
    try:
        body = orjson.dumps(request.data, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:  # it reads deeper nesting than it writes
        raise ServiceError(_("The body is nested too deeply.")) from None
    query = request.META.get("QUERY_STRING", "").encode()
    path = request.path.rstrip("/")
    # Only the id in a path may have upper-case letters, and they mean the same.
    scopes = [
        f"{request.method} {spelling} {match[1] or match[2]}"
        for spelling in dict.fromkeys((path.lower(), path))
    ]
    return IdempotencyKey(
        scope=scopes[0],
        fingerprint=blake2b(body + b"?" + query, digest_size=16).hexdigest(),
        scopes=scopes,
    )
