"""The API behind a real nginx that compresses and buffers."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from conversations.serializers.changes import MAX_WAIT_S
from tests.config.test_gunicorn import serving
from tests.conversations.test_internal import put, report, service_with
from tests.factories import PATH, client_of, conversation, token
from tests.nginx import nginx

CHANGES = "/api/v1/changes"
APP = "https://app.example.org"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nginx")
    with (
        serving(
            folder / "log",
            "config.wsgi:application",
            CHANGES_LOOK_S="0.1",
            CORS_ALLOWED_ORIGINS=APP,
        ) as server,
        nginx(folder / "nginx", server.port) as address,
    ):
        yield address


@pytest.fixture
def browser():
    with requests.Session() as session:
        session.headers.update(
            {
                "Authorization": f"Bearer {token()}",
                "Accept-Encoding": "gzip",
                "Origin": APP,
            }
        )
        yield session


def test_a_weakened_tag_is_accepted_once_and_then_stale(address, browser, alice):
    one = f"{address}{PATH}/{conversation(alice)['id']}"
    read = browser.get(one)
    tag = read.headers["ETag"]
    assert (read.headers["Content-Encoding"], tag) == ("gzip", 'W/"v1"')

    edited = browser.patch(one, json={"title": "New"}, headers={"If-Match": tag})
    stale = browser.patch(one, json={"title": "Newer"}, headers={"If-Match": tag})

    assert (edited.status_code, edited.headers["ETag"]) == (200, 'W/"v2"')
    assert stale.status_code == 412
    error = stale.json()["error"]
    assert "has changed since" in error["message"]
    assert error["details"]["current"]["version"] == 2
    for method, path in (("POST", f"{one}/archive"), ("DELETE", one)):
        current = browser.get(one).headers["ETag"]
        assert current.startswith("W/")
        assert browser.request(method, path, headers={"If-Match": current}).status_code == 200


@pytest.mark.parametrize("with_messages", [False, True])
def test_a_weakened_tag_is_304(address, browser, alice, with_messages):
    created = conversation(alice)
    if with_messages:
        put(service_with("conversations:activity"), created, report(1))

    for path in (f"{PATH}/{created['id']}", PATH):
        read = browser.get(address + path)
        known = {"If-None-Match": read.headers["ETag"]}
        assert read.headers["ETag"].startswith("W/")
        assert browser.get(address + path, headers=known).status_code == 304
    alice.patch(f"{PATH}/{created['id']}", {"title": "New"})
    assert browser.get(address + path, headers=known).status_code == 200


def test_errors_keep_their_cors_headers(address, browser):
    response = browser.get(f"{address}{PATH}/x")

    assert response.status_code == 404
    assert response.headers["Access-Control-Allow-Origin"] == APP
    assert "origin" in response.headers["Vary"].lower()


def test_a_stream_arrives_event_by_event(address, browser, alice):
    created = conversation(alice)
    stream = {"Accept": "text/event-stream"}
    with browser.get(f"{address}{CHANGES}", headers=stream, stream=True, timeout=60) as response:
        assert response.headers["Content-Encoding"] == "gzip"
        lines = response.iter_lines(chunk_size=1)
        titles = []
        for n in range(3):
            if n:
                alice.patch(f"{PATH}/{created['id']}", {"title": f"Title {n}"})
            data = next(line for line in lines if line.startswith(b"data: "))
            titles.append(json.loads(data.removeprefix(b"data: "))["conversation"]["title"])

    assert titles == [created["title"], "Title 1", "Title 2"]


def test_a_long_poll_ends_with_the_change(address, browser, alice):
    cursor = client_of("alice").get(f"{PATH}/overview").json()["sync_cursor"]
    query = {"wait": MAX_WAIT_S, "cursor": cursor}
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(browser.get, f"{address}{CHANGES}", params=query, timeout=60)
        time.sleep(0.5)
        assert not waiting.done()
        created = conversation(alice)
        page = waiting.result().json()

    assert [change["conversation"]["id"] for change in page["changes"]] == [created["id"]]
