"""Authentication by bearer JWT (RFC 6750, RFC 7519), without the database."""

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from math import inf
from threading import Lock
from time import time
from typing import Any, cast

import jwt
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.dispatch import receiver
from jwt import (
    DecodeError,
    ExpiredSignatureError,
    ImmatureSignatureError,
    InvalidAudienceError,
    InvalidIssuedAtError,
    InvalidIssuerError,
    InvalidSignatureError,
    InvalidTokenError,
    MissingRequiredClaimError,
    get_unverified_header,
)
from jwt.exceptions import InvalidJTIError, InvalidSubjectError
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request
from rest_framework_simplejwt.backends import TokenBackend
from rest_framework_simplejwt.exceptions import TokenBackendError
from rest_framework_simplejwt.tokens import Token

from conversation_service.external_ids import is_external_id
from conversation_service.http import rejections
from conversation_service.http.jwks import KeySet
from conversation_service.http.rejections import Rejection, rejected
from conversation_service.observability import context
from conversation_service.tokens import SERVICE, USER
from conversation_service.upstreams import auth

MAX_TOKEN_BYTES = 8 * 1024
# The signature of a token is verified again after this time, as its issuer may remove the key.
VERIFIED_S = 60

_ACCESS_TOKEN_TYPES = {"at+jwt", "application/at+jwt"}
_ID_TOKEN_TYPES = {"id", "id_token", "id+jwt"}
_OTHER_TOKEN_TYPES = {"refresh", "offline", "logout"}
_COMPACT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)

Claims = Mapping[str, Any]

_building = Lock()
_backends: dict[str, TokenBackend] = {}


@dataclass(frozen=True)
class Caller:
    """The user or the service of a token: DRF's request.user."""

    id: str
    token_type: str = USER
    scopes: frozenset[str] = frozenset()
    expires_at: float = inf  # seconds since 1970

    @property
    def is_authenticated(self) -> bool:
        return True


class CallerRequest(Request):
    """The request that an endpoint receives."""

    user: Caller  # type: ignore[assignment]  # the stubs know only Django's users
    auth: str


class UserAuthentication(BaseAuthentication):
    """Accepts access tokens of users, also without a token_type."""

    def authenticate(self, request: Request) -> tuple[Caller, str]:
        caller, token = _authenticate(request, _user)
        if settings.AUTH_REMOTE_VALIDATION:
            owner = auth.owner_of(token, user_id=caller.id, expires_at=caller.expires_at)
            if owner is None:
                raise rejected(rejections.REVOKED)
            if owner != caller.id:
                raise rejected(rejections.OTHER_USER)
        context.user_id.set(caller.id)
        return caller, token


class ServiceAuthentication(BaseAuthentication):
    """Accepts tokens of other services, with the scopes that they contain."""

    def authenticate(self, request: Request) -> tuple[Caller, str]:
        return _authenticate(request, _service)


def backends() -> dict[str, TokenBackend]:
    """Return what verifies tokens under the current settings, by algorithm."""
    with _building:  # concurrent first calls must share one set of keys
        if not _backends:
            checks = {
                "audience": settings.JWT_AUDIENCE or None,
                "issuer": settings.JWT_ISSUER or None,
                "leeway": settings.JWT_LEEWAY_S,
            }
            secrets = (settings.JWT_SECRET_KEY, *settings.JWT_SECRET_KEY_FALLBACKS)
            public = [name for name in settings.JWT_ALGORITHM if not name.startswith("HS")]
            keys = KeySet(settings.JWT_JWKS_URL, public)
            _backends.update(
                {name: _backend(name, secrets, keys, **checks) for name in settings.JWT_ALGORITHM}
            )
        return _backends


@receiver(setting_changed)  # in tests
def drop_backends(**change: Any) -> None:
    _backends.clear()
    _verify_once.cache_clear()


def _backend(algorithm: str, secrets: tuple[str, ...], keys: KeySet, **checks: Any) -> TokenBackend:
    """Bind an algorithm to its own key material: secrets, or the published keys."""
    if algorithm.startswith("HS"):
        if not all(secrets):
            raise ImproperlyConfigured("JWT_SECRET_KEY is empty.")
        return _SharedSecretBackend(algorithm, *secrets, **checks)
    if not settings.JWT_JWKS_URL:
        raise ImproperlyConfigured(f"JWT_ALGORITHM {algorithm} needs JWT_JWKS_URL.")
    return _PublicKeyBackend(algorithm, keys, **checks)


class _SharedSecretBackend(TokenBackend):
    """Signs with the first secret, and accepts the signatures of all.

    So the issuer and this service can change the secret at different times.
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
    """Verifies with the published keys of the issuer. simplejwt may wait 30 s for them."""

    def __init__(self, algorithm: str, keys: KeySet, **checks: Any) -> None:
        super().__init__(algorithm, **checks)
        self._keys = keys

    def get_verifying_key(self, token: Token) -> Any:
        kid = get_unverified_header(cast(str, token)).get("kid")
        key = self._keys.key(kid, self.algorithm)
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


def _authenticate(request: Request, read: Callable[[Claims], Caller]) -> tuple[Caller, str]:
    now = time()
    header = request.META.get("HTTP_AUTHORIZATION", "")
    caller, token = _verify_once(header, read, int(now // VERIFIED_S))
    if now >= caller.expires_at + settings.JWT_LEEWAY_S:  # it has expired since it was verified
        raise rejected(rejections.EXPIRED)
    return caller, token


@lru_cache(maxsize=4_096)  # of two kilobytes each; a verification takes 30 to 200 µs
def _verify_once(header: str, read: Callable[[Claims], Caller], period: int) -> tuple[Caller, str]:
    """Verify a token once in each period. A rejected token is verified with each request."""
    scheme, _, token = header.partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise rejected(rejections.MISSING)
    if len(token) > MAX_TOKEN_BYTES or not _COMPACT.fullmatch(token):
        raise rejected(rejections.MALFORMED)
    return read(claims_of(token)), token


def claims_of(token: str) -> Claims:
    """Return the claims of an access token with a valid signature and valid times.

    Raises the ServiceError of a rejection for any other token.
    """
    try:
        # PyJWT raises DecodeError for a malformed token, and later for an exp that is no number.
        header = jwt.decode_complete(token, options={"verify_signature": False})["header"]
    except InvalidTokenError:
        raise rejected(rejections.MALFORMED) from None
    algorithm = header.get("alg")
    if not isinstance(algorithm, str):
        raise rejected(rejections.MALFORMED)
    backend = backends().get(algorithm)
    if backend is None:
        raise rejected(rejections.ALGORITHM)
    try:
        claims: Claims = backend.decode(cast(Token, token))
    except TokenBackendError as error:
        cause = error.__cause__
        if isinstance(cause, MissingRequiredClaimError):
            raise rejected(_REJECTIONS_WITHOUT_CLAIM[cause.claim]) from None
        reason = next(reason for kind, reason in _REJECTIONS.items() if isinstance(cause, kind))
        raise rejected(reason) from None
    _check_kind(header, claims)
    return claims


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


def _user(claims: Claims) -> Caller:
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
