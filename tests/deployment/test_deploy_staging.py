"""scripts/deploy-staging.sh, with the real Compose file and a stand-in for the engine."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.config.processes import environment
from tests.deployment.docker_stand_in import digest_of

pytestmark = pytest.mark.deployment

ROOT = Path(__file__).resolve().parents[2]
FORMER, NEW = (f"{tag}@{digest_of(tag)}" for tag in ("1.0.0", "2.0.0"))


class Host:
    """The staging host: what its engine runs, which commands fail, and which ran."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._state = folder / "state.json"
        (folder / "docker").symlink_to(ROOT / "tests/deployment/docker_stand_in.py")

    def deploy(self, *options: str, running: str = "", fails: tuple[str, ...] = ()):
        self._state.write_text(json.dumps({"running": running, "fails": fails, "commands": []}))
        return subprocess.run(
            [ROOT / "scripts/deploy-staging.sh", *options],
            env=environment(
                PATH=f"{self._folder}:{environment()['PATH']}",
                DOCKER_STAND_IN=str(self._state),
                DOCKER_COMPOSE=str(ROOT / ".tools/bin/docker-compose"),
                ALLOWED_HOSTS="console.staging.company.com",
            ),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @property
    def running(self) -> str:
        return json.loads(self._state.read_text())["running"]

    @property
    def changes(self) -> list[str]:
        commands = json.loads(self._state.read_text())["commands"]
        return [
            command for command in commands if command.startswith(("pull", "run", "up", "exec"))
        ]


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def test_a_release_prepares_starts_and_runs_the_smoke_test(host):
    done = host.deploy("--version", "2.0.0", running=FORMER)

    assert done.returncode == 0, done.stderr
    assert host.changes == ["pull 2.0.0", f"run {NEW}", f"up {NEW}", f"exec {NEW}"]


def test_a_tag_is_pinned_to_the_pulled_digest(host):
    host.deploy("--version", "2.0.0")

    assert host.running == NEW


def test_a_version_that_does_not_become_healthy_is_rolled_back(host):
    done = host.deploy("--version", "2.0.0", running=FORMER, fails=("up 2.0.0",))

    assert done.returncode == 5
    assert host.changes[-2:] == [f"up {NEW}", f"up {FORMER}"]
    assert host.running == FORMER
    assert "migrations only go forward" in done.stdout
    assert f"{FORMER} serves again" in done.stderr


def test_a_version_that_fails_the_smoke_test_is_rolled_back(host):
    done = host.deploy("--version", "2.0.0", running=FORMER, fails=("exec 2.0.0",))

    assert done.returncode == 5
    assert host.running == FORMER


def test_a_rollback_uses_the_digest_of_the_previous_tag(host):
    host.deploy("--version", "2.0.0", running="1.0.0", fails=("exec 2.0.0",))

    assert host.running == FORMER


def test_a_failed_first_release_has_no_rollback(host):
    done = host.deploy("--version", "2.0.0", fails=("up 2.0.0",))

    assert done.returncode == 6
    assert "there is no former version" in done.stderr


def test_two_failures_in_a_row_are_reported(host):
    done = host.deploy("--version", "2.0.0", running=FORMER, fails=("up 2.0.0", "up 1.0.0"))

    assert done.returncode == 6
    assert f"{FORMER} does not become healthy either" in done.stderr


def test_nothing_is_started_if_the_preparation_fails(host):
    done = host.deploy("--version", "2.0.0", running=FORMER, fails=("run 2.0.0",))

    assert done.returncode == 4
    assert host.running == FORMER
    assert host.changes[-1] == f"run {NEW}"


def test_a_missing_image_changes_nothing(host):
    done = host.deploy("--version", "2.0.0", running=FORMER, fails=("pull 2.0.0",))

    assert done.returncode == 3
    assert host.changes == ["pull 2.0.0"]


def test_a_dry_run_shows_every_step_and_changes_nothing(host):
    done = host.deploy("--version", NEW, "--dry-run", running=FORMER)

    assert done.returncode == 0, done.stderr
    assert host.changes == []
    shown = [line for line in done.stdout.splitlines() if line.startswith("+ ")]
    words = ("pull", "prepare", "up", "exec")
    assert len(shown) == len(words)
    assert all(word in line.split() for word, line in zip(words, shown, strict=True))
    assert "--wait" in shown[2].split()


@pytest.mark.parametrize("version", ["", "latest", "1.0.0@sha256:12", "1.0.0 --build"])
def test_inexact_arguments_are_rejected(host, version):
    done = host.deploy("--version", version)

    assert done.returncode == 2
    assert "--version" in done.stderr
