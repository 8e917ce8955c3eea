"""A real Chromium for the pages of the service."""

import asyncio
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cache
from threading import Thread

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.core.handlers.wsgi import WSGIHandler
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler
from django.db import connection
from django.test import Client
from playwright.sync_api import Page, sync_playwright

from tests.conversations.admin.browser import LIST

# The headless shell has no window, and needs half of the CPU time.
NAMES = ["chromium-headless-shell", "chromium", "google-chrome", "chrome"]
PATH = next(filter(None, map(shutil.which, NAMES)), None)
in_chromium = pytest.mark.skipif(PATH is None, reason="There is no Chromium on this machine")
SERIOUS = {"error", "warning"}  # messages of a page to developers; other levels are advice
FAILED_TO_LOAD = "Failed to load resource"


@contextmanager
def serving() -> Iterator[str]:
    """Serve the whole service on this machine; yield its address."""
    server = ThreadedWSGIServer(("127.0.0.1", 0), WSGIRequestHandler)
    server.daemon_threads = True
    server.set_app(WSGIHandler())
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class SharedChromium:
    """One Chromium for many pages, as its start costs more than a page: 1.4 s of processor time.

    Playwright's event loop stays on the main thread between two pages. Django must not see it
    there, as it rejects the ORM in a thread with a running event loop.
    """

    def __init__(self) -> None:
        self._started = ExitStack()
        driver = self._started.enter_context(sync_playwright())
        self._loop = asyncio.get_running_loop()
        self._chromium = driver.chromium.launch(
            executable_path=PATH,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        self._started.callback(self._chromium.close)
        asyncio._set_running_loop(None)

    @contextmanager
    def page(self, **options) -> Iterator[Page]:
        """Open a page with its own cookies and storage."""
        with self._loop_in_sight(), self._chromium.new_context(**options) as context:
            yield context.new_page()

    def close(self) -> None:
        with self._loop_in_sight():
            self._started.close()

    @contextmanager
    def _loop_in_sight(self) -> Iterator[None]:
        asyncio._set_running_loop(self._loop)
        try:
            yield
        finally:
            asyncio._set_running_loop(None)


@cache
def shared_chromium() -> SharedChromium:
    return SharedChromium()


def close_chromium() -> None:
    """End Chromium if it runs; the next page starts another."""
    if shared_chromium.cache_info().currsize:
        shared_chromium().close()
        shared_chromium.cache_clear()


@contextmanager
def browser(*expected: str, **options) -> Iterator[Page]:
    """Open a page. At the end, fail if the browser has reported an error or a warning.

    An error may contain one of the `expected` texts, or report the status of the page itself.
    """
    complaints: list[str] = []

    def note(complaint: str, source: str = "") -> None:
        is_own_status = complaint.startswith(FAILED_TO_LOAD) and source == page.url
        if not is_own_status and not any(text in complaint for text in expected):
            complaints.append(f"{page.url}: {complaint} {source}")

    with shared_chromium().page(**options) as page:
        page.set_default_timeout(60_000)
        page.on(
            "console",
            lambda said: note(said.text, said.location["url"]) if said.type in SERIOUS else None,
        )
        page.on("pageerror", lambda error: note(str(error)))
        yield page
    assert not complaints, "\n".join(complaints)


def open_list(page: Page, url: str, name: str) -> None:
    """Open the list of conversations as a member of staff who has logged in before."""
    # Django rejects the ORM in this thread, as it has a running event loop.
    with ThreadPoolExecutor() as other_thread:
        session = other_thread.submit(new_session, name).result()
    page.context.add_cookies([{"name": settings.SESSION_COOKIE_NAME, "value": session, "url": url}])
    page.goto(f"{url}{LIST}")


def new_session(name: str) -> str:
    client = Client()
    client.force_login(User.objects.get(username=name))
    connection.close()
    return client.cookies[settings.SESSION_COOKIE_NAME].value


def log_in(page: Page, url: str, name: str, password: str) -> None:
    """Log in with the form, which takes twice as long as `open_list`."""
    page.goto(f"{url}{LIST}")
    page.wait_for_selector("#id_username:focus")
    page.keyboard.type(name)
    page.keyboard.press("Tab")
    page.keyboard.type(password)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{url}{LIST}")
