"""The Auth service: whether a token whose signature is good has been revoked."""

import hashlib
import logging
from functools import partial
from http import HTTPStatus
from time import time
from typing import Any

from django.conf import settings

from conversation_service.errors import AuthUnavailable
from conversation_service.observability.metrics import TOKENS_NOT_CONFIRMED
from conversation_service.upstreams import http
from conversation_service.upstreams.memory import Answered, Memory

logger = logging.getLogger(__name__)

REFUSED_S = 10.0

_memory = Memory("auth")


def owner_of(token: str, *, user_id: str, expires_at: float) -> str | None:
    """Return the user that Auth names for a token, or None if Auth rejects the token.

    An owner is cached for AUTH_CACHE_TTL seconds, a rejection for REFUSED_S. If Auth does not
    answer, AUTH_FAIL_MODE decides between returning `user_id` and raising AuthUnavailable.
    """
    # Redis must not hold what opens doors.
    digest = hashlib.sha256(f"{settings.AUTH_SERVICE_URL} {token}".encode()).hexdigest()
    try:
        owner: str | None = _memory.answer(digest, partial(_ask, token, expires_at))
    except http.NoAnswer as error:
        if settings.AUTH_FAIL_MODE == "open":
            logger.warning("Auth does not answer: a token was accepted by its signature alone")
            TOKENS_NOT_CONFIRMED.inc()
            return user_id
        raise AuthUnavailable(again_in_s=error.retry_after_s) from None
    if owner is not None and owner != user_id:
        logger.error("Auth takes a token of one user for another's; see JWT_USER_ID_CLAIM")
    return owner


def _ask(token: str, expires_at: float) -> Answered:
    owner = http.neighbour("AUTH").ask(
        settings.AUTH_VALIDATE_PATH, _read, headers={"Authorization": f"Bearer {token}"}
    )
    if owner is None:
        return Answered(None, REFUSED_S, REFUSED_S)
    believed_s = max(0.0, min(settings.AUTH_CACHE_TTL, expires_at - time()))
    return Answered(owner, believed_s, believed_s)


def _read(answer: http.Answer) -> str | None:
    match answer.status:
        case HTTPStatus.OK:
            return _owner(answer.json())
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            return None
    raise http.Refused(f"The status is {answer.status}")


def _owner(body: Any) -> str:
    match body:
        case {"user_id": str(owner)} | {"id": str(owner)} | {"sub": str(owner)}:
            return owner
    raise http.NoAnswer("The answer names no user")
