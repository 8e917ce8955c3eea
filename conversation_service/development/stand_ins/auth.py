"""A stand-in for Auth: tokens for every user name, with the password "demo"."""

from datetime import timedelta
from http import HTTPStatus
from typing import Any

from django.conf import settings
from jwt import InvalidTokenError

from conversation_service.development.stand_ins.server import LOOPBACK, Call, Reply, StandIn
from conversation_service.external_ids import is_external_id
from conversation_service.http.authentication import decode
from conversation_service.tokens import user_token

PASSWORD = "demo"  # noqa: S105 - for every user, on this machine only
LIFE = timedelta(hours=24)


def auth(port: int, *, host: str = LOOPBACK) -> StandIn:
    revoked: set[str] = set()

    def login(call: Call) -> Reply:
        match call.body:
            case {"username": str(name), "password": str(word)} if is_external_id(name):
                if word != PASSWORD:
                    return HTTPStatus.UNAUTHORIZED, {"detail": f'The password is "{PASSWORD}"'}
                token = user_token(name, life=LIFE)
                return HTTPStatus.OK, {"access_token": token, "token_type": "bearer"}
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


def _claims(token: str) -> dict[str, Any] | None:
    try:
        claims: dict[str, Any] = decode(token)["payload"]
    except InvalidTokenError:
        return None
    return claims
