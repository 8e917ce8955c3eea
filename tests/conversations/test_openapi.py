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
from tests.documented import DOCUMENT

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
