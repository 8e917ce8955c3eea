"""The client of Auth, which knows the revoked tokens."""

import hashlib
import logging
from http import HTTPStatus
from time import time

from django.conf import settings

from config.upstreams import UPSTREAMS
from conversation_service.errors import AuthUnavailable
from conversation_service.observability.metrics import TOKENS_NOT_CONFIRMED
from conversation_service.upstreams import http
from conversation_service.upstreams.response_cache import Fetched, ResponseCache

logger = logging.getLogger(__name__)

_UPSTREAM = UPSTREAMS["auth"]
_cache = ResponseCache(_UPSTREAM.name)


def owner_of(token: str, *, user_id: str, expires_at: float) -> str | None:
    """Return the user that Auth names for a token, or None if Auth rejects the token.

    An owner is cached for AUTH_CACHE_TTL seconds, until the token expires at most. If Auth does
    not respond, AUTH_FAIL_MODE decides between returning `user_id` and raising AuthUnavailable.
    """

    def fetch() -> Fetched:
        headers = {"Authorization": f"Bearer {token}"}
        owner = http.client(_UPSTREAM.name).get(settings.AUTH_VALIDATE_PATH, _read, headers=headers)
        if owner is None:
            return Fetched(None, _UPSTREAM.absent_s, _UPSTREAM.absent_s)
        life_s = max(0.0, min(settings.AUTH_CACHE_TTL, expires_at - time()))
        return Fetched(owner, life_s, life_s)

    # Redis must not contain tokens.
    digest = hashlib.sha256(f"{settings.AUTH_SERVICE_URL} {token}".encode()).hexdigest()
    try:
        owner: str | None = _cache.get(digest, fetch)
    except http.UpstreamError as error:
        if settings.AUTH_FAIL_MODE == "open":
            logger.warning("Auth does not respond: a token is accepted by its signature alone")
            TOKENS_NOT_CONFIRMED.inc()
            return user_id
        raise AuthUnavailable(again_in_s=error.retry_after_s) from None
    if owner is not None and owner != user_id:
        logger.error("Auth names another user for a token; see JWT_USER_ID_CLAIM")
    return owner


def _read(response: http.UpstreamResponse) -> str | None:
    if response.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return None
    if response.status != HTTPStatus.OK:
        raise http.UpstreamRejection(f"The status is {response.status}")
    match response.json():
        case {"user_id": str(owner)} | {"id": str(owner)} | {"sub": str(owner)}:
            return owner
    raise http.UpstreamError("The response names no user")
