"""`python -m config.probe`: the health check of a container."""

import subprocess
import sys
from pathlib import Path

import pytest

from conversation_service.development import process
from conversation_service.development.stand_ins.auth import auth
from tests.config.processes import environment

ROOT = Path(__file__).resolve().parents[2]


def probe(path: str, *, port: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "config.probe", path],
        cwd=ROOT,
        env=environment(PORT=str(port)),
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_good_response_on_the_configured_port_is_a_success():
    with auth(0) as server:
        found = probe("/health", port=server.server_address[1])

    assert (found.returncode, found.stderr) == (0, "")


def test_a_bad_response_is_reported():
    with auth(0) as server:
        server.mode = "error"
        found = probe("/health", port=server.server_address[1])

    assert found.returncode == 1
    assert found.stderr.startswith("/health responds 500: ")


@pytest.mark.parametrize("path", ["/health/live", "/health/ready"])
def test_a_missing_response_is_reported(path):
    found = probe(path, port=process.free_port())

    assert found.returncode == 1
    assert found.stderr.startswith(f"{path} does not respond: ")
