"""Tickets of support, solved in a real Chromium from their wording alone."""

from contextlib import contextmanager

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client

from conversations.admin import runs
from tests.conversations.admin import chromium
from tests.conversations.admin.browser import LIST, store
from tests.conversations.admin.chromium import browser, serving

pytestmark = pytest.mark.skipif(
    chromium.PATH is None, reason="There is no Chromium on this machine"
)


@contextmanager
def console(settings, role="operator"):
    """Open the list of conversations with the session of an account; no page may complain."""
    settings.ALLOWED_HOSTS = ["127.0.0.1"]
    user = User.objects.create_user(role, is_staff=True)
    user.groups.add(Group.objects.get(name=role))
    client = Client()
    client.force_login(user)
    complaints: list[str] = []
    with serving() as url, browser(complaints, viewport={"width": 1280, "height": 900}) as page:
        session = client.cookies[settings.SESSION_COOKIE_NAME].value
        cookie = {"name": settings.SESSION_COOKIE_NAME, "value": session, "url": url}
        page.context.add_cookies([cookie])
        page.goto(f"{url}{LIST}")
        yield page
    assert complaints == []


def find(page, text):
    page.get_by_label("Search").fill(text)
    page.get_by_role("button", name="Find").click()


def test_police_request_to_hold_all_conversations_of_a_user(settings, mongo, monkeypatch):
    monkeypatch.setattr(runs, "BATCH", 20)
    monkeypatch.setattr(runs, "STEP_S", 0.01)
    store(mongo, 90, user_id="user-x")
    store(mongo, 1, user_id="other")

    with console(settings) as page:
        find(page, "user-x")
        page.get_by_role("link", name="Place a legal hold").click()
        page.get_by_text("Place a legal hold: 90 conversations").wait_for()
        page.get_by_label("Reason").fill("Police request 12/2026")
        page.get_by_role("button", name="Place a legal hold").click()
        page.get_by_text("Legal hold placed: 90 conversations.").wait_for()

    held = {"hold.reason": "Police request 12/2026"}
    assert mongo["conversations"].count_documents(held | {"user_id": "user-x"}) == 90
    assert mongo["conversations"].count_documents(held) == 90
