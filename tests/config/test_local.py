"""`python -m config.local` as a developer runs it, in a folder and on ports of its own."""

import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from config import local
from conversation_service.embedded.process import free_port
from tests.config.processes import environment, eventually, listening, mentioning
from tests.conversation_service import loopback

COMMAND = [sys.executable, "-X", "dev", "-m", "config.local"]


class Launcher:
    def __init__(self, var: Path) -> None:
        self.var = var
        self.port = free_port()
        self.neighbours = {
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
            **self.neighbours,
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
        """Run it where it must not start, and return what it says."""
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
        with urllib.request.urlopen(url, timeout=10) as response:
            return response.read().decode()

    def curl(self, number: int) -> int:
        """Run one of the curl lines that the banner proposes, and return the status."""
        text = self.log.read_text().replace("\\\n", "")
        token = next(line for line in text.splitlines() if line.startswith("TOKEN="))
        lines = [line for line in text.splitlines() if line.startswith("curl")]
        done = subprocess.run(
            ["/bin/sh", "-c", f"{token}; {lines[number]} -s -o /dev/null -w '%{{http_code}}'"],
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


def test_it_serves_until_it_is_told_to_stop_and_leaves_nothing_behind(launcher):
    running = launcher.start()
    eventually(launcher.runs)

    assert [launcher.curl(number) for number in range(3)] == [200, 200, 201]
    for url in launcher.neighbours.values():
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


def test_an_api_that_takes_its_time_is_not_live_yet(monkeypatch):
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


def test_a_mongodb_that_does_not_answer_is_reported(launcher):
    message = launcher.fail(
        MONGODB_URL=f"mongodb://127.0.0.1:{free_port()}", MONGODB_TIMEOUT_MS="300"
    )

    assert "does not answer" in message
    assert "MONGODB_URL" in message


def test_it_stands_in_for_no_neighbour_while_one_is_there(launcher):
    with listening() as real:
        port = real.getsockname()[1]
        launcher.start(AUTH_SERVICE_URL=f"http://127.0.0.1:{port}")
        eventually(launcher.runs)

    assert launcher.says(f"Not standing in for the neighbours: 127.0.0.1:{port} is not free.")


def test_it_is_for_development_only(launcher):
    assert "development only" in launcher.fail(ENVIRONMENT="production")
