"""Preparation by the master before its first worker, and cleanup at its end."""

import os
import resource
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.config.processes import environment, eventually
from tests.config.test_gunicorn import COMMAND, serving


def start(**variables: str) -> subprocess.CompletedProcess:
    """Start gunicorn with an invalid configuration."""
    return subprocess.run(
        [*COMMAND, "tests.config.waiting_app:application"],
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def metrics_folders(parent: Path) -> list[Path]:
    return list(parent.glob("*metrics-*"))


def test_metrics_of_a_killed_master_are_removed_at_the_next_start(tmp_path):
    folder = tmp_path / "shared"
    folder.mkdir()
    (folder / "metrics-of-another-program").mkdir()
    variables = {"WORKER_TMP_DIR": str(folder), "PROMETHEUS_MULTIPROC_DIR": ""}
    with serving(tmp_path / "killed", **variables) as server:
        [abandoned] = set(metrics_folders(folder)) - {folder / "metrics-of-another-program"}
        server.process.send_signal(signal.SIGKILL)
        server.process.wait(60)
    assert abandoned.exists()

    with serving(tmp_path / "first", **variables):
        assert not abandoned.exists()
        [first] = set(metrics_folders(folder)) - {folder / "metrics-of-another-program"}
        with serving(tmp_path / "second", **variables) as second:
            assert len(metrics_folders(folder)) == 3
            assert any(first.glob("*.db"))
            assert second.get("/").ok
        assert first.exists()

    assert metrics_folders(folder) == [folder / "metrics-of-another-program"]


def test_an_unusable_folder_is_named_with_its_variable(tmp_path):
    refused = start(WORKER_TMP_DIR=str(tmp_path / "nowhere"))

    assert refused.returncode == 1
    assert refused.stderr.strip() == (
        f"WORKER_TMP_DIR is {tmp_path}/nowhere, which is not a folder that can be written to."
    )


def test_a_metrics_folder_that_cannot_be_created_is_named_with_its_variable(tmp_path):
    (tmp_path / "file").touch()

    refused = start(PROMETHEUS_MULTIPROC_DIR=str(tmp_path / "file" / "metrics"))

    assert refused.returncode == 1
    assert "PROMETHEUS_MULTIPROC_DIR is " in refused.stderr
    assert "Traceback" not in refused.stderr


def test_without_shared_memory_the_temporary_folder_is_used(monkeypatch):
    shared_memory = "/dev/shm"  # noqa: S108
    monkeypatch.setattr(os, "access", lambda path, *modes: path != shared_memory)

    configuration = runpy.run_path("config/gunicorn.conf.py")

    assert configuration["usable_tmp_dir"](shared_memory) is None


def test_workers_raise_their_descriptor_limit_to_the_maximum(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        with serving(tmp_path / "log") as server:
            children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
            eventually(children.read_text)
            worker = int(children.read_text().split()[0])
            assert resource.prlimit(worker, resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("entry", ["django.setup()", "import config.wsgi"])
def test_a_start_does_not_search_for_libraries(entry):
    program = f"""
import django, sys
started = []
sys.addaudithook(lambda event, data: event == "subprocess.Popen" and started.append(data))
{entry}
import django_mongodb_backend.base
print(started)
"""
    settings = environment(DJANGO_SETTINGS_MODULE="config.settings.test")

    started = subprocess.check_output([sys.executable, "-c", program], env=settings, text=True)

    assert started == "[]\n"


def test_the_configuration_is_checked_with_a_safe_path_too():
    done = start(PYTHONSAFEPATH="1", TRASH_DAYS="none")

    assert "TRASH_DAYS is 'none'" in done.stderr
