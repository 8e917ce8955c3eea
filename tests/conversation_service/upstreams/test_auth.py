"""With AUTH_REMOTE_VALIDATION a good signature is not enough: Auth must confirm the token."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jwt
import pytest
from django.conf import settings as current
from django.urls import path
from rest_framework.test import APIClient
from rest_framework.views import APIView

from conversation_service.http.rendering import JSONResponse
from tests.conversation_service import loopback
from tests.conversation_service.upstreams.misbehaviour import ENDLESS, WAYS

pytestmark = pytest.mark.urls(__name__)

INVALID = (401, "AUTH_TOKEN_INVALID")
UNAVAILABLE = (503, "AUTH_UNAVAILABLE")
WELCOME = (200, None)
NO = loopback.respond(status="401 Unauthorized")


class WhoAmI(APIView):
    def get(self, request):
        return JSONResponse({"id": request.user.id})


urlpatterns = [path("api/v1/me", WhoAmI.as_view())]


@pytest.fixture(autouse=True)
def _remote(settings):
    settings.AUTH_REMOTE_VALIDATION = True


def token(**claims) -> str:
    payload = {"user_id": "u-1", "exp": int(time.time()) + 600} | claims
    return jwt.encode(payload, current.JWT_SECRET_KEY, "HS256")


def send(value: str):
    return APIClient().get("/api/v1/me", headers={"Authorization": f"Bearer {value}"})


def outcome(response) -> tuple[int, str | None]:
    return response.status_code, response.json().get("error", {}).get("code")


def says(**body) -> loopback.Talk:
    return loopback.respond(json.dumps(body).encode())


@pytest.mark.parametrize("body", [{"user_id": "u-1"}, {"id": "u-1"}, {"sub": "u-1", "x": 1}])
def test_a_confirmed_token_is_accepted(upstream, body):
    upstream.talk = says(**body)
    value = token()

    assert outcome(send(value)) == WELCOME
    assert "/api/v1/auth/validate HTTP" in upstream.received[0]
    assert f"\r\nAuthorization: Bearer {value}\r\n" in upstream.received[0]


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
def test_a_revoked_token_is_rejected(upstream, status):
    upstream.talk = loopback.respond(status=status)

    response = send(token())

    assert outcome(response) == INVALID
    assert 'error="invalid_token"' in response.headers["WWW-Authenticate"]


def test_a_token_of_another_user_is_rejected(upstream):
    upstream.talk = says(user_id="u-2")

    assert outcome(send(token())) == INVALID


def test_tokens_that_are_invalid_locally_are_not_sent_to_auth(upstream):
    assert outcome(send(token(exp=1))) == (401, "AUTH_TOKEN_EXPIRED")
    assert upstream.received == []


def test_no_token_is_sent_to_auth_by_default(upstream, settings):
    settings.AUTH_REMOTE_VALIDATION = False

    assert outcome(send(token())) == WELCOME
    assert upstream.received == []


def test_a_confirmation_is_cached(upstream, clock, settings):
    settings.AUTH_CACHE_TTL = 60
    upstream.talk = says(user_id="u-1")
    value = token()
    send(value)
    upstream.talk = NO

    clock.ahead_s = 58
    assert outcome(send(value)) == WELCOME
    clock.ahead_s = 61
    assert outcome(send(value)) == INVALID


def test_a_confirmation_is_not_used_after_the_token_expires(upstream, clock, settings):
    settings.AUTH_CACHE_TTL = 3_600
    settings.JWT_LEEWAY_S = 600
    upstream.talk = says(user_id="u-1")
    value = token(exp=int(time.time()) + 20)
    send(value)
    upstream.talk = NO

    clock.ahead_s = 18
    assert outcome(send(value)) == WELCOME
    clock.ahead_s = 21
    assert outcome(send(value)) == INVALID


def test_a_rejection_is_cached_for_ten_seconds(upstream, clock):
    upstream.talk = NO
    value = token()
    send(value)
    upstream.talk = says(user_id="u-1")

    clock.ahead_s = 8
    assert outcome(send(value)) == INVALID
    clock.ahead_s = 11
    assert outcome(send(value)) == WELCOME


@pytest.mark.parametrize(
    "talk",
    [
        *(WAYS[way] for way in WAYS if way not in ENDLESS),
        says(),
        says(user_id=7),
        says(user_id=None),
        loopback.respond(status="404 Not Found"),
    ],
)
def test_without_auth_every_token_is_rejected(upstream, talk):
    upstream.talk = talk

    response = send(token())

    assert outcome(response) == UNAVAILABLE
    assert response.headers["Retry-After"] == "1"


@pytest.mark.usefixtures("short_budget")
@pytest.mark.parametrize("way", ENDLESS)
def test_while_auth_hangs_every_token_is_rejected(upstream, way):
    upstream.talk = WAYS[way]

    assert outcome(send(token())) == UNAVAILABLE


def test_without_auth_the_signature_may_suffice(upstream, settings, caplog):
    settings.AUTH_FAIL_MODE = "open"
    upstream.talk = WAYS["has a bug"]

    assert outcome(send(token())) == WELCOME
    assert "accepted by its signature alone" in caplog.text


def test_a_cached_confirmation_is_used_while_auth_is_down(upstream):
    upstream.talk = says(user_id="u-1")
    value = token()
    send(value)
    upstream.talk = WAYS["hangs"]

    assert outcome(send(value)) == WELCOME


def test_an_expired_confirmation_is_not_used_while_auth_is_down(upstream, clock):
    upstream.talk = says(user_id="u-1")
    value = token()
    send(value)
    upstream.talk = WAYS["has a bug"]

    clock.ahead_s = 61
    assert outcome(send(value)) == UNAVAILABLE


def test_a_fail_mode_does_not_accept_rejected_tokens(upstream, settings):
    settings.AUTH_FAIL_MODE = "open"
    upstream.talk = NO

    assert outcome(send(token())) == INVALID


def test_an_unknown_fail_mode_stops_the_start():
    done = subprocess.run(
        [sys.executable, "-c", "import config.settings.base"],
        cwd=Path(__file__).resolve().parents[3],
        env=os.environ | {"AUTH_FAIL_MODE": "ajar"},  # noqa: TID251
        capture_output=True,
        text=True,
        check=False,
    )

    assert "AUTH_FAIL_MODE is 'ajar' and must be one of closed, open." in done.stderr
