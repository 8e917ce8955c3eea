"""Tokens that this service signs with JWT_SECRET_KEY, for commands and requests to Message."""

from datetime import timedelta
from uuid import uuid4

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from rest_framework_simplejwt.backends import TokenBackend

from conversation_service import clock

USER = "access"  # a user's token_type; a token without that claim is a user's
SERVICE = "service"
SERVICE_TOKEN_LIFE = timedelta(minutes=1)


def user_token(user_id: str, *, life: timedelta) -> str:
    """Return an access token for a user. Raises ImproperlyConfigured as service_token() does."""
    return _sign(user_id, {"token_type": USER, settings.JWT_USER_ID_CLAIM: user_id}, life)


def service_token(name: str, *scopes: str, life: timedelta = SERVICE_TOKEN_LIFE) -> str:
    """Return a service token with these scopes.

    Raises ImproperlyConfigured if each JWT_ALGORITHM needs a private key, which only the issuer
    has.
    """
    return _sign(name, {"token_type": SERVICE, "scope": " ".join(scopes)}, life)


def _sign(subject: str, claims: dict[str, str], life: timedelta) -> str:
    usable = [name for name in settings.JWT_ALGORITHM if name.startswith("HS")]
    if not usable:
        raise ImproperlyConfigured(
            f"Only the issuer has the private key for {', '.join(settings.JWT_ALGORITHM)}. To sign "
            "here, add HS256, HS384 or HS512 to JWT_ALGORITHM, and set JWT_SECRET_KEY."
        )
    if not settings.JWT_SECRET_KEY:
        raise ImproperlyConfigured("JWT_SECRET_KEY is empty.")
    backend = TokenBackend(
        usable[0],
        signing_key=settings.JWT_SECRET_KEY,
        audience=settings.JWT_AUDIENCE or None,
        issuer=settings.JWT_ISSUER or None,
    )
    now = clock.now()
    stamps = {"sub": subject, "iat": now, "exp": now + life, "jti": uuid4().hex}
    return backend.encode(stamps | claims)
