"""The API documentation: current, complete, and served without the internet."""

import json
import re
from contextlib import closing
from pathlib import Path

import pytest
from django.core.management import call_command
from django.test import Client

from conversations import internal_urls as internal
from conversations.urls import urlpatterns
from docs_site.collection import collection
from tests.documented import DOCUMENT, resolved, validator
from tests.factories import conversation

ROOT = Path(__file__).resolve().parents[2]


def test_the_committed_document_is_current(tmp_path):
    fresh = tmp_path / "openapi.json"

    call_command("spectacular", format="openapi-json", file=str(fresh), fail_on_warn=True)

    assert json.loads(fresh.read_text()) == DOCUMENT, "make openapi writes it anew"


def test_it_is_openapi_3_1_and_covers_every_address():
    served = {
        "/" + prefix + re.sub(r"<str:(\w+)>", r"{\1}", str(entry.pattern))
        for prefix, urls in (("", urlpatterns), ("internal/v1/", internal.urlpatterns))
        for entry in urls
    }

    assert DOCUMENT["openapi"].startswith("3.1.")
    assert set(DOCUMENT["paths"]) == served


def test_the_committed_collection_is_current():
    committed = json.loads((ROOT / "docs" / "collection.json").read_text())

    assert committed == collection(DOCUMENT), "make openapi writes it anew"


def schemas_of(value):
    """Yield the names of the schemas that a part of the document refers to, directly or not."""
    schemas = DOCUMENT["components"]["schemas"]
    waiting, found = [value], set()
    while waiting:
        for name in re.findall(r'"#/components/schemas/(\w+)"', json.dumps(waiting.pop())):
            if name not in found:
                found.add(name)
                waiting.append(schemas[name])
    return found


OPERATIONS = [
    operation for operations in DOCUMENT["paths"].values() for operation in operations.values()
]


def test_words_in_responses_are_open():
    """A generated client rejects a word that its enum lacks."""
    schemas = DOCUMENT["components"]["schemas"]
    sent = schemas_of([operation.get("requestBody", {}) for operation in OPERATIONS])
    returned = schemas_of([operation["responses"] for operation in OPERATIONS]) - sent

    assert {"Conversation", "Outcome", "Exported", "BulkResult"} <= returned
    assert [name for name in returned if '"enum": ["' in json.dumps(schemas[name])] == []


def test_no_schema_has_a_property_with_its_own_name():
    """openapi-python-client generates a class with an attribute that hides the class."""
    schemas = DOCUMENT["components"]["schemas"]

    assert [
        name
        for name, schema in schemas.items()
        if name.lower() in {key.replace("_", "") for key in schema.get("properties", {})}
    ] == []


def test_bodies_of_requests_are_described_as_enforced():
    schemas = DOCUMENT["components"]["schemas"]
    bodies = [
        content
        for operation in OPERATIONS
        for content in operation.get("requestBody", {}).get("content", {}).values()
    ]

    for name in schemas_of(bodies):
        properties = schemas[name].get("properties", {})
        assert [key for key, entry in properties.items() if "default" in entry] == [], name
        assert not properties or "additionalProperties" in schemas[name], name


def described(name):
    return validator({"$ref": f"#/components/schemas/{name}"})


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"title": ""}, 400),
        ({"title": None}, 201),
        ({"tags": [""]}, 400),
        ({"settings": {"model": ""}}, 400),
        ({"settings": {"reasoning_effort": ""}}, 400),
        ({"settings": {"stop_sequences": [""]}}, 400),
        ({"settings": {"extra": {"seed": 7, "suffix": ""}}}, 201),
        ({"settings": {"extra": {"logit.bias": 1}}}, 400),
        ({"settings": {"extra": {str(n): n for n in range(33)}}}, 400),
        ({"custom": {"color": "", "team:id": "x"}}, 201),
        ({"custom": None}, 201),
        ({"custom": {"": "x"}}, 400),
        ({"custom": {"k" * 65: "x"}}, 400),
        ({"custom": {str(n): None for n in range(33)}}, 400),
    ],
)
def test_texts_and_keys_are_described_as_enforced(alice, body, status):
    body = {"character_id": "luna"} | body

    assert alice.post("/api/v1/conversations", body).status_code == status
    assert described("Create").is_valid(body) is (status == 201)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({}, 201),
        ({"retention": None}, 201),
        ({"retention": {"policy": "purge"}, "user_id": [1]}, 201),
        ({"status": "purged"}, 400),
        ({"status": "hidden"}, 400),
        ({"character_status": "known"}, 400),
        ({"title_source": "system"}, 400),
        ({"object": "message"}, 400),
        ({"id": "x" * 24}, 400),
        ({"id": "0" * 25}, 400),
        ({"forked_from": ""}, 400),
        ({"unknown": 1}, 400),
        ({"version": 0}, 400),
        ({"settings_given": ["top_p", "unknown"]}, 400),
    ],
)
def test_an_exported_line_is_described_as_enforced(alice, mongo, change, status):
    conversation(alice)
    [line, _end] = alice.get("/api/v1/conversations/export").getvalue().splitlines()
    mongo["conversations"].delete_many({})
    line = json.loads(line) | change

    response = alice.post(
        "/api/v1/conversations/import", json.dumps(line), content_type="application/x-ndjson"
    )

    assert json.loads(response.getvalue().splitlines()[0])["status"] == status
    assert described("ImportedLine").is_valid(line) is (status == 201)


@pytest.mark.parametrize("status", ["active", "archived", None, "deleted", "hidden"])
def test_the_status_in_a_lenient_line_is_described_as_enforced(alice, status):
    line = {"character_id": "luna", "status": status}
    response = alice.post(
        "/api/v1/conversations/import", json.dumps(line), content_type="application/x-ndjson"
    )

    is_valid = described("ImportedLine").is_valid(line)
    assert json.loads(response.getvalue().splitlines()[0])["status"] == (201 if is_valid else 400)
    assert is_valid is (status in {"active", "archived", None})


def test_every_operation_documents_405_with_the_methods(alice):
    assert [op["operationId"] for op in OPERATIONS if "405" not in op["responses"]] == []
    documented = resolved(OPERATIONS[0]["responses"]["405"])
    response = alice.put("/api/v1/conversations")

    assert documented["headers"].keys() <= response.headers.keys()
    assert response.status_code == 405
    assert described("Problem").is_valid(response.json())


@pytest.mark.parametrize("name", ["created_at", "last_activity"])
@pytest.mark.parametrize(
    ("time", "status"),
    [
        ("2026-01-15T15:00:00Z", 201),
        (1768489200, 201),
        (1768489200.5, 201),
        (None, 201),
        (-1, 201),
        ([], 400),
    ],
)
def test_a_time_in_a_lenient_line_is_described_as_enforced(alice, name, time, status):
    line = {"character_id": "luna", name: time}
    response = alice.post(
        "/api/v1/conversations/import", json.dumps(line), content_type="application/x-ndjson"
    )

    assert json.loads(response.getvalue().splitlines()[0])["status"] == status
    assert described("LenientLine").is_valid(line) is (status == 201)


def test_the_descriptions_name_no_source_file():
    assert re.findall(r"\w+\.py\b", json.dumps(DOCUMENT)) == []


def test_failures_are_shared_components():
    failures = [
        response
        for operation in OPERATIONS
        for status, response in operation["responses"].items()
        if int(status) >= 400
    ]

    assert [response for response in failures if "$ref" not in response] == []


def test_every_operation_has_samples_in_three_languages():
    for operation in OPERATIONS:
        languages = [sample["lang"] for sample in operation["x-codeSamples"]]
        assert languages == ["Shell", "Python", "JavaScript"]


def test_samples_of_an_import_send_a_file_of_lines():
    path = "/api/v1/conversations/import"
    sources = [s["source"] for s in DOCUMENT["paths"][path]["post"]["x-codeSamples"]]

    for source in sources:
        assert "application/x-ndjson" in source
        assert "conversations.ndjson" in source
        assert "{}" not in source


def test_the_document_is_public():
    response = Client().get("/api/schema")

    assert response.headers["Content-Type"] == "application/json"
    assert json.loads(response.getvalue()) == DOCUMENT


@pytest.mark.parametrize("page", ["/api/docs", "/api/docs/", "/api/redoc"])
def test_the_pages_load_only_local_files(page):
    html = Client(headers={"Accept": "text/html"}).get(page).content.decode()

    policy = Client(headers={"Accept": "text/html"}).get(page).headers["Content-Security-Policy"]
    assert "http" not in policy
    sources = re.findall(r'(?:src|href)="([^"]+)"', html)
    assert sources
    for source in sources:
        assert source.startswith(("/static/", "/api/docs"))
        with closing(Client().get(source)) as response:
            assert response.status_code == 200


@pytest.mark.parametrize("page", ["/api/docs", "/api/redoc"])
@pytest.mark.parametrize("accept", ["application/json", "image/png", "", "*/*"])
def test_the_pages_are_html_for_any_accept_header(page, accept):
    response = Client(headers={"Accept": accept}).get(page)

    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith("text/html")


@pytest.mark.parametrize("page", ["/api/docs", "/api/redoc", "/api/schema"])
@pytest.mark.parametrize("method", ["PUT", "OPTIONS", "POST", "DELETE"])
def test_the_pages_accept_only_get(page, method):
    response = Client().generic(method, page)

    assert response.status_code == 405
    assert response.json()["error"]["code"] == "METHOD_NOT_ALLOWED"
