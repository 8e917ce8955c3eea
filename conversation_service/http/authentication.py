"""Authentication by bearer JWT (RFC 6750, RFC 7519), without the database."""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from math import inf
from time import time
from typing import Any

import jwt
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.dispatch import receiver
from jwt import InvalidTokenError
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

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

_key_sets: dict[tuple[str, str], KeySet] = {}


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


def decode(token: str) -> dict[str, Any]:
    """Return `header` and `payload` of a token with a valid signature and valid times.

    A secret in JWT_SECRET_KEY_FALLBACKS is accepted too: so the issuer and this service can change
    the secret at different times. Raises jwt.InvalidTokenError, or AuthUnavailable.
    """
    for key in _accepted_keys(token):
        with suppress(jwt.InvalidSignatureError):
            return jwt.decode_complete(
                token,
                key,
                [settings.JWT_ALGORITHM],
                audience=settings.JWT_AUDIENCE or None,
                issuer=settings.JWT_ISSUER or None,
                leeway=settings.JWT_LEEWAY_S,
                options={"verify_aud": bool(settings.JWT_AUDIENCE)},
            )
    raise jwt.InvalidSignatureError


def _accepted_keys(token: str) -> Sequence[Any]:
    algorithm, url = settings.JWT_ALGORITHM, settings.JWT_JWKS_URL
    if algorithm in {"HS256", "HS384", "HS512"}:
        secrets = [settings.JWT_SECRET_KEY, *settings.JWT_SECRET_KEY_FALLBACKS]
        if not all(secrets):
            raise ImproperlyConfigured("JWT_SECRET_KEY is empty.")
        return secrets
    if algorithm not in {"RS256", "ES256"} or not url:
        raise ImproperlyConfigured(f"JWT_ALGORITHM {algorithm} is unknown or needs JWT_JWKS_URL.")
    header = jwt.get_unverified_header(token)
    if header.get("alg") != algorithm:
        raise jwt.InvalidAlgorithmError
    # Concurrent first calls share one set of keys.
    key_set = _key_sets.setdefault((url, algorithm), KeySet(url, algorithm))
    key = key_set.key(header.get("kid", ""))
    if key is None:
        raise _UnknownKeyError
    return [key]


class _UnknownKeyError(InvalidTokenError):
    pass


@receiver(setting_changed)  # in tests
def forget_tokens_and_keys(**change: Any) -> None:
    _verify_once.cache_clear()
    _key_sets.clear()


# The first class that the exception is an instance of counts.
_REJECTIONS: dict[type[InvalidTokenError], Rejection] = {
    jwt.ExpiredSignatureError: rejections.EXPIRED,
    jwt.ImmatureSignatureError: rejections.NOT_YET_VALID,
    jwt.InvalidSignatureError: rejections.SIGNATURE,
    jwt.InvalidAlgorithmError: rejections.ALGORITHM,
    _UnknownKeyError: rejections.UNKNOWN_KEY,
    jwt.InvalidAudienceError: rejections.AUDIENCE,
    jwt.InvalidIssuerError: rejections.ISSUER,
    jwt.exceptions.InvalidSubjectError: rejections.SUBJECT,
    jwt.exceptions.InvalidJTIError: rejections.TOKEN_ID,
    jwt.InvalidIssuedAtError: rejections.TIMES,
    jwt.DecodeError: rejections.TIMES,
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
    try:
        decoded = decode(token)
    except InvalidTokenError as error:
        raise rejected(_rejection_for(token, error)) from None
    _check_kind(decoded["header"], decoded["payload"])
    return read(decoded["payload"]), token


def _rejection_for(token: str, error: InvalidTokenError) -> Rejection:
    """PyJWT raises jwt.DecodeError for malformed tokens and malformed times: parse once more."""
    try:
        header = jwt.decode_complete(token, options={"verify_signature": False})["header"]
    except InvalidTokenError:
        return rejections.MALFORMED
    if not isinstance(header.get("alg"), str):
        return rejections.MALFORMED
    if isinstance(error, jwt.MissingRequiredClaimError):
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
