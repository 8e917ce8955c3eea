"""Tokens for development, issued by a command and accepted by the API."""

from datetime import UTC, datetime
from importlib import import_module
from io import StringIO

import jwt
import pytest
import time_machine
from django.core.management import CommandError, call_command
from django.urls import path
from rest_framework.test import APIClient
from rest_framework.views import APIView

from conversation_service.http.authentication import ServiceAuthentication
from conversation_service.http.rendering import JSONResponse
from tests.external_ids import IDS, NO_IDS

pytestmark = pytest.mark.urls(__name__)


class User(APIView):
    def get(self, request):
        return JSONResponse({"id": request.user.id})


class Service(APIView):
    authentication_classes = [ServiceAuthentication]

    def get(self, request):
        return JSONResponse({"id": request.user.id, "scopes": sorted(request.user.scopes)})


import_module("conversations.internal_urls")  # its views name the scopes
urlpatterns = [path("user", User.as_view()), path("service", Service.as_view())]


def issue(*arguments: str) -> str:
    output = StringIO()
    call_command("issue_token", *arguments, stdout=output)
    return output.getvalue()


def send(address: str, token: str):
    return APIClient().get(address, headers={"Authorization": f"Bearer {token.strip()}"})


def test_a_user_token_is_accepted_by_the_public_api():
    assert send("/user", issue("demo")).json() == {"id": "demo"}


def test_only_the_token_is_printed():
    output = issue("demo")

    assert output.count("\n") == 1
    assert output.count(".") == 2


def test_the_token_of_a_service_has_its_scopes():
    known = ["conversations:activity", "conversations:authorize"]
    token = issue("--service", "billing", "--scope", *known)

    assert send("/service", token).json() == {
        "id": "billing",
        "scopes": known,
    }
    assert send("/user", token).status_code == 401


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_tokens_follow_the_settings(settings, algorithm):
    settings.JWT_ALGORITHM = [algorithm]
    settings.JWT_SECRET_KEY = "long enough for every hmac " * 3
    settings.JWT_ISSUER = "https://auth"
    settings.JWT_AUDIENCE = "chat"
    settings.JWT_USER_ID_CLAIM = "uid"

    assert send("/user", issue("demo")).json() == {"id": "demo"}


@pytest.mark.parametrize(
    ("arguments", "seconds"),
    [
        ([], 86_400),
        (["--lifetime", "90s"], 90),
        (["--lifetime", "15m"], 900),
        (["--lifetime", "1h"], 3_600),
        (["--lifetime", "30d"], 2_592_000),
    ],
)
@time_machine.travel(datetime(2026, 1, 15, 15, tzinfo=UTC), tick=False)
def test_a_token_is_valid_for_a_day_or_the_given_time(arguments, seconds):
    token = issue("demo", *arguments).strip()

    claims = jwt.decode(token, options={"verify_signature": False})

    assert claims["exp"] - claims["iat"] == seconds


@pytest.mark.parametrize("lifetime", ["", "0h", "1", "h", "1w", "-1h", "1.5h", "9999999d", "1h\n"])
def test_an_invalid_lifetime_is_rejected(lifetime):
    with pytest.raises(CommandError, match="is not a lifetime such as 90s, 15m, 1h or 30d"):
        issue("demo", f"--lifetime={lifetime}")


@pytest.mark.parametrize("arguments", [[], ["demo", "--service", "billing"]])
def test_a_token_is_for_one_user_or_one_service(arguments):
    with pytest.raises(CommandError, match="either a user or --service"):
        issue(*arguments)


def test_a_user_has_no_scope():
    with pytest.raises(CommandError, match="--scope needs --service"):
        issue("demo", "--scope", "conversations:activity")


@pytest.mark.parametrize("scope", ["nonsense", "conversations:activity,conversations:authorize"])
def test_an_unknown_scope_is_rejected_with_the_known_ones(scope):
    known = "The scopes are conversations:activity, conversations:authorize"
    with pytest.raises(CommandError, match=f"No endpoint has the scope {scope}. {known}"):
        issue("--service", "billing", "--scope", "conversations:activity", scope)


def test_a_token_without_a_scope_has_a_warning(capsys):
    issue("--service", "billing")

    assert "Without --scope this token permits no request" in capsys.readouterr().err


@pytest.mark.parametrize("user", IDS)
def test_a_token_is_issued_for_every_id_that_is_accepted(user):
    assert send("/user", issue("--", user)).json() == {"id": user}
    assert send("/service", issue(f"--service={user}")).json() == {"id": user, "scopes": []}


@pytest.mark.parametrize("name", NO_IDS)
def test_no_token_is_issued_for_an_id_that_is_rejected(name):
    for arguments in (["--", name], [f"--service={name}"]):
        with pytest.raises(CommandError, match="Use 1 to 255 visible ASCII characters"):
            issue(*arguments)


def test_no_token_is_issued_with_public_keys_only(settings):
    settings.JWT_ALGORITHM = ["RS256"]

    with pytest.raises(CommandError, match="Only the issuer has the private key for RS256"):
        issue("demo")
