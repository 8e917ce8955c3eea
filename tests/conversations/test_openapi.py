"""The documentation: current, complete, and served without the internet."""

import json
import re
from contextlib import closing
from pathlib import Path

import pytest
from django.core.management import call_command
from django.test import Client

from tests.documented import DOCUMENT

ROOT = Path(__file__).resolve().parents[2]


def test_the_committed_document_is_current(tmp_path):
    fresh = tmp_path / "openapi.json"

    call_command("spectacular", format="openapi-json", file=str(fresh), fail_on_warn=True)

    assert json.loads(fresh.read_text()) == DOCUMENT, "make openapi writes it anew"


def test_it_is_openapi_3_1_and_covers_every_address():
    assert DOCUMENT["openapi"].startswith("3.1.")
    assert sorted(
        (method, path) for path, operations in DOCUMENT["paths"].items() for method in operations
    ) == sorted(
        [
            ("get", "/api/v1/tags"),
            ("get", "/api/v1/conversations"),
            ("post", "/api/v1/conversations"),
            ("get", "/api/v1/conversations/overview"),
            ("get", "/api/v1/conversations/summary"),
            ("get", "/api/v1/conversations/export"),
            ("post", "/api/v1/conversations/import"),
            ("get", "/api/v1/conversations/{id}"),
            ("patch", "/api/v1/conversations/{id}"),
            ("delete", "/api/v1/conversations/{id}"),
            ("post", "/api/v1/conversations/{id}/archive"),
            ("post", "/api/v1/conversations/{id}/restore"),
            ("post", "/api/v1/conversations/{id}/pin"),
            ("post", "/api/v1/conversations/{id}/unpin"),
            ("post", "/api/v1/conversations/{id}/duplicate"),
            ("get", "/api/v1/conversations/{id}/history"),
            ("post", "/api/v1/conversations/{id}/revert"),
            ("post", "/internal/v1/authorize"),
            ("post", "/internal/v1/activity"),
            ("put", "/internal/v1/conversations/{id}/activity"),
        ]
    )


def test_the_document_is_served_to_anybody():
    response = Client().get("/api/schema")

    assert response.headers["Content-Type"] == "application/json"
    assert json.loads(response.getvalue()) == DOCUMENT


@pytest.mark.parametrize("page", ["/api/docs", "/api/docs/", "/api/redoc"])
def test_the_pages_load_nothing_from_elsewhere(page):
    html = Client(headers={"Accept": "text/html"}).get(page).content.decode()

    sources = re.findall(r'(?:src|href)="([^"]+)"', html)
    assert sources
    for source in sources:
        assert source.startswith("/static/")
        with closing(Client().get(source)) as response:
            assert response.status_code == 200
