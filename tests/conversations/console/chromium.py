"""A real Chromium, and the pages it is shown."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler
from django.core.wsgi import get_wsgi_application
from playwright.sync_api import Page, sync_playwright

from tests.conversations.console.browser import LIST

PATH = next(filter(None, map(shutil.which, ["chromium", "google-chrome", "chrome"])), None)
SERIOUS = {"error", "warning"}  # what a page says to developers; the rest is advice


@contextmanager
def serving() -> Iterator[str]:
    """Serve the whole service on this machine; its address."""
    server = ThreadedWSGIServer(("127.0.0.1", 0), WSGIRequestHandler)
    server.daemon_threads = True
    server.set_app(get_wsgi_application())
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def browser(complaints: list[str], **options) -> Iterator[Page]:
    """Open a page, and note what the browser complains of."""

    def note(complaint: str) -> None:
        complaints.append(f"{page.url}: {complaint}")

    with sync_playwright() as driver:
        chromium = driver.chromium.launch(
            executable_path=PATH,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        page = chromium.new_page(**options)
        page.set_default_timeout(20_000)
        page.on("console", lambda said: note(said.text) if said.type in SERIOUS else None)
        page.on("pageerror", lambda error: note(str(error)))
        yield page
        chromium.close()


def log_in(page: Page, url: str, name: str, password: str) -> None:
    page.goto(f"{url}{LIST}")
    page.wait_for_selector("#id_username:focus")
    page.keyboard.type(name)
    page.keyboard.press("Tab")
    page.keyboard.type(password)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{url}{LIST}")
