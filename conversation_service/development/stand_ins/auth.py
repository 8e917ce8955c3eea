"""A stand-in for Auth: tokens for any user with the one password, until they are revoked."""

from datetime import timedelta
from http import HTTPStatus
from typing import Any, cast
from uuid import uuid4

from django.conf import settings
from rest_framework_simplejwt.exceptions import TokenBackendError
from rest_framework_simplejwt.tokens import Token

from conversation_service import clock
from conversation_service.development.stand_ins.server import LOOPBACK, Call, Reply, StandIn
from conversation_service.external_ids import is_external_id
from conversation_service.http.authentication import token_backend
from conversation_service.tokens import USER

PASSWORD = "demo"  # noqa: S105 - for everybody, on this machine only
LIFE = timedelta(hours=24)


def auth(port: int, *, host: str = LOOPBACK) -> StandIn:
    revoked: set[str] = set()

    def login(call: Call) -> Reply:
        match call.body:
            case {"username": str(name), "password": str(word)} if is_external_id(name):
                if word == PASSWORD:
                    return HTTPStatus.OK, {"access_token": _token(name), "token_type": "bearer"}
                return HTTPStatus.UNAUTHORIZED, {"detail": f'The password is "{PASSWORD}"'}
        return HTTPStatus.UNPROCESSABLE_ENTITY, {"detail": "Send username and password"}

    def validate(call: Call) -> Reply:
        claims = _claims(call.token)
        if claims is None or call.token in revoked:
            return HTTPStatus.UNAUTHORIZED, {"detail": "The token is not valid"}
        return HTTPStatus.OK, {"user_id": claims.get(settings.JWT_USER_ID_CLAIM, claims.get("sub"))}

    def revoke(call: Call) -> Reply:
        if _claims(call.token) is None:
            return HTTPStatus.UNAUTHORIZED, {"detail": "The token is not valid"}
        revoked.add(call.token)
        return HTTPStatus.OK, {"revoked": True}

    return StandIn(
        "auth-service",
        (host, port),
        [
            ("POST", "/api/v1/auth/login", login),
            ("GET", "/api/v1/auth/validate", validate),
            ("POST", "/api/v1/auth/revoke", revoke),
        ],
    )


def _token(user_id: str) -> str:
    now = clock.now()
    claims = {"sub": user_id, "jti": uuid4().hex, "iat": now, "exp": now + LIFE}
    return token_backend().encode(
        claims | {"token_type": USER, settings.JWT_USER_ID_CLAIM: user_id}
    )


def _claims(token: str) -> dict[str, Any] | None:
    try:
        return token_backend().decode(cast(Token, token))
    except TokenBackendError:
        return None
