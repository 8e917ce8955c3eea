"""The launcher of `make run` as a developer runs it, in a folder and on ports of its own."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from config.env import env
from conversation_service.development import launcher as local
from conversation_service.development.process import free_port, responds
from conversation_service.development.stand_ins.auth import auth
from tests.config.processes import environment, eventually, listening, mentioning
from tests.conversation_service import loopback

COMMAND = [sys.executable, "-X", "dev", "-m", "conversation_service.development.launcher"]


class Launcher:
    def __init__(self, var: Path) -> None:
        self.var = var
        self.port = free_port()
        self.upstreams = {
            f"{name}_SERVICE_URL": f"http://127.0.0.1:{free_port()}"
            for name in ("AUTH", "CHARACTERS", "MESSAGE")
        }
        self.log = var.with_name("log")
        self.started: list[subprocess.Popen] = []

    def environment(self, **changes: str) -> dict[str, str]:
        own = {
            "ENVIRONMENT": "development",
            "DJANGO_SETTINGS_MODULE": "config.settings.development",
            "VAR_DIR": str(self.var),
            "PORT": str(self.port),
            "EMBEDDED_MONGODB_PORT": "0",
            "WEB_CONCURRENCY": "1",
            "MONGODB_URL": "",
            "REDIS_URL": "",
            **self.upstreams,
        }
        return environment(**own | changes)

    def start(self, **changes: str) -> subprocess.Popen:
        with self.log.open("wb") as output:
            process = subprocess.Popen(
                COMMAND, env=self.environment(**changes), stdout=output, stderr=output
            )
        self.started.append(process)
        return process

    def stop(self) -> None:
        for process in self.started:
            process.terminate()
            process.wait(20)

    def fail(self, **changes: str) -> str:
        """Run the launcher where it must not start, and return its output."""
        done = subprocess.run(
            COMMAND,
            env=self.environment(**changes),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        return done.stderr

    def says(self, text: str) -> bool:
        assert self.started[-1].poll() is None, self.log.read_text()
        return text in self.log.read_text()

    def runs(self) -> bool:
        return self.says("Ctrl-C stops it")

    def get(self, url: str) -> str:
        with requests.Session() as session:
            session.trust_env = False  # a proxy cannot reach this machine
            return session.get(url, timeout=10).text

    def curl(self, number: int, **proxies: str) -> int:
        """Run one of the curl lines that the banner proposes, and return the status."""
        text = self.log.read_text().replace("\\\n", "")
        before = [line for line in text.splitlines() if line.startswith(("export no_", "TOKEN="))]
        lines = [line for line in text.splitlines() if line.startswith("curl")]
        command = f"{lines[number]} -s -o /dev/null -w '%{{http_code}}'"
        done = subprocess.run(
            ["/bin/sh", "-c", "; ".join([*before, command])],
            env=self.environment(**proxies),
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
        return int(done.stdout)


@pytest.fixture
def launcher(tmp_path):
    launcher = Launcher(tmp_path / "var")
    yield launcher
    launcher.stop()


def test_it_serves_until_it_is_stopped_and_leaves_no_process_behind(launcher):
    running = launcher.start()
    eventually(launcher.runs)

    assert [launcher.curl(number) for number in range(3)] == [200, 200, 201]
    for url in launcher.upstreams.values():
        assert "healthy" in launcher.get(f"{url}/health")
    assert f"as process {running.pid}" in launcher.fail()

    running.send_signal(signal.SIGTERM)
    assert running.wait(20) == 0
    assert mentioning(launcher.var) == []
    assert "Error" not in launcher.log.read_text()


def test_it_starts_again_after_it_was_killed(launcher):
    killed = launcher.start()
    eventually(lambda: launcher.says("Listening at"))
    killed.kill()
    killed.wait()

    launcher.start()
    eventually(launcher.runs)

    launcher.stop()
    assert mentioning(launcher.var) == []


def test_a_slow_api_is_not_reported_as_live(monkeypatch):
    monkeypatch.setattr(local, "ANSWER_S", 0.1)
    with loopback.serving(loopback.silence) as address:
        monkeypatch.setattr(local, "URL", f"http://{address}")

        assert not local.is_live()


def test_a_busy_port_is_named_before_anything_starts(launcher):
    with listening() as busy:
        port = busy.getsockname()[1]

        message = launcher.fail(PORT=str(port))

    assert f"Port {port} cannot be used: Address already in use" in message
    assert "make run" in message
    assert not (launcher.var / "mongodb").exists()


def test_a_mongodb_that_does_not_respond_is_reported(launcher):
    port = free_port()
    message = launcher.fail(MONGODB_URL=f"mongodb://127.0.0.1:{port}", MONGODB_TIMEOUT_MS="300")

    assert f"The MongoDB in MONGODB_URL cannot be used: 127.0.0.1:{port}" in message
    assert "Connection refused" in message


def test_no_stand_in_starts_if_the_port_of_an_upstream_is_taken(launcher):
    with listening() as real:
        port = real.getsockname()[1]
        launcher.start(AUTH_SERVICE_URL=f"http://127.0.0.1:{port}")
        eventually(launcher.runs)

    assert launcher.says(f"No stand-ins for the upstreams: 127.0.0.1:{port} is not free.")


def test_a_folder_that_cannot_be_used_is_named(launcher, tmp_path):
    (tmp_path / "file").touch()

    message = launcher.fail(VAR_DIR=str(tmp_path / "file" / "var"))

    assert f"VAR_DIR is {tmp_path}/file/var" in message
    assert "Not a directory" in message


def test_it_is_for_development_only(launcher):
    assert "development only" in launcher.fail(ENVIRONMENT="production")


@pytest.fixture
def proxies():
    """Variables of a company network with a proxy that cannot be reached."""
    proxy = f"http://{loopback.closed_port()}"
    names = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    return dict.fromkeys(names, proxy) | {"no_proxy": "10.0.0.0/8", "NO_PROXY": "10.0.0.0/8"}


def test_it_starts_and_its_commands_work_with_proxy_variables(launcher, proxies):
    launcher.start(**proxies)
    eventually(launcher.runs)

    assert [launcher.curl(number, **proxies) for number in range(3)] == [200, 200, 201]
    message = launcher.upstreams["MESSAGE_SERVICE_URL"]
    assert "healthy" in launcher.get(f"{message}/health")


def test_without_a_proxy_its_commands_have_no_proxy_exceptions(monkeypatch):
    monkeypatch.setattr(local, "getproxies", dict)

    assert local.no_proxy() == ""


def test_a_benchmark_does_not_use_a_proxy_for_its_servers(monkeypatch, proxies):
    for name, value in proxies.items():
        monkeypatch.setenv(name, value)
    with auth(0) as server:
        assert responds(f"http://127.0.0.1:{server.server_address[1]}/health", timeout_s=5)


@pytest.mark.parametrize("host", ["::", "[::]", "::1"])
def test_it_listens_on_ipv6(launcher, host):
    launcher.start(HOST=host, MONGODB_URL=env("MONGODB_URL"), REDIS_URL=env("REDIS_URL"))
    eventually(launcher.runs)

    assert [launcher.curl(number) for number in range(3)] == [200, 200, 201]
    probe = [sys.executable, "-m", "config.probe", "/health/live"]
    assert subprocess.run(probe, env=launcher.environment(HOST=host), check=False).returncode == 0


@pytest.mark.parametrize(
    "host", ["x86_64-conda-linux-gnu", "arm64-apple-darwin20.0.0", "192.0.2.1"]
)
def test_a_host_that_is_not_local_is_named(launcher, host):
    message = launcher.fail(HOST=host)

    assert f"HOST is {host!r}" in message
    assert "127.0.0.1" in message
    assert "PORT" not in message
    assert not (launcher.var / "mongodb").exists()


def test_wrong_variables_are_listed_without_a_traceback(launcher):
    message = launcher.fail(TRASH_DAYS="-1", REDIS_URL="redis:1", RATE_LIMT_LIST="5")

    assert len(message.splitlines()) == 4
    assert all(name in message for name in ("TRASH_DAYS", "REDIS_URL", "RATE_LIMT_LIST"))
    assert not launcher.var.exists()
