"""Password hashing beside other requests, on the real gunicorn with one worker."""

from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlencode

import pytest
import requests
from django.contrib.auth import hashers
from django.contrib.auth.models import User

from conversation_service.hashers import PBKDF2PasswordHasher
from tests.config.test_gunicorn import serving

PASSWORD = "open sesame"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    log = tmp_path_factory.mktemp("logins") / "log"
    settings = {"DJANGO_SETTINGS_MODULE": "tests.config.hashing_settings"}
    with serving(log, "config.wsgi:application", **settings) as server:
        yield server


def log_in(server, name: str) -> requests.Response:
    token = "a" * 32
    form = {"username": name, "password": PASSWORD, "csrfmiddlewaretoken": token}
    return requests.post(
        f"http://127.0.0.1:{server.port}/admin/login/",
        urlencode(form | {"next": "/admin/"}),
        headers={
            "Host": "testserver",
            "Cookie": f"csrftoken={token}",
            "Content-Type": "application/x-www-form-urlencoded",
        },
        timeout=120,
        allow_redirects=False,
    )


def test_hashes_equal_those_of_django():
    ours, theirs = PBKDF2PasswordHasher(), hashers.PBKDF2PasswordHasher()
    encoded = ours.encode(PASSWORD, "salt", 1_000)

    assert encoded == theirs.encode(PASSWORD, "salt", 1_000)
    assert theirs.verify(PASSWORD, encoded)
    assert ours.verify(PASSWORD, encoded)
    assert not ours.verify("wrong", encoded)


def test_other_requests_are_served_while_passwords_are_hashed(server):
    with ThreadPoolExecutor(4) as pool:
        guesses = [pool.submit(log_in, server, f"unknown{n}") for n in range(4)]
        served = 0
        while not all(guess.done() for guess in guesses):
            assert server.get("/health/live").ok
            served += 1

    assert [guess.result().status_code for guess in guesses] == [200] * 4
    assert served > 4  # on the loop of the worker, one between two hashes


def test_logins_beyond_the_queue_are_rejected_before_hashing(server):
    with ThreadPoolExecutor(16) as pool:
        guesses = [pool.submit(log_in, server, f"unknown{n}") for n in range(16)]
        responses = [guess.result() for guess in guesses]

    refused = [response for response in responses if response.status_code == 429]
    assert refused
    assert {int(response.headers["Retry-After"]) for response in refused} == {2}
    assert len(responses) - len(refused) >= 4
    assert {response.status_code for response in responses} == {200, 429}


def test_a_password_hashed_by_django_still_logs_in(server, mongo):
    User.objects.create(
        username="ana",
        password=hashers.PBKDF2PasswordHasher().encode(PASSWORD, "x" * 22),
        is_staff=True,
    )

    response = log_in(server, "ana")

    assert (response.status_code, response.headers["Location"]) == (302, "/admin/")
