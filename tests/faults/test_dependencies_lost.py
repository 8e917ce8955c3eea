"""The service responds in time while Valkey or an upstream fails, and recovers by itself."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.faults.load import ALLOWED, SUCCESSES, Load
from tests.faults.programs import NAMES, Program, running
from tests.faults.service import one_mongodb, service

pytestmark = pytest.mark.faults

BEFORE_S = 2.0
HOLD_S = 5.0
# A request spends NEIGHBOUR_BUDGET_S, 3 s, on upstreams. The rest is for the machine.
BUDGET_S = 3.0 + 1.5
# Without these, no request of a user fails.
OPTIONAL = {"valkey", "message"}


@contextmanager
def killed(program: Program) -> Iterator[None]:
    program.kill()
    yield
    program.start()


@contextmanager
def frozen(program: Program) -> Iterator[None]:
    program.freeze()
    try:
        yield
    finally:
        program.thaw()


@contextmanager
def full(program: Program) -> Iterator[None]:
    program.be_full(is_full=True)
    yield
    program.be_full(is_full=False)


@contextmanager
def restarted(program: Program) -> Iterator[None]:
    program.kill()
    program.start()
    yield


FAULTS: dict[str, Callable] = {
    "killed": killed,
    "frozen": frozen,
    "full": full,
    "restarted": restarted,
}


@pytest.fixture
def programs(tmp_path) -> Iterator[dict[str, Program]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(running(name, tmp_path)) for name in NAMES}


def variables(programs: dict[str, Program]) -> dict[str, str]:
    ports = {name: program.port for name, program in programs.items()}
    urls = {f"{name.upper()}_SERVICE_URL": f"http://127.0.0.1:{ports[name]}" for name in ports}
    del urls["VALKEY_SERVICE_URL"]
    return urls | {
        "REDIS_URL": f"redis://127.0.0.1:{ports['valkey']}/0",
        "AUTH_REMOTE_VALIDATION": "true",
        "CHARACTER_CHECK": "strict",
        "RATE_LIMIT_ENABLED": "true",
    }


@pytest.mark.parametrize("name", NAMES)
def test_responses_are_in_time_and_the_service_recovers_by_itself(
    name: str, programs: dict[str, Program], report: Callable[[str], None], tmp_path: Path
) -> None:
    program = programs[name]
    allowed = SUCCESSES if name in OPTIONAL else ALLOWED
    with (
        one_mongodb(tmp_path) as url,
        service(tmp_path / "log", url, **variables(programs)) as server,
    ):
        with Load(server.port, budget_s=BUDGET_S, allowed=allowed) as load:
            for fault, stage in FAULTS.items():
                time.sleep(BEFORE_S)
                with stage(program):
                    time.sleep(HOLD_S)
                recovered_s = load.wait_until_recovered(time.monotonic())
                report(f"{name} {fault} for {HOLD_S:.0f} s: {recovered_s:.1f} s to recover")
        differences = load.differences()
    report(f"{name}: {load.summary()}; {len(load.faults)} faults")

    assert not differences, "\n".join(differences)
    assert not load.faults, "\n".join(load.faults)
