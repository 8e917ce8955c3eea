"""The header Idempotency-Key. The domain stores the records."""

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
    """The first request with this key has not ended; `Retry-After` says when to retry."""

    status = HTTPStatus.CONFLICT
    code = "IDEMPOTENCY_IN_PROGRESS"
    title = _("A request with this Idempotency-Key is still being processed")
    again_in_s = 1


@dataclass(frozen=True)
class IdempotencyKey:
    """A key, which is valid for a user, a method and a path.

    `scope` joins method, path and key; a new record stores it. `scopes` also has the form from
    release 0.1.0, which stored the path in the letter case as sent. The fingerprint hashes body and
    query.
    """

    scope: str
    fingerprint: str
    scopes: list[str]

    def check(self, fingerprint: str) -> None:
        """Raise IdempotencyKeyReused if the recorded request had another body or query."""
        if fingerprint != self.fingerprint:
            raise IdempotencyKeyReused


def read_key(request: Request) -> IdempotencyKey | None:
    """Read the header; raise ServiceError if it is invalid.

    The fingerprint covers the parsed body: equal JSON in another spelling is the same request.
    """
    header = request.META.get("HTTP_IDEMPOTENCY_KEY")
    if header is None:
        return None
    match = _KEY.fullmatch(header.strip())
    if match is None:
        raise ServiceError(_("An Idempotency-Key has 1 to 255 visible ASCII characters."))
    try:
        body = orjson.dumps(request.data, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:  # orjson reads deeper nesting than it writes
        raise ServiceError(_("The body is nested too deeply.")) from None
    query = request.META.get("QUERY_STRING", "").encode()
    path = request.path.rstrip("/")
    # Only the id in a path can have upper-case letters, and their case has no meaning.
    scopes = [
        f"{request.method} {spelling} {match[1] or match[2]}"
        for spelling in dict.fromkeys((path.lower(), path))
    ]
    return IdempotencyKey(
        scope=scopes[0],
        fingerprint=blake2b(body + b"?" + query, digest_size=16).hexdigest(),
        scopes=scopes,
    )
