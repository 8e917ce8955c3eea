"""The service under gunicorn while Characters fails: which requests wait, and how long."""

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

BUDGET_S = 0.6
# Half of the budget is for the machine that runs the tests beside other things.
BOUND_S = BUDGET_S * 1.1 + BUDGET_S / 2
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
        "CLIENT_HEAD_TIMEOUT_S": "10",
    }
    with serving(log, application="config.wsgi:application", **variables) as server:
        yield server


class Client:
    def __init__(self, service: Server) -> None:
        self.url = f"http://127.0.0.1:{service.port}{PATH}"
        self.headers = {"Authorization": f"Bearer {token('alice')}"}
        self.numbers = iter(range(1000))

    def create(self) -> tuple[int, str | None, float]:
        """Create with a character that is not cached; return status, code and seconds."""
        started = time.monotonic()
        body = {"character_id": f"unknown-{time.monotonic_ns()}"}
        response = requests.post(self.url, json=body, headers=self.headers, timeout=20)
        code = response.json().get("error", {}).get("code")
        return response.status_code, code, time.monotonic() - started

    def list(self) -> float:
        started = time.monotonic()
        response = requests.get(self.url, headers=self.headers, timeout=20)
        assert response.status_code == 200
        return time.monotonic() - started


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
def test_creates_fail_within_the_budget_and_later_at_once(service, stand_in, mode):
    client = Client(service)
    eventually(lambda: client.create()[0] == 422)

    with misbehaving(stand_in, mode):
        responses = [client.create() for _ in range(THRESHOLD + 2)]

        assert {(status, code) for status, code, _ in responses} == {
            (503, "CHARACTER_SERVICE_UNAVAILABLE")
        }
        assert max(seconds for *_, seconds in responses) < BOUND_S
        # The circuit breaker is open: no request waits.
        assert responses[-1][2] < BUDGET_S / 2

    eventually(lambda: client.create()[:2] == (422, "CHARACTER_NOT_EXISTS"))


def test_requests_without_a_character_do_not_wait(service, stand_in):
    client = Client(service)
    eventually(lambda: client.create()[0] == 422)

    with misbehaving(stand_in, "hang"), ThreadPoolExecutor(40) as threads:
        creating = [threads.submit(client.create) for _ in range(30)]
        lists = sorted(client.list() for _ in range(20))
        waited = [attempt.result()[2] for attempt in creating]

    assert lists[len(lists) // 2] < BUDGET_S / 2
    assert max(waited) < BOUND_S + 1
