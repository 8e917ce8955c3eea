"""Every rejection of a method, body or media type names what would be accepted."""

import pytest
from django.test import Client

from tests.conversations.test_internal import AUTHORIZE, service_with
from tests.factories import PATH, client_of, conversation

JSON = "application/json, application/merge-patch+json"
NDJSON = (
    "application/jsonl, application/jsonlines, application/ndjson, application/x-jsonl, "
    "application/x-jsonlines, application/x-ndjson"
)
IMPORT = f"{PATH}/import"
CHANGES = "/api/v1/changes"


@pytest.fixture
def one(alice):
    return f"{PATH}/{conversation(alice)['id']}"


def test_options_name_methods_and_bodies(alice, one):
    found = {
        path: {
            name: value
            for name, value in alice.options(path).headers.items()
            if name.startswith("Accept-") or name == "Allow"
        }
        for path in (PATH, one, f"{one}/revert", IMPORT, CHANGES)
    }

    assert found == {
        PATH: {"Allow": "GET, POST, HEAD, OPTIONS", "Accept-Post": JSON},
        one: {"Allow": "GET, PATCH, DELETE, HEAD, OPTIONS", "Accept-Patch": JSON},
        f"{one}/revert": {"Allow": "POST, OPTIONS", "Accept-Post": JSON},
        IMPORT: {"Allow": "POST, OPTIONS", "Accept-Post": NDJSON},
        CHANGES: {"Allow": "GET, HEAD, OPTIONS"},
    }


@pytest.mark.parametrize(
    "content_type",
    [
        *("text/plain", "application/xml", "application/json-patch+json", "multipart/form-data"),
        *("application/x-www-form-urlencoded", "application/json; charset=latin-1", ""),
    ],
)
def test_a_refused_content_type_names_the_accepted_ones(alice, one, content_type):
    patched = alice.generic("PATCH", one, b"{}", content_type)
    created = alice.generic("POST", PATH, b"{}", content_type)
    reverted = alice.generic("POST", f"{one}/revert", b"{}", content_type)
    imported = alice.generic("POST", IMPORT, b"{}\n", content_type)

    assert {r.status_code for r in (patched, created, reverted, imported)} == {415}
    assert (patched.headers["Accept-Patch"], patched.headers["Accept"]) == (JSON, JSON)
    assert "Accept-Post" not in patched.headers
    for response in (created, reverted):
        assert (response.headers["Accept-Post"], response.headers["Accept"]) == (JSON, JSON)
        assert "Accept-Patch" not in response.headers
    assert (imported.headers["Accept-Post"], imported.headers["Accept"]) == (NDJSON, NDJSON)
    assert "Accept-Encoding" not in patched.headers


@pytest.mark.parametrize("coding", ["deflate", "br", "zstd", "GZIP, br", "x"])
@pytest.mark.parametrize("method", ["PATCH", "POST"])
def test_a_refused_content_coding_names_the_accepted_ones(alice, one, coding, method):
    path = one if method == "PATCH" else PATH

    response = alice.generic(
        method, path, b"{}", "application/json", headers={"Content-Encoding": coding}
    )

    assert response.status_code == 415
    assert "identity" in response.headers["Accept-Encoding"]
    assert not {"Accept", "Accept-Patch", "Accept-Post"} & response.headers.keys()


def test_both_faults_of_a_body_are_named(alice, one):
    headers = {"Content-Encoding": "br"}

    response = alice.generic("PATCH", one, b"x", "text/plain", headers=headers)

    assert response.headers.keys() >= {"Accept-Encoding", "Accept", "Accept-Patch"}


@pytest.mark.parametrize("coding", ["identity", "Identity", " identity ", ""])
def test_no_content_coding_is_accepted(alice, one, coding):
    response = alice.generic(
        "PATCH", one, b"{}", "application/json", headers={"Content-Encoding": coding}
    )

    assert response.status_code == 200


def test_internal_endpoints_name_them_too():
    service = service_with("conversations:authorize", "conversations:activity")

    response = service.generic("POST", AUTHORIZE, b"x", "text/plain")
    activity = service.generic(
        "PUT", f"/internal/v1/conversations/{'0' * 24}/activity", b"x", "text/plain"
    )

    assert (response.status_code, response.headers["Accept-Post"]) == (415, JSON)
    assert (activity.status_code, activity.headers["Accept"]) == (415, JSON)


@pytest.mark.parametrize(
    ("path", "types"),
    [
        (PATH, ["application/json", "application/problem+json"]),
        (CHANGES, ["application/json", "application/problem+json", "text/event-stream"]),
        (f"{PATH}/export", ["application/x-ndjson"]),
    ],
)
def test_a_refused_accept_names_the_media_types(alice, path, types):
    response = alice.get(path, headers={"Accept": "text/html"})

    error = response.json()["error"]
    assert (response.status_code, error["details"]) == (406, {"media_types": types})
    assert types[0] in error["message"]


@pytest.mark.parametrize(
    "path",
    [
        *(PATH, f"{PATH}/bulk", f"{PATH}/summary", f"{PATH}/export", IMPORT, CHANGES),
        *(f"{PATH}/{'0' * 24}", f"{PATH}/{'0' * 24}/archive", AUTHORIZE),
        *("/api/docs", "/api/redoc", "/api/schema", "/health", "/health/live", "/metrics"),
    ],
)
def test_a_refused_method_names_the_methods(path):
    client = service_with("conversations:authorize") if path == AUTHORIZE else client_of("alice")
    client = (
        Client(headers=client._credentials)
        if "/api/v1" not in path and path != AUTHORIZE
        else client
    )

    response = client.generic("TRACE", path)

    assert response.status_code == 405
    assert response.headers["Allow"]
