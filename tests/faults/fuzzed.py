"""The service with two workers, as the tests that send random requests use it."""

import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from django.http import HttpResponse
from hypothesis import HealthCheck, settings
from rest_framework.test import APIClient

from tests.config.test_gunicorn import Server, serving
from tests.documented import DocumentedClient
from tests.factories import token

# The requests of schemathesis; each other test has a twentieth. schemathesis sends 4,600 at least.
CASES = int(os.environ.get("FUZZ_CASES", "5000"))  # noqa: TID251
SLOWEST_S = 3.0
MESSAGE = {
    "sub": "message",
    "token_type": "service",
    "scope": "conversations:authorize conversations:activity",
}

fuzz = settings(
    max_examples=max(10, CASES // 20),
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[*HealthCheck],
)


@contextmanager
def fuzzed(log: Path) -> Iterator[Server]:
    """Serve with two workers. Fails at the end if one was replaced, or if a response was a 5xx."""
    options: dict[str, Any] = {
        "WEB_CONCURRENCY": "2",
        "RATE_LIMIT_ENABLED": "false",
        "CHARACTER_CHECK": "off",
        "CLIENT_HEAD_TIMEOUT_S": "10",
        "CLIENT_BODY_TIMEOUT_S": "10",
    }
    with serving(log, "config.wsgi:application", **options) as server:
        yield server
    lines = log.read_text().splitlines()
    assert len([line for line in lines if "Booting worker" in line]) == 2
    assert [line for line in lines if "ERROR" in line or "CRITICAL" in line] == []


class _Wire(APIClient):
    """Sends the requests of a test client to a server."""

    def __init__(self, server: Server, **options: Any) -> None:
        super().__init__(**options)
        self._server = f"http://127.0.0.1:{server.port}"
        self._session = requests.Session()

    def request(self, **request: Any) -> Any:
        sent = requests.Request(
            request["REQUEST_METHOD"],
            self._server,
            headers={
                name.removeprefix("HTTP_").replace("_", "-"): value
                for name, value in {**self.defaults, **request}.items()
                if (name.startswith("HTTP_") and name != "HTTP_COOKIE") or name == "CONTENT_TYPE"
            },
            data=request.get("wsgi.input", io.BytesIO()).read(),
        ).prepare()
        query = request.get("QUERY_STRING", "")
        sent.url = f"{self._server}{request['PATH_INFO']}" + (f"?{query}" if query else "")
        got = self._session.send(sent, timeout=30)
        assert got.elapsed.total_seconds() < SLOWEST_S, (sent.method, sent.url[:500])
        assert got.status_code < 500, (sent.method, sent.url[:500], sent.body, got.text)
        response: Any = HttpResponse(got.content, status=got.status_code)
        response.headers = got.headers
        response.streaming = got.headers.get("Content-Type", "").endswith("ndjson")
        response.json = got.json
        return response


class FuzzClient(DocumentedClient, _Wire):
    """Fails if a response is a 5xx, slow, or other than documented."""


def user(server: Server, name: str) -> FuzzClient:
    return FuzzClient(server, headers={"Authorization": f"Bearer {token(name)}"})


def service(server: Server) -> FuzzClient:
    return FuzzClient(server, headers={"Authorization": f"Bearer {token('message', **MESSAGE)}"})


def rows(response: Any) -> list[dict[str, Any]]:
    """Return the rows of an NDJSON response."""
    return [json.loads(line) for line in response.content.splitlines()]
