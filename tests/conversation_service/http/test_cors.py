"""CORS: a page on an allowed origin can call the API and read every response."""

import json
import re

import pytest
import requests
from django.test import Client

from tests.config.test_gunicorn import serving
from tests.documented import DOCUMENT, resolved
from tests.factories import PATH, client_of, token

APP = "https://app.example.org"
LOCAL = "http://localhost:3000"
# Fetch standard: allowed, or readable, without being listed.
SAFE_REQUEST = {"accept", "accept-language", "content-language"}
SAFE_RESPONSE = {"cache-control", "content-language", "content-length", "content-type"}


@pytest.fixture(autouse=True)
def allowed(settings):
    settings.CORS_ALLOWED_ORIGINS = [APP, LOCAL]


@pytest.fixture
def browser():
    return Client(raise_request_exception=False)


def preflight(browser, path=PATH, origin=APP, method="PATCH"):
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization,if-match",
    }
    return browser.options(path, headers=headers)


def listed(response, name):
    return {item.strip().lower() for item in response.headers[name].split(",")}


def cors(response):
    return {name for name in response.headers if name.lower().startswith("access-control-")}


@pytest.mark.parametrize("origin", [APP, LOCAL])
def test_a_preflight_needs_no_token(browser, origin):
    response = preflight(browser, origin=origin)

    assert response.status_code == 200
    assert response.headers["Access-Control-Allow-Origin"] == origin
    assert response.headers["Access-Control-Max-Age"] == "7200"
    assert "origin" in listed(response, "Vary")
    assert "Access-Control-Allow-Credentials" not in response.headers


@pytest.mark.parametrize("path", [PATH, f"{PATH}/x", "/api/v1/changes", "/api/nowhere", "/api"])
def test_every_path_of_the_api_answers_a_preflight(browser, path):
    assert "Access-Control-Allow-Origin" in preflight(browser, path).headers


def test_every_method_and_header_of_the_api_is_allowed_and_exposed(browser):
    sent, returned, methods = set(), set(), set()
    for path, operations in DOCUMENT["paths"].items():
        if path.startswith("/api/"):
            for method, operation in operations.items():
                methods.add(method)
                parameters = map(resolved, operation.get("parameters", []))
                sent |= {p["name"].lower() for p in parameters if p["in"] == "header"}
                for response in map(resolved, operation["responses"].values()):
                    returned |= {name.lower() for name in response.get("headers", {})}

    response = preflight(browser)

    sent |= {"authorization", "content-type"}
    assert {"if-match", "idempotency-key", "last-event-id"} < sent
    assert sent - SAFE_REQUEST <= listed(response, "Access-Control-Allow-Headers")
    assert methods <= listed(response, "Access-Control-Allow-Methods")
    assert {"etag", "retry-after", "ratelimit"} < returned
    assert returned - SAFE_RESPONSE <= listed(response, "Access-Control-Expose-Headers")


def test_preflights_do_not_count_against_a_rate_limit(browser, settings, alice):
    settings.RATE_LIMIT_ENABLED = True
    before = alice.get(PATH).headers["X-RateLimit-Remaining"]
    for _ in range(5):
        preflight(browser)

    assert int(alice.get(PATH).headers["X-RateLimit-Remaining"]) == int(before) - 1


@pytest.mark.parametrize(
    "origin",
    [
        *("null", "https://example.org", "https://app.example.org.evil.test", "https://evil.test"),
        *("http://app.example.org", "https://app.example.org:8443", "https://APP.example.org"),
        *("http://localhost:3001", "http://localhost", "*", "", "https://[", "file://"),
    ],
)
def test_another_origin_gets_no_permission(browser, alice, origin):
    assert not cors(preflight(browser, origin=origin)) - {"Access-Control-Max-Age"}
    response = alice.get(PATH, headers={"Origin": origin})
    assert response.status_code == 200
    assert not cors(response)


@pytest.mark.parametrize("path", ["/health", "/health/live", "/metrics", "/admin/login/"])
def test_nothing_else_has_cors_headers(browser, path):
    assert not cors(browser.get(path, headers={"Origin": APP}))
    assert not cors(preflight(browser, path))


@pytest.mark.parametrize("path", ["/internal/v1/authorize", "/internal/v1/activity", "/internal"])
def test_internal_paths_have_no_cors_headers(browser, path):
    response = preflight(browser, path)

    assert response.status_code in {401, 404}
    assert not cors(response)


@pytest.mark.parametrize("headers", [{}, {"Access-Control-Request-Method": "PATCH"}])
def test_options_without_an_origin_need_a_token_as_ever(browser, headers, alice):
    response = browser.options(PATH, headers=headers)

    assert (response.status_code, response.json()["error"]["code"]) == (401, "AUTH_TOKEN_MISSING")
    assert alice.options(PATH, headers=headers).json().keys() > {"name", "renders"}


def test_options_with_an_origin_but_without_a_method_are_no_preflight(browser):
    response = browser.options(PATH, headers={"Origin": APP})

    assert response.status_code == 401
    assert response.headers["Access-Control-Allow-Origin"] == APP


def test_a_page_can_read_errors_and_their_headers(browser, alice, settings):
    settings.RATE_LIMIT_ENABLED = True
    settings.RATE_LIMITS = settings.RATE_LIMITS | {"list": 1}
    origin = {"Origin": APP}
    alice.get(PATH)
    responses = {
        401: browser.get(PATH, headers=origin),
        404: alice.get(f"{PATH}/x", headers=origin),
        405: alice.put(PATH, headers=origin),
        406: alice.get(PATH, headers=origin | {"Accept": "text/html"}),
        413: alice.post(PATH, {"custom": {"x": "x" * 70_000}}, headers=origin),
        415: alice.post(PATH, "x", content_type="text/plain", headers=origin),
        429: alice.get(PATH, headers=origin),
    }

    for status, response in responses.items():
        assert response.status_code == status
        assert response.headers["Access-Control-Allow-Origin"] == APP
        assert {"x-request-id", "retry-after", "www-authenticate"} <= listed(
            response, "Access-Control-Expose-Headers"
        )
        assert {"origin", "accept-language"} <= listed(response, "Vary")


def test_a_response_without_an_origin_varies_by_it(alice):
    response = alice.get(PATH)

    assert "origin" in listed(response, "Vary")
    assert not cors(response)


def test_without_allowed_origins_no_response_mentions_cors(settings, browser):
    settings.CORS_ALLOWED_ORIGINS = []

    response = client_of("alice").get(PATH, headers={"Origin": APP})

    assert not cors(response)
    assert "origin" not in listed(response, "Vary")
    assert preflight(browser).status_code == 401


@pytest.mark.urls("tests.conversation_service.http.test_errors")
@pytest.mark.parametrize(
    ("path", "status"),
    [("/api/failing/bug", 500), ("/api/outside", 500), ("/api/failing/gone", 503)],
)
def test_a_page_can_read_failures_of_the_server(browser, path, status):
    response = browser.get(path, headers={"Origin": APP})

    assert response.status_code == status
    assert response.headers["Access-Control-Allow-Origin"] == APP


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    log = tmp_path_factory.mktemp("cors") / "log"
    with serving(log, "config.wsgi:application", CORS_ALLOWED_ORIGINS=f"{APP}, {LOCAL}") as server:
        yield server


@pytest.fixture(scope="module")
def strict_server(tmp_path_factory):
    """A server that waits 0.5 s for a head or a body."""
    limits = {"CLIENT_HEAD_TIMEOUT_S": "0.5", "CLIENT_BODY_TIMEOUT_S": "0.5"}
    log = tmp_path_factory.mktemp("strict") / "log"
    with serving(
        log, "config.wsgi:application", CORS_ALLOWED_ORIGINS=f"{APP}, {LOCAL}", **limits
    ) as server:
        yield server


def request(line, *headers, origin=APP):
    lines = [f"{line} HTTP/1.1", "Host: localhost", *headers]
    if origin:
        lines.append(f"Origin: {origin}")
    return "\r\n".join([*lines, "Sec-Fetch-Mode: cors", "", ""]).encode()


def test_a_preflight_has_no_body_and_keeps_the_connection(server):
    headers = {"Origin": APP, "Access-Control-Request-Method": "GET"}
    with requests.Session() as session:
        for _ in range(2):
            response = session.options(f"http://127.0.0.1:{server.port}{PATH}", headers=headers)
            assert (response.status_code, response.content) == (200, b"")
            assert response.headers["Content-Length"] == "0"
            assert response.headers["Connection"] == "keep-alive"
            assert "Transfer-Encoding" not in response.headers
            assert response.headers["X-Request-ID"]


REJECTED_BY_THE_SERVER = {
    "a header that is too large": (f"GET {PATH}", ["Authorization: " + "a" * 9_000], b"", 431),
    "too many headers": (f"GET {PATH}", [f"X-{n}: a" for n in range(70)], b"", 431),
    "a URL that is too long": (f"GET {PATH}?search={'a' * 9_000}", [], b"", 414),
    "a malformed header": (f"GET {PATH}", ["Bad Name: x"], b"", 400),
    "an unknown expectation": (f"POST {PATH}", ["Expect: more"], b"", 417),
    "an encoded slash": (f"GET {PATH}%2Fx", [], b"", 404),
    "a body that is cut off": (f"POST {PATH}", ["Content-Length: 9"], b"{}", 408),
    "a head that is cut off": (f"GET {PATH}", [], None, 408),
}


@pytest.fixture
def rejecting_server(request, case):
    status = REJECTED_BY_THE_SERVER[case][-1]
    return request.getfixturevalue("strict_server" if status == 408 else "server")


@pytest.mark.parametrize("case", REJECTED_BY_THE_SERVER)
def test_a_page_can_read_an_error_that_occurs_before_django(rejecting_server, case):
    line, headers, body, status = REJECTED_BY_THE_SERVER[case]
    sent = request(line, *headers)
    pieces = [sent[:-2]] if body is None else [sent + body]

    response = rejecting_server.send(*pieces).decode("latin-1")

    assert int(response.split()[1]) == status
    assert f"access-control-allow-origin: {APP}\r\n" in response
    exposed = re.search("access-control-expose-headers: (.*)\r\n", response)
    assert exposed
    assert "X-Request-ID" in exposed[1]
    assert json.loads(response.partition("\r\n\r\n")[2])["error"]["request_id"]


@pytest.mark.parametrize("case", REJECTED_BY_THE_SERVER)
@pytest.mark.parametrize("origin", ["https://evil.test", "null", None])
def test_another_origin_cannot_read_an_error_that_occurs_before_django(
    rejecting_server, case, origin
):
    line, headers, body, status = REJECTED_BY_THE_SERVER[case]
    sent = request(line, *headers, origin=origin)
    pieces = [sent[:-2]] if body is None else [sent + body]

    response = rejecting_server.send(*pieces).decode("latin-1")

    assert int(response.split()[1]) == status
    assert "access-control" not in response.lower()


@pytest.mark.parametrize("path", ["/internal/v1/authorize", "/admin/", "/metrics", "/health"])
def test_errors_of_other_paths_have_no_cors_headers(server, path):
    response = server.send(request(f"GET {path}", "Bad Name: x"))

    assert b"access-control" not in response.lower()


def test_the_head_of_a_request_does_not_count_for_the_next(server):
    with server.connect() as client:
        client.sendall(request(f"GET {PATH}", f"Authorization: Bearer {token()}"))
        first = b""
        while not first.endswith(b"}"):
            first += client.recv(65_536)
        client.sendall(b"GET /metrics HTTP/1.1\r\nBad Name: x\r\n\r\n")
        second = client.recv(65_536)

    assert b"access-control-allow-origin" in first
    assert b"400" in second.split(b"\r\n")[0]
    assert b"access-control" not in second
