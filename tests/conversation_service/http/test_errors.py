"""Every error response has the same format."""

import pytest
from django.test import Client, override_settings
from django.urls import path
from pymongo.errors import AutoReconnect, WriteError
from rest_framework.views import APIView

from config.urls import urlpatterns as config_urlpatterns
from tests.factories import PATH, client_of, conversation, token

ANSWER = {"type", "title", "status", "detail", "instance", "error"}
ERROR = {"code", "type", "message", "details", "error_id", "request_id"}


class Failing(APIView):
    authentication_classes = []
    permission_classes = []

    def get(self, request, kind):
        raise {
            "bug": ZeroDivisionError("secret words"),
            "gone": AutoReconnect("mongodb.internal:27017 closed"),
            "invalid": WriteError("full error: {'title': 'secret words'}", 121),
        }[kind]


def outside(request):
    raise ZeroDivisionError("secret words")


def gone(request):
    raise AutoReconnect("mongodb.internal:27017 closed")


urlpatterns = [
    path("admin/gone", gone),
    path("api/failing/<kind>", Failing.as_view()),
    path("api/outside", outside),
    *config_urlpatterns,
]
handler500 = "conversation_service.http.exception_handler.server_error"


def checked(response, status, code):
    body = response.json()
    assert (response.status_code, body["status"]) == (status, status)
    assert body.keys() == ANSWER
    assert body["error"].keys() == ERROR
    assert body["error"]["code"] == code
    assert body["error"]["request_id"] == response.headers["X-Request-ID"]
    return body


@pytest.fixture
def anonymous():
    return Client(raise_request_exception=False)


@pytest.mark.parametrize("path", ["/nowhere", "/api/v1/nowhere", "/api/v1", "/health/x"])
def test_an_unknown_address_is_404(anonymous, path):
    body = checked(anonymous.get(path), 404, "NOT_FOUND")

    assert body["instance"] == path


@override_settings(DEBUG=True)
def test_an_unknown_address_is_404_in_debug_mode(anonymous):
    checked(anonymous.get("/api/v1/nowhere"), 404, "NOT_FOUND")


def test_an_unknown_method_is_405(alice):
    response = alice.put(PATH, {})

    checked(response, 405, "METHOD_NOT_ALLOWED")
    assert response.headers["Allow"] == "GET, POST, HEAD, OPTIONS"


@pytest.mark.parametrize("accept", ["text/html", "application/xml", "application/json;q=0"])
def test_unsupported_media_types_are_406(alice, accept):
    checked(alice.get(PATH, headers={"Accept": accept}), 406, "NOT_ACCEPTABLE")


@pytest.mark.parametrize(
    "accept", ["*/*", "application/*", "text/html, */*;q=0.1", "Application/JSON; q=0.5", ""]
)
def test_media_ranges_that_include_json_are_accepted(alice, accept):
    assert alice.get(PATH, headers={"Accept": accept}).status_code == 200


def test_problem_json_is_sent_only_on_request(alice):
    problem = alice.get(f"{PATH}/x", headers={"Accept": "application/problem+json"})
    plain = alice.get(f"{PATH}/x")

    assert problem.headers["Content-Type"] == "application/problem+json"
    assert plain.headers["Content-Type"] == "application/json"
    fine = alice.get(PATH, headers={"Accept": "application/problem+json"})
    assert fine.headers["Content-Type"] == "application/json"


@pytest.mark.urls(__name__)
@pytest.mark.parametrize("path", ["/api/failing/bug", "/api/outside", "/api/failing/invalid"])
def test_a_bug_shows_only_its_request_id(anonymous, path, log):
    response = anonymous.get(path)

    body = checked(response, 500, "INTERNAL_ERROR")
    assert "secret" not in response.content.decode()
    assert body["error"]["error_id"] in log.getvalue()
    assert body["error"]["request_id"] in log.getvalue()
    assert "Traceback" in log.getvalue()


@pytest.mark.urls(__name__)
def test_documents_quoted_by_mongodb_are_not_logged(anonymous, log):
    anonymous.get("/api/failing/invalid")

    assert "secret words" not in log.getvalue()


@pytest.mark.urls(__name__)
def test_a_lost_database_is_503(anonymous):
    response = anonymous.get("/api/failing/gone")

    body = checked(response, 503, "DATABASE_UNAVAILABLE")
    assert response.headers["Retry-After"] == "2"
    assert "mongodb.internal" not in str(body)


def test_long_input_is_not_echoed_back(alice):
    path = "/api/v1/" + "x" * 1000

    response = alice.get(path)

    assert response.json()["instance"] == path[:100]


@pytest.mark.parametrize("sent", ["abc-1._", "x" * 128])
def test_a_request_id_is_kept(alice, sent):
    response = alice.get(f"{PATH}/x", headers={"X-Request-ID": sent})

    assert response.headers["X-Request-ID"] == sent
    assert response.json()["error"]["request_id"] == sent


@pytest.mark.parametrize("sent", ["", "x" * 129, "a b", "é", "a\nb"])
def test_an_invalid_request_id_is_replaced(alice, sent):
    response = alice.get(PATH, headers={"X-Request-ID": sent})

    assert len(response.headers["X-Request-ID"]) == 32


@pytest.mark.parametrize(
    ("language", "title"),
    [
        ("en", "Conversation not found"),
        ("es", "Conversación no encontrada"),
        ("es-MX,es;q=0.9", "Conversación no encontrada"),
        ("de", "Conversation not found"),
        ("", "Conversation not found"),
    ],
)
def test_messages_are_translated_and_codes_are_not(alice, language, title):
    response = alice.get(f"{PATH}/x", headers={"Accept-Language": language})

    body = checked(response, 404, "CONVERSATION_NOT_FOUND")
    assert body["title"] == body["detail"] == body["error"]["message"] == title


def test_field_errors_are_translated_too(alice):
    response = alice.post(PATH, {"titel": "x"}, headers={"Accept-Language": "es"})

    messages = [error["message"] for error in response.json()["error"]["details"]["errors"]]
    assert messages == ["Este campo es requerido.", "Este campo no existe."]


def test_the_same_error_is_equal_for_two_users(alice, bob):
    theirs = conversation(bob)
    other_user = client_of("carol")

    responses = [c.get(f"{PATH}/{theirs['id']}").json()["error"] for c in (alice, other_user)]

    assert {error["code"] for error in responses} == {"CONVERSATION_NOT_FOUND"}


def test_a_missing_token_is_reported_before_other_errors(anonymous):
    for response in (
        anonymous.get(f"{PATH}/x"),
        anonymous.post(PATH, "{", content_type="application/json"),
        anonymous.get(f"{PATH}?limit=0"),
        anonymous.put(PATH),
    ):
        checked(response, 401, "AUTH_TOKEN_MISSING")
        assert response.headers["WWW-Authenticate"].startswith("Bearer")


def test_an_expired_token_is_401(anonymous):
    response = anonymous.get(PATH, headers={"Authorization": f"Bearer {token(exp=1)}"})

    checked(response, 401, "AUTH_TOKEN_EXPIRED")


@pytest.mark.urls(__name__)
def test_a_lost_database_is_503_in_the_console(anonymous):
    response = anonymous.get("/admin/gone")

    assert response.status_code == 503
    assert response.headers["Retry-After"] == "2"
    assert response.headers["Content-Type"].startswith("text/html")
