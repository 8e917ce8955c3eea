"""The page at `/`: HTML for people, JSON for programs."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.test import Client

from tests.conversations.admin import chromium

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.fixture(scope="module", autouse=True)
def _chromium_of_this_module():
    yield
    chromium.close_chromium()


@pytest.mark.parametrize("accept", [None, "*/*", "application/json", "text/plain", "text/html;q=0"])
def test_programs_get_addresses_as_json(accept):
    response = Client().get("/", headers={"Accept": accept} if accept else {})

    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/json"
    assert "Accept" in response.headers["Vary"].split(", ")
    assert response.json()["service"] == "conversation-service"
    assert response.json()["links"]["documentation"] == "/api/docs"


def test_browsers_get_a_page_with_links_that_work():
    response = Client().get("/", headers={"Accept": BROWSER})

    assert response.headers["Content-Type"].startswith("text/html")
    assert "Accept" in response.headers["Vary"].split(", ")
    links = re.findall(r'<a href="(.*?)"', response.text)
    assert links == ["/api/docs", "/api/redoc", "/admin/", "/health"]
    for link in links:
        assert Client().get(link, follow=True).status_code == 200, link


def test_the_page_is_in_spanish():
    response = Client().get("/", headers={"Accept": BROWSER, "Accept-Language": "es"})

    assert '<html lang="es">' in response.text
    assert "Documentación de la API" in response.text
    assert "Find conversations" not in response.text


def test_the_console_can_have_another_path(settings):
    settings.CONSOLE_PATH = "/staff/"

    assert Client().get("/").json()["links"]["console"] == "/staff/"


def test_other_methods_are_not_allowed():
    assert Client().post("/").status_code == 405


@chromium.in_chromium
@pytest.mark.parametrize("language", ["en", "es"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible_and_fits_the_screen(settings, scheme, language):
    settings.ALLOWED_HOSTS = ["127.0.0.1"]
    settings.SERVICE_NAME = "conversation-service-" + "x" * 79
    with (
        chromium.serving() as url,
        chromium.browser(color_scheme=scheme, locale=language) as page,
    ):
        for width in (390, 1280):
            page.set_viewport_size({"width": width, "height": 800})
            page.goto(f"{url}/")
            assert page.evaluate("document.documentElement.scrollWidth") == width
        violations = Axe().run(page).response["violations"]
        assert page.evaluate("getComputedStyle(document.querySelector('a')).fontWeight") == "600"

    assert violations == []
