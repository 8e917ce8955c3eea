"""Measures whether the time of a response shows that another user's conversation exists."""

import json
from contextlib import closing
from http.client import HTTPConnection
from itertools import cycle
from statistics import median
from time import perf_counter

import pytest
from bson import ObjectId

from tests.config.test_gunicorn import serving
from tests.conversations.admin.browser import store
from tests.factories import PATH, token

pytestmark = pytest.mark.faults

ROUNDS = 600
LIMIT_MS = 0.2  # of the median difference; far below what varies in a network
BYTES = (100, 3_000_000)  # of a foreign conversation
REQUESTS = {
    "get": ("GET", "/{id}", None),
    "version": ("GET", "/{id}?as_of=1", None),
    "history": ("GET", "/{id}/history", None),
    "patch": ("PATCH", "/{id}", {"title": "Other"}),
    "patch, If-Match": ("PATCH", "/{id}", {"title": "Other"}),
    "archive": ("POST", "/{id}/archive", None),
    "trash": ("DELETE", "/{id}", None),
    "purge": ("DELETE", "/{id}?mode=purge", None),
    "revert": ("POST", "/{id}/revert", {"version": 1, "fields": ["title"]}),
    "duplicate": ("POST", "/{id}/duplicate", None),
    "bulk": ("POST", "/bulk", {"action": "pin", "ids": ["{id}"]}),
}


@pytest.fixture(scope="module")
def connection(tmp_path_factory):
    log = tmp_path_factory.mktemp("timing") / "log"
    with (
        serving(log, "config.wsgi:application") as server,
        closing(HTTPConnection("127.0.0.1", server.port, timeout=10)) as connection,
    ):
        yield connection


@pytest.mark.parametrize("size", BYTES)
@pytest.mark.parametrize("name", REQUESTS)
def test_foreign_and_absent_ids_take_the_same_time(connection, mongo, report, name, size):
    method, path, body = REQUESTS[name]
    foreign = cycle([str(stored["_id"]) for stored in store(mongo, 5)])
    filler = {"$set": {"custom": {"filler": "x" * size}}}
    mongo["conversations"].update_many({}, filler, bypass_document_validation=True)
    headers = {"Authorization": f"Bearer {token('bob')}", "Content-Type": "application/json"}
    if "If-Match" in name:
        headers["If-Match"] = '"v1"'

    def seconds(id_: str) -> float:
        sent = json.dumps(body).replace("{id}", id_) if body else None
        started = perf_counter()
        connection.request(method, PATH + path.replace("{id}", id_), sent, headers)
        response = connection.getresponse()
        response.read()
        took = perf_counter() - started
        assert response.status == (200 if name == "bulk" else 404)
        return took

    pairs = []
    for number in range(ROUNDS):
        kinds = {"foreign": next(foreign), "absent": str(ObjectId())}
        # Alternately first, as the second of two requests can be faster.
        order = sorted(kinds, reverse=number % 2 == 0)
        took = {kind: seconds(kinds[kind]) for kind in order}
        pairs.append((took["foreign"], took["absent"]))
    difference_ms = median(foreign - absent for foreign, absent in pairs) * 1000
    report(f"{name}, {size:,} bytes, foreign or absent: {difference_ms:+.3f} ms")
    assert abs(difference_ms) < LIMIT_MS
