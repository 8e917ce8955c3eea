"""The Redis of staging takes its password from the URL of the service."""

import subprocess
import time
from urllib.parse import quote

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from conversation_service.development.process import free_port
from conversation_service.development.valkey import find
from tests.deployment.test_image import STAGING


def script(url_file, *, port: int) -> str:
    """Return the program of the container, for this machine: the file, the server and its port."""
    shell = STAGING["redis"]["command"][-1].replace("$$", "$")
    return shell.replace("/run/secrets/redis_url", str(url_file)).replace(
        "valkey-server -", f"{find()} - --port {port} --bind 127.0.0.1"
    )


def wait_for(port: int) -> None:
    once = Retry(NoBackoff(), retries=0)
    for _ in range(300):
        try:
            redis.Redis(host="127.0.0.1", port=port, retry=once).ping()
        except redis.AuthenticationError:
            return
        except redis.ConnectionError:
            time.sleep(0.05)
    pytest.fail("the server does not require a password")


def assert_that_it_logs_in(tmp_path, port: int, content: str) -> None:
    """Start the server with this content of the file, and log in with the URL in it."""
    secret = tmp_path / "redis_url"
    secret.write_text(content)
    server = subprocess.Popen(["/bin/sh", "-ec", script(secret, port=port)], cwd=tmp_path)
    try:
        wait_for(port)
        with redis.Redis.from_url(content.rstrip("\n")) as client:
            assert client.ping()
    finally:
        server.terminate()
        server.wait(10)


@pytest.mark.parametrize(
    "password",
    ["plain", "p@ss/w0rd", 'quo"te\\n', "50%", "#?:[ ]", "$HOME`id`'", "contraseña", "x&y|z"],
)
def test_the_service_can_log_in_with_the_password_of_its_url(tmp_path, password):
    port = free_port()
    assert_that_it_logs_in(
        tmp_path, port, f"redis://:{quote(password, safe='')}@127.0.0.1:{port}/0\n"
    )


def test_characters_that_need_no_encoding_are_literal(tmp_path):
    port = free_port()
    assert_that_it_logs_in(tmp_path, port, f'redis://:a"b\\c$d@e@127.0.0.1:{port}/0')


@pytest.mark.parametrize("url", ["redis://redis:6379/0", "redis://user:secret@redis:6379/0", ""])
def test_a_url_without_a_usable_password_stops_the_start(tmp_path, url):
    secret = tmp_path / "redis_url"
    secret.write_text(url)

    done = subprocess.run(
        ["/bin/sh", "-ec", script(secret, port=free_port())],
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )

    assert done.returncode == 1
    assert "redis_url must be redis://:PASSWORD@redis:6379/0" in done.stderr
    assert "secret" not in done.stderr
