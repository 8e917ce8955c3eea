"""Options and the report of `make faults`."""

from collections.abc import Callable
from pathlib import Path

import pytest

REPORT = Path("var/faults.txt")
OPTIONS = {
    "--rounds": (2, "rounds of each fault of MongoDB and of each stop under load"),
    "--kills": (30, "kills of workers and masters"),
    "--backlog": (100_000, "events in the backlog of a webhook"),
    "--soak-minutes": (2, "minutes of mixed load"),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    for name, (default, meaning) in OPTIONS.items():
        parser.addoption(name, type=int, default=default, help=f"{meaning} (default {default})")


def option(request: pytest.FixtureRequest, name: str) -> int:
    # pytest reads the options above only if its command line names this folder.
    return int(request.config.getoption(name, OPTIONS[name][0]))


@pytest.fixture
def rounds(request) -> int:
    return option(request, "--rounds")


@pytest.fixture
def kills(request) -> int:
    return option(request, "--kills")


@pytest.fixture
def backlog(request) -> int:
    return option(request, "--backlog")


@pytest.fixture
def soak_minutes(request) -> int:
    return option(request, "--soak-minutes")


@pytest.fixture(scope="session")
def report_file() -> Path:
    """An empty file for this run's report."""
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text("")
    return REPORT


@pytest.fixture
def report(report_file, capsys) -> Callable[[str], None]:
    """Write a line of the report to its file and to the terminal."""

    def write(line: str) -> None:
        with report_file.open("a") as file, capsys.disabled():
            print(line, file=file)
            print(line, flush=True)  # noqa: T201

    return write
