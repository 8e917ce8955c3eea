"""A database that is frozen for some seconds, and the service as a process of its own."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import pytest
import requests
from pymongo import MongoClient

from conversation_service.development.mongod import mongod
from conversation_service.mongodb.connection import RESPONSIVE_S
from tests.config.processes import eventually
from tests.config.test_gunicorn import serving
from tests.factories import PATH, token
from tests.replica_set import create_collections

DATABASE = "frozen"


class Frozen:
    def __init__(self, pid: int, address: str) -> None:
        self.pid = pid
        self._address = address

    @contextmanager
    def frozen(self) -> Iterator[None]:
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def create(self, title: str, **headers: str) -> requests.Response:
        return requests.post(
            f"{self._address}{PATH}",
            json={"character_id": "luna", "title": title},
            headers={"Authorization": f"Bearer {token('alice')}"} | headers,
            timeout=60,
        )


@pytest.fixture
def service(tmp_path):
    with (
        mongod(tmp_path / "mongodb") as url,
        MongoClient(url) as client,
        serving(
            tmp_path / "log",
            "config.wsgi:application",
            DJANGO_SETTINGS_MODULE="config.settings.development",
            MONGODB_URL=url,
            MONGODB_DATABASE=DATABASE,
            MONGODB_TIMEOUT_MS="1000",
            CHARACTER_CHECK="off",
            RATE_LIMIT_ENABLED="false",
        ) as server,
    ):
        create_collections(client[DATABASE])
        pid = int((tmp_path / "mongodb" / "mongod.lock").read_text())
        yield Frozen(pid, f"http://127.0.0.1:{server.port}"), client[DATABASE]["conversations"]


def test_a_create_that_failed_on_a_frozen_database_is_not_stored_later(service):
    service, stored = service
    eventually(lambda: service.create("before").status_code == 201)

    with service.frozen():
        time.sleep(RESPONSIVE_S)
        failed = [service.create("meanwhile") for _ in range(3)]
    eventually(lambda: service.create("after").status_code == 201)

    assert {response.status_code for response in failed} == {503}
    assert stored.count_documents({"title": "meanwhile"}) == 0


def test_a_create_with_a_key_is_repeated_safely_after_a_freeze(service):
    service, stored = service
    keys = [str(uuid4()) for _ in range(3)]
    eventually(lambda: service.create("before").status_code == 201)

    with service.frozen():
        failed = [service.create("once", **{"Idempotency-Key": key}) for key in keys]

    assert {response.status_code for response in failed} == {503}
    for key in keys:
        eventually(lambda key=key: service.create("once", **{"Idempotency-Key": key}).ok)
    assert stored.count_documents({"title": "once"}) == 3
