"""The page of each error code, which the `type` of an error response names (RFC 9457)."""

import re
from html.parser import HTMLParser
from urllib.parse import urljoin

import pytest
from django.test import Client
from django.utils import translation

from conversation_service.http.error_pages import by_code, explanation
from tests.conversations.admin import chromium
from tests.docs.test_pages import DOCS
from tests.factories import PATH

CODES = sorted(code for code, kind in by_code().items() if not kind.__module__.startswith("tests"))
PARTS = {"type", "code", "status", "title", "cause", "remedy", "repeat"}


@pytest.fixture
def visitor():
    """A browser without a token."""
    return Client(headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})


class Page(HTMLParser):
    """The elements of a page, and the texts of its list of terms."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.values = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag in {"dt", "dd"}:
            self.values.append("")

    def handle_data(self, data):
        if self.values:
            self.values[-1] += data


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("language", ["en", "es"])
def test_each_code_has_a_page_in_both_languages(visitor, code, language):
    response = visitor.get(f"/api/errors/{code}", headers={"Accept-Language": language})

    page = Page(response.content.decode())
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert response.headers["Content-Language"] == language
    assert {"Accept", "Accept-Language"} <= set(response.headers["Vary"].split(", "))
    assert ("html", {"lang": language}) in page.elements
    assert [tag for tag, _ in page.elements].count("main") == 1
    shown = [value.strip() for value in page.values[1::2]]
    assert shown[:2] == [code, str(int(by_code()[code].status))]
    assert all(len(value) > 15 for value in shown[2:5])
    assert "`" not in response.content.decode()
    assert "&lt;" not in response.content.decode()


@pytest.mark.parametrize("code", CODES)
def test_each_text_is_translated(visitor, code):
    english, spanish = (
        visitor.get(
            f"/api/errors/{code}",
            headers={"Accept": "application/json", "Accept-Language": language},
        ).json()
        for language in ("en", "es")
    )

    assert english.keys() == spanish.keys() == PARTS
    texts = ("title", "cause", "remedy", "repeat")
    assert [name for name in texts if english[name] == spanish[name]] == []


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("application/json", "application/json"),
        ("application/json, */*;q=0.1", "application/json"),
        ("text/html, application/json", "text/html; charset=utf-8"),
        ("*/*", "text/html; charset=utf-8"),
        ("", "text/html; charset=utf-8"),
    ],
)
def test_programs_get_json_if_they_ask_for_it(client, accept, media_type):
    for path in ("/api/errors", "/api/errors/", "/api/errors/NOT_FOUND"):
        response = client.get(path, headers={"Accept": accept})
        assert response.headers["Content-Type"] == media_type


@pytest.mark.parametrize("path", ["NO_SUCH_CODE", "not_found", "%3Cscript%3E", "NOT_FOUND/x"])
def test_an_unknown_code_is_not_found(visitor, path):
    response = visitor.get(f"/api/errors/{path}")

    assert response.status_code == 404
    assert response.json()["error"]["code"] == "NOT_FOUND"


def test_a_page_is_only_read(visitor):
    response = visitor.post("/api/errors/NOT_FOUND")

    assert (response.status_code, response.headers["Allow"]) == (405, "GET, HEAD")
    assert response.json()["type"] == "/api/errors/METHOD_NOT_ALLOWED"
    assert visitor.head("/api/errors/NOT_FOUND").content == b""


FAILURES = {
    "AUTH_TOKEN_MISSING": lambda _: Client().get(PATH),
    "NOT_FOUND": lambda _: Client().get("/nowhere"),
    "METHOD_NOT_ALLOWED": lambda alice: alice.put(PATH),
    "NOT_ACCEPTABLE": lambda alice: alice.get(PATH, headers={"Accept": "text/csv"}),
    "UNSUPPORTED_MEDIA_TYPE": lambda alice: alice.post(PATH, "a", content_type="text/plain"),
    "LENGTH_REQUIRED": lambda alice: alice.post(PATH, headers={"Transfer-Encoding": "chunked"}),
    "VALIDATION_ERROR": lambda alice: alice.post(PATH, {}),
    "UNKNOWN_FIELD": lambda alice: alice.post(PATH, {"character_id": "luna", "x": 1}),
    "CONVERSATION_NOT_FOUND": lambda alice: alice.get(f"{PATH}/x"),
    "INVALID_CURSOR": lambda alice: alice.get(PATH, {"cursor": "x"}),
}


@pytest.mark.parametrize("code", FAILURES)
def test_the_type_of_an_error_leads_to_its_page(alice, visitor, code):
    problem = FAILURES[code](alice).json()

    assert problem["error"]["code"] == code
    address = urljoin(f"http://testserver{problem['instance']}", problem["type"])
    found = visitor.get(address.removeprefix("http://testserver"))
    assert f"<h1>{problem['title']}</h1>" in found.content.decode()


def test_the_list_leads_to_each_page(visitor):
    response = visitor.get("/api/errors")

    page = Page(response.content.decode())
    linked = [attributes["href"] for tag, attributes in page.elements if tag == "a"]
    listed = visitor.get("/api/errors", headers={"Accept": "application/json"}).json()["errors"]
    assert {f"/api/errors/{code}" for code in CODES} <= {*linked}
    assert {*CODES} <= {error["code"] for error in listed}


def test_pages_have_no_script_and_no_style_of_others(visitor):
    response = visitor.get("/api/errors/NOT_FOUND")

    assert "script-src" not in response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert "<script" not in response.content.decode()


@pytest.mark.parametrize(
    ("language", "page", "head"),
    [
        ("en", "guide/errors.md", "| status | code | cause | remedy |"),
        ("es", "guia/errores.md", "| estado | código | causa | remedio |"),
    ],
)
def test_the_guide_has_the_texts_of_the_pages(language, page, head):
    guide = re.sub(r"\*(\w+)\*", r"\1", (DOCS / page).read_text("utf-8"))  # words in italics
    kinds = sorted((by_code()[code] for code in CODES), key=lambda kind: (kind.status, kind.code))
    with translation.override(language):
        rows = [
            f"| {each['status']} | `{each['code']}` | {each['cause']} | {each['remedy']} |"
            for each in map(explanation, kinds)
        ]

    assert "\n".join([head, "| --- | --- | --- | --- |", *rows]) in guide


def test_requests_that_may_have_been_executed_are_named():
    unclear = {code for code in CODES if by_code()[code].may_be_executed}

    assert unclear == {"INTERNAL_ERROR", "DATABASE_UNAVAILABLE"}


@chromium.in_chromium
@pytest.mark.parametrize("colour_scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_pages_fit_the_window_in_a_browser(width, colour_scheme):
    options = {
        "viewport": {"width": width, "height": 800},
        "color_scheme": colour_scheme,
        "locale": "es-ES",
    }
    with chromium.serving() as url, chromium.browser(**options) as page:
        page.goto(f"{url}/api/errors")
        page.get_by_role("link", name="CONVERSATION_STATE_CONFLICT").click()
        page.wait_for_url("**/CONVERSATION_STATE_CONFLICT")
        heading = page.get_by_role("heading", level=1).inner_text()
        main = page.get_by_role("main").bounding_box()
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        scrolls = page.evaluate("document.documentElement.scrollWidth > innerWidth")

    assert heading == "El estado de la conversación no lo permite"
    assert main["x"] >= 0
    assert main["x"] + main["width"] <= width
    assert not scrolls
    assert (sum(map(int, re.findall(r"\d+", background)[:3])) > 384) == (colour_scheme == "light")
