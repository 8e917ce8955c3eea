"""Health checks, also while MongoDB, Redis and the upstreams hang."""

import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace

import pymongo
import pytest
import requests
from django.test import Client

from conversation_service import health
from conversation_service.development import process
from conversation_service.development.mongod import mongod
from tests.config.processes import eventually
from tests.conversation_service import loopback
from tests.factories import PATH, token

UPSTREAMS = {
    "auth_service": "AUTH_SERVICE_URL",
    "characters_service": "CHARACTERS_SERVICE_URL",
    "message_service": "MESSAGE_SERVICE_URL",
}
ADDRESSES = ["/health", "/health/live", "/health/ready"]


class Upstream:
    """One server that stands for all three upstreams."""

    def __init__(self) -> None:
        self.talk: loopback.Talk = loopback.respond()
        self.requests = 0

    def __call__(self, channel) -> None:
        self.requests += 1
        self.talk(channel)


@pytest.fixture
def upstream(settings):
    upstream = Upstream()
    with loopback.serving(upstream) as address:
        for name in UPSTREAMS.values():
            setattr(settings, name, f"http://{address}")
        yield upstream


@pytest.fixture
def clock(monkeypatch):
    """The clock of the cached report: it stands still, and a test can advance it."""
    clock = SimpleNamespace(now_s=time.monotonic(), ahead_s=0.0)
    monkeypatch.setattr(health, "_reports", health._Reports())
    monkeypatch.setattr(health, "monotonic", lambda: clock.now_s + clock.ahead_s)
    return clock


@pytest.fixture(autouse=True)
def _own_report(clock, patient_health):
    """Start each test without a cached report."""


def statuses(body: dict) -> dict[str, str]:
    return {name: found["status"] for name, found in body["dependencies"].items()}


def report():
    return Client().get("/health").json()


def test_all_checks_pass(upstream):
    response = Client().get("/health")

    assert response.status_code == 200
    body = response.json()
    assert body.keys() == {
        *("status", "service", "version", "environment", "timestamp", "dependencies")
    }
    assert body["status"] == "healthy"
    assert (body["service"], body["environment"]) == ("conversation-service", "test")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", body["timestamp"])
    assert statuses(body) == dict.fromkeys(["mongodb", "redis", *UPSTREAMS], "healthy")
    assert all(found["response_time_ms"] > 0 for found in body["dependencies"].values())


@pytest.mark.parametrize("address", [*ADDRESSES, *(f"{address}/" for address in ADDRESSES)])
def test_probes_need_no_token_and_no_allowed_host(upstream, address):
    response = Client().get(address, headers={"Host": "10.1.2.3:8003"})

    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("host", ["", "evil.example", "a b", "[::1", "x" * 300])
@pytest.mark.parametrize("address", ADDRESSES)
def test_no_host_header_can_break_a_probe(upstream, address, host):
    assert Client().get(address, headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("address", ADDRESSES)
def test_head_gets_a_response_without_a_body(upstream, address):
    response = Client().head(address)

    assert (response.status_code, response.content) == (200, b"")


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_other_methods_are_not_allowed(address, method):
    response = Client().generic(method, address)

    assert response.status_code == 405
    assert response.headers["Allow"] == "GET, HEAD"
    assert response.json()["error"]["code"] == "METHOD_NOT_ALLOWED"


def test_live_and_ready_respond_200():
    assert Client().get("/health/live").json() == {"status": "ok"}
    assert Client().get("/health/ready").json() == {"status": "ready"}


def test_live_uses_no_database_and_no_upstream(upstream, django_assert_num_queries):
    with django_assert_num_queries(0):
        Client().get("/health/live")

    assert upstream.requests == 0


@pytest.mark.parametrize(
    "status",
    ["200 OK", "204 No Content", "302 Found", "401 Unauthorized", "404 Not Found", "429 Slow"],
)
def test_an_upstream_that_responds_is_healthy(upstream, status):
    upstream.talk = loopback.respond(status=status, headers="Location: http://127.0.0.1:1/\r\n")

    assert report()["status"] == "healthy"


def endless_body(channel) -> None:
    channel.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        channel.sendall(b"x" * 1_000)
        time.sleep(0.01)


def test_the_body_of_an_upstream_is_not_read(upstream):
    upstream.talk = endless_body

    assert report()["status"] == "healthy"


def hang_up(channel) -> None:
    channel.recv(10)


def talk_nonsense(channel) -> None:
    channel.sendall(b"\x00\xff\n\n")


@pytest.mark.parametrize(
    "talk",
    [
        pytest.param(loopback.respond(status="500 Broken"), id="500"),
        pytest.param(loopback.respond(status="503 Down"), id="503"),
        pytest.param(loopback.silence, id="silent"),
        pytest.param(loopback.trickle, id="trickling"),
        pytest.param(hang_up, id="hangs up"),
        pytest.param(talk_nonsense, id="no HTTP"),
    ],
)
def test_failing_upstreams_degrade_the_service(upstream, monkeypatch, talk):
    upstream.talk = talk
    if talk in {loopback.silence, loopback.trickle}:
        monkeypatch.setattr(health, "UPSTREAM_S", 0.3)

    response = Client().get("/health")

    assert response.status_code == 200
    assert response.json()["status"] == "degraded"
    assert statuses(response.json()) == {"mongodb": "healthy", "redis": "healthy"} | dict.fromkeys(
        UPSTREAMS, "unhealthy"
    )


@pytest.mark.parametrize("url", ["http://{closed}", "nonsense", "http://", "ftp://127.0.0.1"])
@pytest.mark.parametrize("name", UPSTREAMS)
def test_an_unreachable_upstream_is_named(upstream, settings, name, url):
    setattr(settings, UPSTREAMS[name], url.format(closed=loopback.closed_port()))

    body = report()

    assert body["status"] == "degraded"
    assert [key for key, status in statuses(body).items() if status == "unhealthy"] == [name]


def test_upstreams_that_are_not_configured_are_not_reported(upstream, settings):
    settings.REDIS_URL = settings.MESSAGE_SERVICE_URL = ""

    body = report()

    assert body["status"] == "healthy"
    absent = {"status": "not_configured", "response_time_ms": None}
    assert body["dependencies"]["redis"] == absent
    assert body["dependencies"]["message_service"] == absent


@pytest.mark.parametrize("url", ["redis://{closed}", "redis://{silent}", "nonsense", "redis://:x@"])
def test_a_redis_that_does_not_respond_degrades_the_service(upstream, settings, monkeypatch, url):
    if "silent" in url:
        monkeypatch.setattr(health, "REDIS_S", 0.3)
    with loopback.serving(loopback.silence) as silent:
        settings.REDIS_URL = url.format(closed=loopback.closed_port(), silent=silent)

        body = report()

    assert body["status"] == "degraded"
    assert statuses(body)["redis"] == "unhealthy"


def test_concurrent_probes_share_one_request_per_upstream(upstream):
    with ThreadPoolExecutor(16) as pool:
        bodies = list(pool.map(lambda _: report(), range(64)))

    assert upstream.requests == 3
    assert len({body["timestamp"] for body in bodies}) == 1


def test_a_report_is_cached_for_two_seconds(upstream, clock):
    assert report()["status"] == "healthy"
    upstream.talk = hang_up

    clock.ahead_s += 1
    assert report()["status"] == "healthy"

    clock.ahead_s += 1
    assert report()["status"] == "degraded"


def test_upstreams_that_request_our_report_in_turn_are_healthy(upstream, clock):
    report()
    clock.ahead_s += 5

    def request_back(channel):
        Client().get("/health")
        loopback.reply(channel, b"{}")

    upstream.talk = request_back

    assert report()["status"] == "healthy"


def test_a_probe_with_a_bug_is_unhealthy_and_logged(upstream, settings, caplog):
    settings.AUTH_SERVICE_URL = 8001  # not a text

    body = report()

    assert statuses(body)["auth_service"] == "unhealthy"
    assert "A health probe failed" in caplog.text


PASSWORD = "Zm9vYmFy"


@pytest.mark.parametrize("name", ["redis", *UPSTREAMS])
def test_the_log_has_the_address_and_the_reason(upstream, settings, name, caplog):
    address = loopback.closed_port()
    url = f"redis://:{PASSWORD}@{address}/0" if name == "redis" else f"http://{address}"
    setattr(settings, UPSTREAMS.get(name, "REDIS_URL"), url)

    report()

    [line] = [record.getMessage() for record in caplog.records if record.name == health.__name__]
    assert line.startswith(f"{name} at {address} is unhealthy: ")
    assert "refused" in line
    assert PASSWORD not in line


def test_the_log_has_the_status_of_an_upstream_that_fails(upstream, caplog):
    upstream.talk = loopback.respond(status="503 Down")

    report()

    assert "GET /health returned 503" in caplog.text


@pytest.mark.parametrize(
    ("url", "address"),
    [
        (f"mongodb://u:{PASSWORD}@a:1,b:2/d?replicaSet=rs0", "a:1,b:2"),
        (f"mongodb+srv://u:{PASSWORD}@cluster.example.org", "cluster.example.org"),
        (f"unix://u:{PASSWORD}@/run/redis.sock?db=1", "/run/redis.sock"),
        ("unix:///run/redis.sock", "/run/redis.sock"),
        ("https://example.org/auth", "example.org"),
        ("https://example.org/@auth", "example.org"),
        (f"https://u:p@example.org:1?key=a@{PASSWORD}", "example.org:1"),
    ],
)
def test_an_address_has_no_password(url, address):
    assert health.Dependency(url, lambda: None).address == address


@contextmanager
def service(folder, **environment):
    """Run the service under gunicorn as in production, and yield its address."""
    port = process.free_port()
    settings = {
        "ENVIRONMENT": "test",
        "PORT": str(port),
        "WEB_CONCURRENCY": "1",
        "PYTHONWARNINGS": "default",
    }
    with (folder / "gunicorn.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "-c", "config/gunicorn.conf.py", "config.wsgi"],
            env=os.environ | settings | environment,  # noqa: TID251
            stdout=log,
            stderr=log,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for_answer(address, server)
        yield address
    finally:
        server.terminate()
        server.wait(60)


def wait_for_answer(address: str, server: subprocess.Popen) -> None:
    def responds() -> bool:
        assert server.poll() is None
        try:
            requests.get(f"{address}/health/live", timeout=60)
        except requests.ConnectionError:
            return False
        return True

    eventually(responds)


def fetch(url: str) -> tuple[int, dict]:
    response = requests.get(url, timeout=60)
    return response.status_code, response.json()


def test_a_report_is_made_while_everything_hangs(tmp_path):
    with ExitStack() as stack:
        silent = stack.enter_context(loopback.serving(loopback.silence))
        trickling = stack.enter_context(loopback.serving(loopback.trickle))
        address = stack.enter_context(
            service(
                tmp_path,
                MONGODB_URL=f"mongodb://{silent}/?replicaSet=rs0",
                REDIS_URL=f"redis://{silent}/0",
                AUTH_SERVICE_URL=f"http://{trickling}",
                CHARACTERS_SERVICE_URL=f"http://{silent}",
                MESSAGE_SERVICE_URL=f"http://{silent}",
            )
        )
        with ThreadPoolExecutor(8) as pool:
            responses = list(pool.map(fetch, [f"{address}/health"] * 8))
        retry_after = [
            requests.get(f"{address}{path}", timeout=60).headers.get("Retry-After")
            for path in ("/health", "/health/ready")
        ]
        ready_status, ready = fetch(f"{address}/health/ready")
        live_status, _ = fetch(f"{address}/health/live")

    assert {status for status, _ in responses} == {503}
    body = responses[0][1]
    assert body["status"] == "unhealthy"
    assert set(statuses(body).values()) == {"unhealthy"}
    assert (ready_status, ready["status"]) == (503, "not_ready")
    assert live_status == 200
    assert retry_after == ["2", "2"]


@pytest.fixture
def own_mongodb(tmp_path):
    """A MongoDB that a test may freeze or stop, with a client for it."""
    with mongod(tmp_path / "mongodb") as url, pymongo.MongoClient(url) as client:
        yield SimpleNamespace(url=url, admin=client.admin)


def test_a_frozen_mongodb_is_unhealthy(tmp_path, own_mongodb):
    pid = own_mongodb.admin.command("serverStatus")["pid"]
    with service(tmp_path, MONGODB_URL=own_mongodb.url) as address:
        eventually(lambda: fetch(f"{address}/health/ready") == (200, {"status": "ready"}))

        os.kill(pid, signal.SIGSTOP)
        try:
            status, body = fetch(f"{address}/health/ready")
            report_status, report_body = fetch(f"{address}/health")
        finally:
            os.kill(pid, signal.SIGCONT)

    assert (status, body["status"]) == (503, "not_ready")
    assert re.fullmatch(r"[A-Za-z]+", body["reason"])
    assert (report_status, report_body["status"]) == (503, "unhealthy")


def test_a_mongodb_without_a_primary_is_not_ready(tmp_path, own_mongodb):
    with service(tmp_path, MONGODB_URL=own_mongodb.url) as address:
        own_mongodb.admin.command("replSetStepDown", 2, force=True)

        eventually(lambda: fetch(f"{address}/health/ready")[0] == 503)
        eventually(lambda: fetch(f"{address}/health/ready")[0] == 200)


def test_reads_succeed_during_an_election(tmp_path, own_mongodb):
    absent_id = "64b7f0f0f0f0f0f0f0f0f0f0"
    headers = {"Authorization": f"Bearer {token()}"}

    def read(address: str) -> set[int]:
        ends = time.monotonic() + 4
        return {
            requests.get(f"{address}{PATH}/{absent_id}", headers=headers, timeout=60).status_code
            for _ in iter(lambda: time.monotonic() < ends, False)
        }

    with service(tmp_path, MONGODB_URL=own_mongodb.url) as address, ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read, address) for _ in range(4)]
        time.sleep(0.5)
        own_mongodb.admin.command("replSetStepDown", 2, force=True)

        assert [reader.result() for reader in readers] == [{404}] * 4


def test_a_stopped_mongodb_is_not_ready(tmp_path):
    gone = f"mongodb://{loopback.closed_port()}/?replicaSet=rs0"

    with service(tmp_path, MONGODB_URL=gone) as address:
        status, body = fetch(f"{address}/health/ready")

    log = (tmp_path / "gunicorn.log").read_text()
    # On a busy machine the probe ends before the refusal is known: the reason then says so.
    assert re.search(r"mongodb at 127.0.0.1:\d+ is unhealthy: \S", log)
    assert status == 503
    assert body == {"status": "not_ready", "reason": "mongodb"}
