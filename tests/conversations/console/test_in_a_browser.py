"""The pages in a real Chromium: it reports what the policy forbids, and what scripts fail at."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import pytest
from django.contrib.auth.models import User
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler
from django.core.wsgi import get_wsgi_application
from playwright.sync_api import Page, sync_playwright

from tests.conversations.console.browser import LIST, PASSWORD, store, url_of

CHROMIUM = next(filter(None, map(shutil.which, ["chromium", "google-chrome", "chrome"])), None)
SERIOUS = {"error", "warning"}  # the rest is advice
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="There is no Chromium on this machine")


@pytest.fixture
def url(settings) -> Iterator[str]:
    settings.ALLOWED_HOSTS = ["127.0.0.1"]
    server = ThreadedWSGIServer(("127.0.0.1", 0), WSGIRequestHandler)
    server.daemon_threads = True
    server.set_app(get_wsgi_application())
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@contextmanager
def browser(complaints: list[str], **options) -> Iterator[Page]:

    def note(complaint: str) -> None:
        complaints.append(f"{page.url}: {complaint}")

    with sync_playwright() as driver:
        chromium = driver.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        page = chromium.new_page(**options)
        page.set_default_timeout(10_000)
        page.on("console", lambda said: note(said.text) if said.type in SERIOUS else None)
        page.on("pageerror", lambda error: note(str(error)))
        yield page
        chromium.close()


def log_in(page, url):
    page.goto(f"{url}{LIST}")
    page.wait_for_selector("#id_username:focus")
    page.keyboard.type("root")
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{url}{LIST}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_no_page_breaks_the_policy_or_is_wider_than_the_screen(mongo, url, scheme, width):
    User.objects.create_superuser("root", password=PASSWORD)
    [stored] = store(mongo, 1, title="Long " * 40, user_id="u" * 64)
    complaints: list[str] = []
    wide = []
    size = {"width": width, "height": 900}

    with browser(complaints, viewport=size, color_scheme=scheme) as page:
        log_in(page, url)
        for path in [
            *("/admin/", LIST, url_of(stored["_id"]), url_of(stored["_id"], "act", "hold")),
            *("/admin/admin/logentry/", "/admin/auth/user/", "/admin/auth/user/add/"),
            *("/admin/auth/group/add/", "/admin/password_change/"),
        ]:
            page.goto(f"{url}{path}")
            if page.evaluate("document.documentElement.scrollWidth") > width:
                wide.append(path)
        dark = page.evaluate("document.documentElement.classList.contains('dark')")

    assert complaints == []
    assert wide == []
    assert dark == (scheme == "dark")


def test_the_documentation_breaks_no_policy_either(url):
    complaints: list[str] = []

    with browser(complaints) as page:
        page.goto(f"{url}/api/docs")
        page.wait_for_selector(".opblock")
        page.goto(f"{url}/api/redoc")
        page.wait_for_selector("[data-section-id]")

    assert complaints == []


def test_a_keyboard_is_enough(mongo, url):
    User.objects.create_superuser("root", password=PASSWORD)
    store(mongo, 2)
    complaints: list[str] = []

    with browser(complaints, viewport={"width": 1280, "height": 900}) as page:
        log_in(page, url)
        page.keyboard.press("/")
        page.keyboard.type("number 1")
        page.keyboard.press("Enter")
        page.wait_for_url("**q=number**")
        page.locator(".action-select").first.focus()
        page.keyboard.press("Space")
        page.locator("select[name=action]").select_option("archive")
        page.locator("button[name=index]").press("Enter")
        page.wait_for_selector("form.c-form")
        asked = page.inner_text("form.c-form h2")
        page.wait_for_selector(".c-form button:focus")
        page.keyboard.press("Enter")
        page.wait_for_selector("#result_list")
        said = page.inner_text("#main")
        page.locator(".c-user").press("Enter")
        page.locator("button[value=es]").press("Enter")
        page.wait_for_selector("html[lang=es]")

    assert asked == "Archive: 1 conversation"
    assert "Archived: 1 conversation." in said
    assert complaints == []
