"""The service under gunicorn while Characters fails: which requests wait."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import requests
from django.conf import settings as django_settings

from conversation_service.development.stand_ins.characters import characters
from tests.config.processes import eventually
from tests.config.test_gunicorn import Server, serving
from tests.factories import PATH, token

BUDGET_S = 1.0
THRESHOLD = 3
RECOVERY_S = 0.5


@pytest.fixture(scope="module")
def stand_in():
    with characters(0) as server:
        yield server


@pytest.fixture(scope="module")
def service(stand_in, tmp_path_factory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("service") / "log"
    variables = {
        "MONGODB_DATABASE": django_settings.DATABASES["default"]["NAME"].removeprefix("test_"),
        "CHARACTERS_SERVICE_URL": stand_in.url,
        "CHARACTERS_BREAKER_THRESHOLD": str(THRESHOLD),
        "CHARACTERS_BREAKER_RECOVERY_S": str(RECOVERY_S),
        "NEIGHBOUR_BUDGET_S": str(BUDGET_S),
        "CHARACTER_CHECK": "strict",
    }
    with serving(log, application="config.wsgi:application", **variables) as server:
        yield server


class Client:
    def __init__(self, service: Server) -> None:
        self.url = f"http://127.0.0.1:{service.port}{PATH}"
        self.headers = {"Authorization": f"Bearer {token('alice')}"}
        self.numbers = iter(range(1000))

    def create(self) -> tuple[int, str | None]:
        """Create with a character that is not cached; return status and code."""
        body = {"character_id": f"unknown-{time.monotonic_ns()}"}
        response = requests.post(self.url, json=body, headers=self.headers, timeout=60)
        code = response.json().get("error", {}).get("code")
        return response.status_code, code

    def list(self) -> int:
        return requests.get(self.url, headers=self.headers, timeout=60).status_code


@contextmanager
def misbehaving(stand_in, mode: str) -> Iterator[None]:
    stand_in.mode = mode
    try:
        yield
    finally:
        stand_in.mode = "ok"
        stand_in.switched.set()
        stand_in.switched.clear()


@pytest.mark.parametrize("mode", ["hang", "error", "nonsense", "slow"])
def test_creates_fail_although_characters_sends_no_usable_response(service, stand_in, mode):
    client = Client(service)
    eventually(lambda: client.create()[0] == 422)

    with misbehaving(stand_in, mode):
        responses = {client.create() for _ in range(THRESHOLD + 2)}

    assert responses == {(503, "CHARACTER_SERVICE_UNAVAILABLE")}
    eventually(lambda: client.create() == (422, "CHARACTER_NOT_EXISTS"))


def test_requests_without_a_character_do_not_wait(service, stand_in):
    client = Client(service)

    def lists_end_first() -> bool:
        eventually(lambda: client.create()[0] == 422)
        with misbehaving(stand_in, "hang"), ThreadPoolExecutor(30) as threads:
            creating = [threads.submit(client.create) for _ in range(30)]
            listed = {client.list() for _ in range(3)}
            creates_wait = not any(attempt.done() for attempt in creating)
            assert {attempt.result()[0] for attempt in creating} == {503}
        assert listed == {200}
        return creates_wait

    # On a busy machine the lists can take longer than BUDGET_S, the longest wait of a create.
    eventually(lists_end_first)
