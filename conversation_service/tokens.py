"""Tokens that this service signs with JWT_SECRET_KEY, for commands and requests to Message."""

from datetime import timedelta
from uuid import uuid4

import jwt
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from conversation_service import clock

USER = "access"  # a user's token_type; a token without that claim is a user's
SERVICE = "service"
SERVICE_TOKEN_LIFE = timedelta(minutes=1)


def user_token(user_id: str, *, life: timedelta) -> str:
    """Return an access token for a user. Raises ImproperlyConfigured as service_token() does."""
    return _sign(user_id, {"token_type": USER, settings.JWT_USER_ID_CLAIM: user_id}, life)


def service_token(name: str, *scopes: str, life: timedelta = SERVICE_TOKEN_LIFE) -> str:
    """Return a service token with these scopes.

    Raises ImproperlyConfigured if JWT_ALGORITHM needs a private key, which only the issuer has.
    """
    return _sign(name, {"token_type": SERVICE, "scope": " ".join(scopes)}, life)


def _sign(subject: str, claims: dict[str, str], life: timedelta) -> str:
    algorithm, secret = settings.JWT_ALGORITHM, settings.JWT_SECRET_KEY
    if not algorithm.startswith("HS"):
        raise ImproperlyConfigured(
            f"Only the issuer has the private key for {algorithm}. To sign here, set JWT_ALGORITHM"
            " to HS256, HS384 or HS512, and JWT_SECRET_KEY."
        )
    if not secret:
        raise ImproperlyConfigured("JWT_SECRET_KEY is empty.")
    now = clock.now()
    stamps = {"sub": subject, "iat": now, "exp": now + life, "jti": uuid4().hex}
    names = {"aud": settings.JWT_AUDIENCE, "iss": settings.JWT_ISSUER}
    expected = {claim: name for claim, name in names.items() if name}
    return jwt.encode(stamps | claims | expected, secret, algorithm)
