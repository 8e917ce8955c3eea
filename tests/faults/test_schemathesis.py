"""schemathesis tests docs/openapi.json as two users and a service, with all checks."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from config.env import BASE_DIR
from tests.documented import OPERATIONS
from tests.factories import token
from tests.faults.fuzzed import CASES, MESSAGE, SLOWEST_S, fuzzed

pytestmark = pytest.mark.faults

PROGRAM = BASE_DIR / ".tools" / "faults" / "bin" / "schemathesis"
USERS = ("alice", "bob")
# Of each user, without random requests: the examples, and the coverage of each schema.
FIXED_CASES = 2_300


def start(name: str, url: str, folder: Path) -> subprocess.Popen:
    folder.mkdir()
    # Random requests alone, and as sequences.
    of_each_operation = (CASES // len(USERS) - FIXED_CASES) // (2 * len(OPERATIONS))
    command = [
        *(PROGRAM, "--config-file", Path(__file__).parent / "schemathesis.toml"),
        *("run", BASE_DIR / "docs" / "openapi.json", "--url", url, "--checks", "all"),
        *("--max-examples", max(1, of_each_operation), "--max-response-time", SLOWEST_S),
        *("--continue-on-failure", "--no-color", "--report", "ndjson", "--report-dir", folder),
    ]
    tokens = {"USER_TOKEN": token(name), "SERVICE_TOKEN": token("message", **MESSAGE)}
    return subprocess.Popen(
        [str(word) for word in command],
        cwd=folder,  # it keeps failures in .schemathesis, and repeats them
        env=os.environ | tokens | {"PYTHONPATH": str(BASE_DIR)},  # noqa: TID251
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_every_response_is_as_documented(django_db_setup, tmp_path, report):
    with fuzzed(tmp_path / "log") as server:
        url = f"http://127.0.0.1:{server.port}"
        processes = {name: start(name, url, tmp_path / name) for name in USERS}
        printed = {name: process.communicate()[0] for name, process in processes.items()}

    for name, text in printed.items():
        report(f"schemathesis as {name}: {', '.join(re.findall(r'[0-9]+ generated.*', text))}")
    assert [text for name, text in printed.items() if processes[name].returncode] == []
