"""Who is calling: a bearer JWT (RFC 6750, RFC 7519) becomes a Caller. Never uses the database."""

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, lru_cache
from math import inf
from threading import Lock
from time import time
from typing import Any, cast
from uuid import uuid4

import jwt
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.dispatch import receiver
from jwt import (
    DecodeError,
    ExpiredSignatureError,
    ImmatureSignatureError,
    InvalidAlgorithmError,
    InvalidAudienceError,
    InvalidIssuedAtError,
    InvalidIssuerError,
    InvalidSignatureError,
    InvalidTokenError,
    MissingRequiredClaimError,
    get_unverified_header,
)
from jwt.exceptions import InvalidJTIError, InvalidSubjectError
from jwt.utils import base64url_decode
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request
from rest_framework_simplejwt.backends import TokenBackend
from rest_framework_simplejwt.exceptions import TokenBackendError
from rest_framework_simplejwt.tokens import Token

from conversation_service import clock
from conversation_service.external_ids import is_external_id
from conversation_service.http import rejections
from conversation_service.http.jwks import KeySet
from conversation_service.http.rejections import Rejection, rejected
from conversation_service.observability import context
from conversation_service.upstreams import auth

ALGORITHMS = {"HS256", "HS384", "HS512", "RS256", "ES256"}
MAX_TOKEN_BYTES = 8 * 1024
SERVICE_TOKEN_LIFE = timedelta(minutes=1)
# A key that its issuer withdraws is not trusted for longer than this, for those it has signed.
REMEMBERED_S = 60
USER = "access"
SERVICE = "service"

_ACCESS_TOKEN_TYPES = {"at+jwt", "application/at+jwt"}
_ID_TOKEN_TYPES = {"id", "id_token", "id+jwt"}
_OTHER_TOKEN_TYPES = {"refresh", "offline", "logout"}
_COMPACT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)

Claims = Mapping[str, Any]

_building = Lock()


@dataclass(frozen=True)
class Caller:
    """A person or a service that a token speaks for, as DRF's request.user."""

    id: str
    token_type: str = USER
    scopes: frozenset[str] = frozenset()
    expires_at: float = inf  # seconds since 1970

    @property
    def is_authenticated(self) -> bool:
        return True


class CallerRequest(Request):
    """What a view behind one of the authentications below gets."""

    user: Caller  # type: ignore[assignment]  # the stubs know users of Django's only
    auth: str


class UserAuthentication(BaseAuthentication):
    """Accept access tokens of people; those without a token_type count as such."""

    def authenticate(self, request: Request) -> tuple[Caller, str]:
        caller, token = _sender_of(request, _person)
        if settings.AUTH_REMOTE_VALIDATION:
            owner = auth.owner_of(token, user_id=caller.id, expires_at=caller.expires_at)
            if owner is None:
                raise rejected(rejections.REVOKED)
            if owner != caller.id:
                raise rejected(rejections.OTHER_USER)
        context.user_id.set(caller.id)
        return caller, token


class ServiceAuthentication(BaseAuthentication):
    """Accept tokens of other services, each with the scopes it was given."""

    def authenticate(self, request: Request) -> tuple[Caller, str]:
        return _sender_of(request, _service)


def user_token(user_id: str, *, life: timedelta) -> str:
    """Return a token by which its bearer speaks for this user. Raises what service_token does."""
    return _signed(user_id, {"token_type": USER, settings.JWT_USER_ID_CLAIM: user_id}, life)


def service_token(name: str, *scopes: str, life: timedelta = SERVICE_TOKEN_LIFE) -> str:
    """Return a token that proves for SERVICE_TOKEN_LIFE that the caller is this service.

    Signed with JWT_SECRET_KEY: where JWT_ALGORITHM leaves us only public keys, it raises
    ImproperlyConfigured.
    """
    return _signed(name, {"token_type": SERVICE, "scope": " ".join(scopes)}, life)


def _signed(subject: str, claims: dict[str, str], life: timedelta) -> str:
    if not settings.JWT_ALGORITHM.startswith("HS"):
        raise ImproperlyConfigured(
            f"Only the issuer holds the private key for {settings.JWT_ALGORITHM};"
            " a shared secret (HS256, HS384, HS512) is needed to sign here."
        )
    now = clock.now()
    stamps = {"sub": subject, "iat": now, "exp": now + life, "jti": uuid4().hex}
    return token_backend().encode(stamps | claims)


@cache
def token_backend() -> TokenBackend:
    """Return what signs and verifies tokens under the current settings."""
    with _building:  # or two first requests would fetch the keys twice
        return _build(
            settings.JWT_ALGORITHM,
            (settings.JWT_SECRET_KEY, *settings.JWT_SECRET_KEY_FALLBACKS),
            settings.JWT_JWKS_URL,
            settings.JWT_AUDIENCE or None,
            settings.JWT_ISSUER or None,
            settings.JWT_LEEWAY_S,
        )


@receiver(setting_changed)  # as in tests
def _forget_backend(**change: Any) -> None:
    token_backend.cache_clear()


@lru_cache(maxsize=8)
def _build(algorithm: str, secrets: tuple[str, ...], jwks_url: str, *claims: Any) -> TokenBackend:
    checks = dict(zip(("audience", "issuer", "leeway"), claims, strict=True))
    if algorithm not in ALGORITHMS:
        raise ImproperlyConfigured(f"JWT_ALGORITHM {algorithm} is none of {sorted(ALGORITHMS)}.")
    if algorithm.startswith("HS"):
        if not all(secrets):
            raise ImproperlyConfigured("JWT_SECRET_KEY is empty: anybody could sign tokens.")
        return _SharedSecretBackend(algorithm, *secrets, **checks)
    if not jwks_url:
        raise ImproperlyConfigured(f"JWT_ALGORITHM {algorithm} needs JWT_JWKS_URL.")
    return _PublicKeyBackend(algorithm, KeySet(jwks_url, algorithm), **checks)


class _SharedSecretBackend(TokenBackend):
    """Signs with the first secret and accepts what any has signed.

    So that the issuer and we can go over to a new one without doing it at the same moment.
    """

    def __init__(self, algorithm: str, secret: str, *others: str, **checks: Any) -> None:
        super().__init__(algorithm, signing_key=secret, **checks)
        self._next = _SharedSecretBackend(algorithm, *others, **checks) if others else None

    def decode(self, token: Token, verify: bool = True) -> dict[str, Any]:
        try:
            return super().decode(token, verify)
        except TokenBackendError as error:
            if self._next is None or not isinstance(error.__cause__, InvalidSignatureError):
                raise
            return self._next.decode(token, verify)


class _PublicKeyBackend(TokenBackend):
    """Verifies with the issuer's published keys, where simplejwt's own may wait 30 s for them."""

    def __init__(self, algorithm: str, keys: KeySet, **checks: Any) -> None:
        super().__init__(algorithm, **checks)
        self._keys = keys

    def get_verifying_key(self, token: Token) -> Any:
        header = get_unverified_header(cast(str, token))
        if header.get("alg") != self.algorithm:
            raise InvalidAlgorithmError
        key = self._keys.key(header.get("kid", ""))
        if key is None:
            raise _UnknownKeyError
        return key


class _UnknownKeyError(InvalidTokenError):
    pass


# The first class that the exception is an instance of counts.
_REJECTIONS: dict[type[InvalidTokenError], Rejection] = {
    ExpiredSignatureError: rejections.EXPIRED,
    ImmatureSignatureError: rejections.NOT_YET_VALID,
    InvalidSignatureError: rejections.SIGNATURE,
    InvalidAlgorithmError: rejections.ALGORITHM,
    _UnknownKeyError: rejections.UNKNOWN_KEY,
    InvalidAudienceError: rejections.AUDIENCE,
    InvalidIssuerError: rejections.ISSUER,
    InvalidSubjectError: rejections.SUBJECT,
    InvalidJTIError: rejections.TOKEN_ID,
    InvalidIssuedAtError: rejections.TIMES,
    DecodeError: rejections.TIMES,
    InvalidTokenError: rejections.MALFORMED,
}
_REJECTIONS_WITHOUT_CLAIM = {"aud": rejections.AUDIENCE, "iss": rejections.ISSUER}


def _sender_of(request: Request, kind: Callable[[Claims], Caller]) -> tuple[Caller, str]:
    now = time()
    header = request.META.get("HTTP_AUTHORIZATION", "")
    caller, token = _remembered(header, kind, token_backend(), int(now // REMEMBERED_S))
    if now >= caller.expires_at + settings.JWT_LEEWAY_S:  # remembered, and expired since
        raise rejected(rejections.EXPIRED)
    return caller, token


@lru_cache(maxsize=4_096)  # of two kilobytes each
def _remembered(
    header: str, kind: Callable[[Claims], Caller], backend: TokenBackend, period: int
) -> tuple[Caller, str]:
    """Check a token once in each period; one that is refused is checked every time."""
    token = _bearer_token(header)
    return kind(_verified(token, backend)), token


def _bearer_token(header: str) -> str:
    scheme, _, token = header.partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise rejected(rejections.MISSING)
    if len(token) > MAX_TOKEN_BYTES or not _COMPACT.fullmatch(token):
        raise rejected(rejections.MALFORMED)
    return token


def _verified(token: str, backend: TokenBackend) -> Claims:
    """Return the claims of a token that is signed, valid now and neither ID nor refresh token."""
    try:
        claims: Claims = backend.decode(cast(Token, token))
    except TokenBackendError as error:
        raise rejected(_rejection_for(token, error.__cause__)) from None
    header: Claims = json.loads(base64url_decode(token.partition(".")[0]))
    _check_kind(header, claims)
    return claims


def _rejection_for(token: str, error: BaseException | None) -> Rejection:
    """Return why verification raised this.

    PyJWT raises DecodeError for a malformed token and for an exp or nbf that is no number. So the
    token is parsed once more.
    """
    try:
        header = jwt.decode_complete(token, options={"verify_signature": False})["header"]
    except InvalidTokenError:
        return rejections.MALFORMED
    if not isinstance(header.get("alg"), str):
        return rejections.MALFORMED
    if isinstance(error, MissingRequiredClaimError):
        return _REJECTIONS_WITHOUT_CLAIM[error.claim]
    return next(rejection for kind, rejection in _REJECTIONS.items() if isinstance(error, kind))


def _check_kind(header: Claims, claims: Claims) -> None:
    """Reject ID, refresh and logout tokens, which issuers sign with the keys of access tokens.

    Keycloak names the kind in the claim `typ`, Cognito in the claim `token_use`, RFC 9068 and
    RFC 8725 in the header `typ`.
    """
    types = {str(part.get("typ", "")).lower() for part in (header, claims)}
    use = claims.get("token_use", "access")
    if use == "id" or types & _ID_TOKEN_TYPES:
        raise rejected(rejections.ID_TOKEN)
    explicit = {name for name in types if name.endswith("+jwt")} - _ACCESS_TOKEN_TYPES
    if use != "access" or explicit or types & _OTHER_TOKEN_TYPES:
        raise rejected(rejections.NO_ACCESS_TOKEN)


def _person(claims: Claims) -> Caller:
    token_type = claims.get("token_type", USER)
    if token_type == SERVICE:
        raise rejected(rejections.SERVICE_TOKEN)
    if token_type != USER:
        raise rejected(rejections.NO_ACCESS_TOKEN)
    user_id = claims.get(settings.JWT_USER_ID_CLAIM, claims.get("sub"))
    if not is_external_id(user_id):
        raise rejected(rejections.USER_ID)
    return Caller(user_id, expires_at=_expiry(claims))


def _service(claims: Claims) -> Caller:
    if claims.get("token_type") != SERVICE:
        raise rejected(rejections.NO_SERVICE_TOKEN)
    scope, name = claims.get("scope", ""), claims.get("sub")
    if not isinstance(scope, str):
        raise rejected(rejections.SCOPE)
    if not is_external_id(name):
        raise rejected(rejections.SUBJECT)
    return Caller(name, SERVICE, frozenset(scope.split()), _expiry(claims))


def _expiry(claims: Claims) -> float:
    """Return `exp`, which PyJWT checks only if it is present and also accepts as a string."""
    exp = claims.get("exp")
    if isinstance(exp, int | float) and not isinstance(exp, bool):
        with suppress(OverflowError):  # an integer such as 10^400
            return float(exp)
    raise rejected(rejections.TIMES)
