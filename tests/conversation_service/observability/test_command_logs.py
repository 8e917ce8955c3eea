"""In a cluster, each process logs ECS objects: jobs, too."""

import json
import subprocess
import sys

import pytest

from config.env import BASE_DIR
from conversation_service.development.process import free_port
from tests.config.processes import environment
from tests.conversation_service.test_commands import FOR_EVER
from tests.deployment.test_configuration import commands
from tests.deployment.test_prometheus import production


def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=BASE_DIR,
        env=environment(
            **production(**{"LOG_COMMANDS": "true", "MONGODB_DATABASE": "test_logged"} | settings)
        ),
        capture_output=True,
        text=True,
        check=False,
    )


def events(done: subprocess.CompletedProcess) -> list[dict]:
    found = [json.loads(line) for line in (done.stdout + done.stderr).splitlines()]
    for event in found:
        assert {"@timestamp", "message", "log.level", "ecs.version"} <= event.keys()
        assert event["service"]["environment"] == "production"
    return found


@pytest.fixture(scope="module", autouse=True)
def prepared():
    for command in ("migrate", "setup_indexes"):
        assert run(command).returncode == 0


@pytest.mark.parametrize("command", commands(), ids=lambda command: command[2])
def test_every_job_logs_ecs_objects_only(command):
    runs_for_ever = command[2] in FOR_EVER
    done = run(*command[2:], *(["--once"] if runs_for_ever else []))

    assert done.returncode == 0, done.stdout + done.stderr
    loggers = {event["log"]["logger"] for event in events(done)}
    assert runs_for_ever or f"manage.{command[2]}" in loggers


def test_the_numbers_of_a_job_are_in_its_message():
    *_, last = events(run("purge_trash", "--json"))

    assert json.loads(last["message"])["due"] == 0
    assert "due" not in last


def test_a_failed_smoke_test_logs_ecs_objects_only():
    done = run(
        "smoke_test", f"--base-url=http://127.0.0.1:{free_port()}", "--environment=production"
    )

    assert done.returncode != 0
    assert events(done)


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        (["purge_trash", "--unknown"], {}),
        (["purge_trash"], {"SECRET_KEY": ""}),
        (["purge_trash"], {"MONGODB_URL": "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=100"}),
    ],
    ids=["a wrong option", "a wrong configuration", "no MongoDB"],
)
def test_a_command_that_cannot_run_logs_ecs_objects_only(arguments, settings):
    done = run(*arguments, **settings)

    assert done.returncode != 0
    assert "warning" in {event["log.level"] for event in events(done)}


def test_an_exception_is_one_object_with_its_traceback():
    done = run("shell", "--verbosity=0", "--command=print('half a line', end=''); 1 / 0")

    output, error = events(done)
    assert output["message"] == "half a line"
    assert error["error"]["type"] == "ZeroDivisionError"
    assert error["log.level"] == "error"


def test_a_person_reads_text():
    done = run("purge_trash", LOG_COMMANDS="false")

    assert done.stdout == "Trash: 0 purged, 0 kept by a legal hold.\n"
