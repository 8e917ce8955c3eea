"""The memory of a request is freed with its response, without the garbage collector.

A request that stays until the next collection makes each worker larger, and its pauses longer.
"""

import gc
import io
import json
import logging
from contextlib import contextmanager

import pytest
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest
from django.urls import URLResolver, get_resolver
from django.views import View
from rest_framework.request import Request

from conversation_service import clock
from conversations.webhooks import endpoints as webhooks
from tests.conversation_service import loopback
from tests.conversations.test_internal import report
from tests.factories import PATH, conversation, token
from tests.failpoints import failing

CHANGES = "/api/v1/changes"
WEBHOOKS = "/internal/v1/webhooks"
TAGS = "/api/v1/tags"
AUTHORIZE = "/internal/v1/authorize"
ACTIVITY = "/internal/v1/activity"
NDJSON = {"CONTENT_TYPE": "application/x-ndjson"}
STREAM = {"HTTP_ACCEPT": "text/event-stream"}
SERVICE = {"sub": "message", "token_type": "service"}


class Caller:
    """Sends requests to the WSGI application like a server, and keeps no reference to them."""

    def __init__(self, user: str = "alice", **claims) -> None:
        self.token = token(user, **claims)
        self.application = WSGIHandler()

    def send(self, method: str, path: str, body=None, **environ) -> int:
        raw = json.dumps(body).encode() if isinstance(body, dict) else body or b""
        path, _, query = path.partition("?")
        response = self.application(
            {
                "REQUEST_METHOD": method,
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "CONTENT_LENGTH": str(len(raw)) if raw else "",
                "CONTENT_TYPE": "application/json",
                "HTTP_AUTHORIZATION": f"Bearer {self.token}",
                "SERVER_NAME": "testserver",
                "SERVER_PORT": "80",
                "wsgi.input": io.BytesIO(raw),
                "wsgi.errors": io.StringIO(),
                "wsgi.url_scheme": "http",
            }
            | environ,
            lambda status, headers, *error: lambda data: None,
        )
        try:
            b"".join(response)
            return response.status_code
        finally:
            response.close()


def survivors() -> list[str]:
    kinds = (HttpRequest, Request, View)
    return [type(found).__name__ for found in gc.get_objects() if isinstance(found, kinds)]


@contextmanager
def without_collector():
    """Exclude existing objects from gc.get_objects(), so that it is quick to search.

    They stay excluded: after gc.unfreeze(), each gc.collect() would visit the whole heap again.
    """
    logging.disable()  # pytest keeps log records, and their tracebacks refer to requests
    gc.collect()
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        gc.enable()
        logging.disable(logging.NOTSET)


def endpoints(resolver=None, prefix=""):
    for entry in (resolver or get_resolver()).url_patterns:
        route = prefix + str(entry.pattern)
        if isinstance(entry, URLResolver):
            yield from endpoints(entry, route)
        elif "api/v1" in route or "internal/v1" in route:
            yield "/" + route


def requests_of(method, route, id_):
    """Return the request that an endpoint accepts."""
    bodies = {
        ("POST", PATH): {"character_id": "luna"},
        ("POST", f"{PATH}/bulk"): {"action": "pin", "ids": [id_]},
        ("POST", f"{PATH}/<str:id>/revert"): {"version": 1, "fields": ["title"]},
        ("POST", AUTHORIZE): {"user_id": "alice", "ids": [id_]},
        ("POST", ACTIVITY): {"items": [{"id": id_, **report(1)}]},
        ("PUT", "/internal/v1/conversations/<str:id>/activity"): report(2),
        ("PATCH", f"{PATH}/<str:id>"): {"title": "Other"},
        ("POST", f"{PATH}/import"): b"{}\n",
        ("POST", WEBHOOKS): {"url": "https://hooks.example.org/in"},
        ("POST", f"{WEBHOOKS}/<str:id>/enable"): {"from": "now"},
        ("PATCH", f"{WEBHOOKS}/<str:id>"): {"description": "Other"},
    }
    environ = NDJSON if route.endswith("import") else {}
    path = route.replace("<str:id>", id_).replace("<str:event_id>", f"{id_}_disabled_1")
    return path, bodies.get((method, route)), environ


METHODS = {
    "GET": [
        PATH,
        *(f"{PATH}/{name}" for name in ("summary", "overview", "export", "<str:id>")),
        f"{PATH}/<str:id>/history",
        CHANGES,
        TAGS,
        *(
            "/internal/v1/events",
            WEBHOOKS,
            f"{WEBHOOKS}/<str:id>",
            f"{WEBHOOKS}/<str:id>/deliveries",
        ),
    ],
    "POST": [
        *(PATH, f"{PATH}/bulk", f"{PATH}/import", AUTHORIZE, ACTIVITY),
        *(
            f"{PATH}/<str:id>/{name}"
            for name in ("archive", "restore", "duplicate", "revert", "pin", "unpin")
        ),
        WEBHOOKS,
        *(f"{WEBHOOKS}/<str:id>/{name}" for name in ("rotate-secret", "enable", "disable", "test")),
        f"{WEBHOOKS}/<str:id>/deliveries/<str:event_id>/redeliver",
    ],
    "PATCH": [f"{PATH}/<str:id>", f"{WEBHOOKS}/<str:id>"],
    "PUT": ["/internal/v1/conversations/<str:id>/activity"],
    "DELETE": [f"{PATH}/<str:id>", f"{WEBHOOKS}/<str:id>"],
}
CALLS = [(method, route) for method, routes in METHODS.items() for route in routes]


def test_every_endpoint_is_listed_here():
    assert {*endpoints()} == {route for _, route in CALLS}


def subject(alice, route) -> str:
    """Create what the route acts on; return its id."""
    if route.startswith(WEBHOOKS):
        endpoint, _secret = webhooks.create({"url": "https://hooks.example.org"}, created_by="x")
        webhooks.disable(endpoint["_id"], webhooks.STAFF, by="x")  # an event
        webhooks.enable(endpoint["_id"], from_now=False)
        return endpoint["_id"]
    return conversation(alice)["id"]


def caller_of(route) -> Caller:
    scope = "conversations:authorize conversations:activity events:read webhooks:manage"
    return Caller(scope=scope, **SERVICE) if route.startswith("/internal") else Caller()


@pytest.mark.parametrize(("method", "route"), CALLS)
def test_no_request_survives_its_response(alice, method, route):
    caller = caller_of(route)
    path, body, environ = requests_of(method, route, subject(alice, route))
    caller.send(method, path, body, **environ)  # objects that are built once, for all requests
    path, body, environ = requests_of(method, route, subject(alice, route))

    with without_collector():
        assert caller.send(method, path, body, **environ) < 300
        assert survivors() == []


def faults(method, path, body, environ):
    """Yield an endpoint's faulty requests: the expected status, method, path, body and environ."""
    if method == "GET":
        yield 400, method, f"{path}?unknown=1", body, environ
    elif isinstance(body, dict):
        yield 400, method, path, b"{", environ
    yield 401, method, path, body, environ | {"HTTP_AUTHORIZATION": ""}
    yield 406, method, path, body, environ | {"HTTP_ACCEPT": "image/png"}
    if body is not None:
        yield 415, method, path, body, environ | {"CONTENT_TYPE": "text/plain"}
    yield 405, "TRACE", path, body, environ
    yield 200, "OPTIONS", path, None, environ


@pytest.mark.parametrize(("method", "route"), CALLS)
def test_no_faulty_request_survives_its_response(alice, method, route):
    path, body, environ = requests_of(method, route, subject(alice, route))
    caller = caller_of(route)

    for status, *sent, headers in faults(method, path, body, environ):
        caller.send(*sent, **headers)
        with without_collector():
            assert caller.send(*sent, **headers) == status, (sent, headers)
            assert survivors() == [], (sent, headers)


@pytest.mark.parametrize(("method", "route"), CALLS)
def test_no_request_survives_an_unavailable_database(alice, method, route):
    path, body, environ = requests_of(method, route, subject(alice, route))
    caller = caller_of(route)

    with failing(errorCode=46):
        caller.send(method, path, body, **environ)
        with without_collector():
            assert caller.send(method, path, body, **environ) == 503
            assert survivors() == []


def test_no_request_survives_a_bug(monkeypatch):
    caller = Caller()
    monkeypatch.setattr(clock, "now", lambda: 1 / 0)
    caller.send("GET", f"{PATH}/overview")

    with without_collector():
        assert caller.send("GET", f"{PATH}/overview") == 500
        assert survivors() == []


def test_no_request_survives_a_rate_limit(settings):
    settings.RATE_LIMIT_ENABLED = True
    settings.RATE_LIMITS = settings.RATE_LIMITS | {"list": 1}
    caller = Caller("limited")
    caller.send("GET", PATH)

    with without_collector():
        assert caller.send("GET", PATH) == 429
        assert survivors() == []


@pytest.mark.parametrize("talk", [loopback.respond(), loopback.respond(status="500 Broken")])
def test_no_request_survives_an_upstream_that_fails(settings, talk):
    settings.CHARACTER_CHECK = "strict"
    caller = Caller()
    with loopback.serving(talk) as address:
        settings.CHARACTERS_SERVICE_URL = f"http://{address}"
        caller.send("POST", PATH, {"character_id": "luna"})

        with without_collector():
            assert caller.send("POST", PATH, {"character_id": "luna"}) == 503
            assert survivors() == []


def test_no_request_survives_its_stream(settings):
    settings.CHANGES_STREAM_S = 0.05
    caller = Caller()
    caller.send("GET", CHANGES, **STREAM)

    with without_collector():
        assert caller.send("GET", CHANGES, **STREAM) == 200
        assert survivors() == []
