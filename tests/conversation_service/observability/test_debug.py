"""Logs with LOG_LEVEL=DEBUG, metrics and traces of real processes have no text of a user."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import jwt
import pytest
import redis
import requests

from conversation_service import clock
from conversation_service.development.process import free_port
from conversation_service.development.valkey import valkey
from tests.config.processes import environment, eventually
from tests.config.test_gunicorn import Server, serving

ROOT = Path(__file__).resolve().parents[3]
API = "/api/v1/conversations"


class Markers:
    """Words that must not be logged. Each is used once, so that a failure names its place."""

    def __init__(self) -> None:
        self._number = count(1)
        self.places: dict[str, str] = {}

    def __call__(self, place: str) -> str:
        word = f"zq{next(self._number):03}marker"
        self.places[word] = place
        return word

    def found_in(self, logged: str) -> list[str]:
        return [place for word, place in self.places.items() if word in logged]


@pytest.fixture
def marker():
    return Markers()


@contextmanager
def guarded_valkey(folder: Path, password: str) -> Iterator[str]:
    with valkey(folder) as url:
        with redis.Redis.from_url(url) as client:
            client.config_set("requirepass", password)
        yield url.replace("redis://", f"redis://:{password}@")


def manage(*arguments: str, **variables: str) -> str:
    """Run a command and return its output."""
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def converse(server: Server, marker: Markers, secret: str) -> None:
    """Put a marker in every field of successful and failed requests."""
    now = int(clock.now().timestamp())
    claims = {"user_id": marker("user id"), "token_type": "access", "iat": now, "exp": now + 600}
    token = jwt.encode(claims, secret, "HS256")
    marker.places[token] = "token"
    user = requests.Session()
    user.headers.update({"Authorization": f"Bearer {token}", "Content-Type": "application/json"})
    url = f"http://127.0.0.1:{server.port}"

    def call(method: str, path: str = API, **options) -> requests.Response:
        headers = {"Idempotency-Key": marker(f"Idempotency-Key of {method} {path}")}
        return user.request(method, url + path, headers=headers, timeout=60, **options)

    def fields(place: str) -> dict:
        return {
            "title": marker(f"title, {place}"),
            "tags": [marker(f"tag, {place}")],
            "custom": {marker(f"custom key, {place}"): marker(f"custom value, {place}")},
            "settings": {"stop_sequences": [marker(f"stop sequence, {place}")]},
        }

    created = call("POST", json={"character_id": marker("character"), **fields("create")})
    assert created.status_code == 201, created.text
    one = f"{API}/{created.json()['id']}"
    assert call("PATCH", one, json=fields("update")).status_code == 200
    assert call("GET", f"{API}?search={marker('search')}").status_code == 200
    assert call("GET", f"{API}?tags={marker('filter by tag')}").status_code == 200
    assert call("GET", f"/api/v1/tags?prefix={marker('tag prefix')}").status_code == 200
    assert call("GET", "/api/v1/changes").status_code == 200
    assert call("GET", one).status_code == 200
    assert call("GET", f"{one}/history").status_code == 200
    assert call("POST", f"{one}/duplicate").status_code == 201
    exported = call("GET", f"{API}/export")
    assert exported.status_code == 200
    assert call("POST", f"{API}/import", data=exported.content).status_code < 500
    bulk = {"action": "archive", "filter": {"search": marker("bulk filter")}}
    assert call("POST", f"{API}/bulk", json=bulk).status_code < 500
    wrong = {"settings": {"temperature": marker("wrong value")}, marker("wrong field"): 1}
    assert call("POST", json={"character_id": "luna", **wrong}).status_code == 400
    assert call("POST", data=f'{{"title": "{marker("broken JSON")}').status_code == 400
    assert call("GET", f"{API}?cursor={marker('cursor')}").status_code == 400
    assert call("GET", f"{API}?{marker('parameter')}=1").status_code < 500
    user.headers["Authorization"] = f"Bearer {marker('wrong token')}.b.c"
    assert call("GET").status_code == 401
    assert call("DELETE", one).status_code == 401


def administer(server: Server, marker: Markers, name: str, password: str) -> None:
    """Log in to the console with a wrong and with the right password, and look around."""
    staff = requests.Session()
    console = f"http://127.0.0.1:{server.port}/admin/"

    def log_in(username: str, password: str) -> requests.Response:
        staff.get(f"{console}login/", timeout=60)
        form = {
            "username": username,
            "password": password,
            "csrfmiddlewaretoken": staff.cookies["csrftoken"],
            "next": "/admin/",
        }
        return staff.post(f"{console}login/", form, allow_redirects=False, timeout=60)

    for _ in range(6):  # the sixth is locked out
        log_in(marker("unknown name"), marker("wrong password"))
    wrong_name = marker("name that is locked out")
    for _ in range(6):
        log_in(wrong_name, marker("wrong password"))
    assert log_in(name, password).status_code == 302
    marker.places[staff.cookies["sessionid"]] = "session"
    marker.places[staff.cookies["csrftoken"]] = "CSRF token"
    for page in ("", f"conversations/conversation/?q={marker('search in the console')}"):
        assert staff.get(console + page, timeout=60).status_code == 200
    staff.post(f"{console}logout/", {"csrfmiddlewaretoken": marker("CSRF token")}, timeout=60)


@pytest.mark.parametrize("form", ["line", "ecs"])
def test_logs_metrics_and_traces_have_no_data_of_users(
    tmp_path,
    marker,
    mongo,
    collector,
    form,
):
    secret = marker("JWT_SECRET_KEY") + "x" * 32
    name, password = marker("name of staff"), marker("password of staff")
    with guarded_valkey(tmp_path / "valkey", marker("password of Redis")) as redis_url:
        variables = {
            "ENVIRONMENT": "development",
            "DJANGO_SETTINGS_MODULE": "tests.config.undelayed_settings",
            "MONGODB_DATABASE": mongo.name,
            "REDIS_URL": redis_url,
            "SECRET_KEY": marker("SECRET_KEY") + "x" * 32,
            "SECRET_KEY_FALLBACKS": marker("SECRET_KEY_FALLBACKS") + "x" * 32,
            "JWT_SECRET_KEY": secret,
            "JWT_SECRET_KEY_FALLBACKS": marker("JWT_SECRET_KEY_FALLBACKS") + "x" * 32,
            "CHARACTER_CHECK": "lenient",
            "CHARACTERS_SERVICE_URL": f"http://127.0.0.1:{free_port()}",
            "RATE_LIMIT_ENABLED": "true",
            "RATE_LIMIT_CREATE": "1000",
            "LOG_LEVEL": "DEBUG",
            "LOG_FORMAT": form,
            "GUNICORN_CMD_ARGS": "--log-level debug",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }
        account = {
            "DJANGO_SUPERUSER_PASSWORD": password,
            "DJANGO_SUPERUSER_EMAIL": "staff@example.org",
        }
        create = ("createsuperuser", "--noinput", f"--username={name}")
        printed = manage(*create, **variables | account)
        log = tmp_path / "log"
        with serving(log, "config.wsgi:application", **variables) as server:
            converse(server, marker, secret)
            administer(server, marker, name, password)
            metrics = server.get("/metrics").text
            eventually(lambda: "POST /admin/logout/" in str(collector.spans))
        printed += manage("purge_trash", "--dry-run", **variables)

    logged = log.read_text()
    assert f"{API}/" in logged
    assert f'route="{API}/{{id}}"' in metrics
    assert marker.found_in(logged + printed + metrics + str(collector.spans)) == []
