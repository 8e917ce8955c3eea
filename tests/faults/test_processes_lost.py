"""Confirmed writes survive the end of workers and masters, and a planned end breaks no request."""

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

import pytest

from conversation_service.development.process import free_port
from tests.config.processes import eventually
from tests.config.test_gunicorn import Server
from tests.faults.load import Load
from tests.faults.service import one_mongodb, service, workers_of

pytestmark = pytest.mark.faults

MASTERS = 10  # each tenth kill is of a master
# A request waits in the kernel while a worker starts: 2 s, or more on a busy machine.
START_S = 30.0
BEFORE_S = 3.0  # of load, before a planned stop
PRE_STOP_S = 3.0


class Service:
    """The service on one port, which can be started again."""

    def __init__(self, folder: Path, mongodb_url: str) -> None:
        self._log = folder / "log"
        self._url = mongodb_url
        self._stack = ExitStack()
        self.port = free_port()
        self.server: Server
        self.start()

    def start(self) -> None:
        self.server = self._stack.enter_context(service(self._log, self._url, PORT=str(self.port)))
        eventually(lambda: len(self.workers()) == 2)

    def stop(self) -> None:
        self._stack.close()

    def workers(self) -> list[int]:
        return workers_of(self.server)

    def kill_worker(self) -> None:
        killed = random.choice(self.workers())
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: killed not in self.workers() and len(self.workers()) == 2)

    def kill_master(self) -> None:
        self.server.process.kill()
        self.server.process.wait()
        self.stop()
        self.start()

    def reload(self) -> None:
        former = self.workers()
        self.server.process.send_signal(signal.SIGHUP)
        eventually(lambda: not {*former} & {*self.workers()})


@pytest.fixture
def running(tmp_path) -> Iterator[Service]:
    with one_mongodb(tmp_path) as url:
        running = Service(tmp_path, url)
        try:
            yield running
        finally:
            running.stop()


def test_killed_workers_and_masters_lose_no_confirmed_write(running, kills, report):
    recovered_s: dict[str, list[float]] = {"worker": [], "master": []}
    with Load(running.port, budget_s=START_S) as load:
        time.sleep(BEFORE_S)
        for number in range(1, kills + 1):
            kind = "worker" if number % MASTERS else "master"
            began = time.monotonic()
            with load.cut():
                if kind == "worker":
                    running.kill_worker()
                else:
                    running.kill_master()
                recovered_s[kind].append(load.wait_until_recovered(began))
            time.sleep(random.uniform(0, 0.5))
    differences = load.differences()
    recovery = "; ".join(
        f"{len(seconds)} {kind}s, recovery median {median(seconds):.1f} s, "
        f"worst {max(seconds):.1f} s"
        for kind, seconds in recovered_s.items()
        if seconds
    )
    report(f"killed: {recovery}; {load.summary()}; {len(differences)} differences")

    assert not differences, "\n".join(differences)
    assert not load.faults, "\n".join(load.faults)


@contextmanager
def stopping(load: Load) -> Iterator[None]:
    """Let connections be refused, but not break, until the end."""
    load.is_down.set()
    try:
        yield
    finally:
        load.is_down.clear()


@pytest.mark.parametrize("stop", ["reload", "stop", "end of a pod"])
def test_a_planned_stop_breaks_no_request(stop, running, rounds, report):
    with Load(running.port, budget_s=START_S, readers=8, followers=4) as load:
        for _ in range(rounds):
            time.sleep(BEFORE_S)
            if stop == "reload":
                running.reload()
                continue
            if stop == "end of a pod":
                running.server.process.send_signal(signal.SIGUSR1)
                time.sleep(PRE_STOP_S)
            with stopping(load):
                running.stop()
                running.start()
        time.sleep(BEFORE_S)
    differences = load.differences()
    report(
        f"{stop}: {rounds} rounds; {load.summary()}; {load.streams} streams ended; "
        f"{len(load.faults)} failed requests"
    )

    assert not differences, "\n".join(differences)
    assert not load.faults, "\n".join(load.faults)
