"""A hanging look-up of a name affects only the requests that need the name."""

from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
import requests
from django.conf import settings

from config.env import env
from tests.config.test_gunicorn import serving
from tests.factories import PATH, token
from tests.failpoints import failing

APPLICATION = "tests.conversation_service.server.hanging_names:application"
ALICE = {"Authorization": f"Bearer {token('alice')}"}
NAME = "hangs.example"
LIMIT_S = 10  # a third of the time that the look-up hangs


def served(log, **variables):
    options = {
        "DJANGO_SETTINGS_MODULE": "config.settings.development",
        "MONGODB_DATABASE": settings.DATABASES["default"]["NAME"],
        "JWT_SECRET_KEY": settings.JWT_SECRET_KEY,
        "RATE_LIMIT_CREATE": "100",
        "HANGING_NAME": NAME,
        "CHARACTERS_SERVICE_URL": "http://127.0.0.1:1",
    }
    return serving(log, APPLICATION, **options | variables)


def read(server) -> int:
    address = f"http://127.0.0.1:{server.port}{PATH}"
    return requests.get(address, headers=ALICE, timeout=LIMIT_S).status_code


@pytest.mark.parametrize(
    ("variables", "status"),
    [
        ({"CHARACTERS_SERVICE_URL": f"http://{NAME}:8002", "CHARACTER_CHECK": "strict"}, 503),
        ({"REDIS_URL": f"redis://{NAME}:6379/0", "CHARACTER_CHECK": "lenient"}, 201),
    ],
    ids=["Characters", "Redis"],
)
def test_requests_beside_a_hanging_name_are_answered(tmp_path, mongo, variables, status):
    with served(tmp_path / "log", **variables) as server:
        address = f"http://127.0.0.1:{server.port}{PATH}"

        def create(number):
            body = {"character_id": f"luna-{number}"}
            return requests.post(address, json=body, headers=ALICE, timeout=LIMIT_S).status_code

        with ThreadPoolExecutor(20) as clients:
            assert {*clients.map(create, range(20))} == {status}
            # The look-ups for the creations still run. Slow lists need new connections.
            with failing(commands=["find"], blockConnection=True, blockTimeMS=500):
                assert {*clients.map(read, [server] * 20)} == {200}


def test_a_hanging_name_of_mongodb_is_a_503_in_time(tmp_path, mongo):
    begin = tmp_path / "hang"
    url = f"mongodb://{NAME}:{urlsplit(env('MONGODB_URL')).port}/?directConnection=true"
    with (
        served(tmp_path / "log", MONGODB_URL=url, HANGING_FROM=str(begin)) as server,
        ThreadPoolExecutor(20) as clients,
    ):
        assert read(server) == 200
        begin.touch()
        # Slow lists need new connections.
        with failing(commands=["find"], blockConnection=True, blockTimeMS=500):
            assert {*clients.map(read, [server] * 20)} == {200, 503}
