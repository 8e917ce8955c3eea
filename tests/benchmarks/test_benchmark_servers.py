"""The measuring servers measure correctly. No test asserts a duration."""

import subprocess
import sys
from contextlib import ExitStack

import pytest
from django.conf import settings

from benchmarks import answers, ruler
from benchmarks.load.wrk import Shot
from benchmarks.rounds import Row
from benchmarks.ruler import Measured
from benchmarks.servers import Bench
from config.env import env
from tests.factories import PATH, conversation, token

# A child with a name that is hard to read, and a grandchild that works, then waits.
FAMILY = """
import subprocess, sys
open("/proc/self/comm", "w").write("a) R 1 (b")
subprocess.run([sys.executable, "-c", sys.argv[1]])
"""
WORKS = """
import time
while time.process_time() < 0.3: pass
print("done", flush=True)
input()
"""
GROWS = """
held = b"x" * (64 * 1024 * 1024)
print("done", flush=True)
input()
"""


@pytest.fixture
def family():
    """Start a process with a busy child, and return its id when the child is done."""
    with ExitStack() as ending:

        def start(does):
            child = ending.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", FAMILY, does],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
            )
            assert child.stdout.readline() == b"done\n"
            return child.pid

        yield start


def test_cpu_of_a_server_includes_its_workers(family):
    assert ruler.cpu_s(family(WORKS)) >= 0.25


def test_memory_of_a_server_is_its_largest_process(family):
    assert 64 < ruler.memory_mib(family(GROWS)) < 128


def test_the_spread_is_half_the_range():
    assert Measured.of([90, 120, 100]) == Measured(median=100, spread=15)


def shot(*, cpu_us: float, bad: int = 0) -> Shot:
    return Shot(1_000, rate=1, cpu_us=cpu_us, p50_ms=1, p99_ms=1, memory_mib=1, bad=bad)


def test_servers_are_compared_round_by_round():
    quiet_then_busy = Row("list", "bare", [shot(cpu_us=100), shot(cpu_us=900)])
    other = Row("list", "peer", [shot(cpu_us=50), shot(cpu_us=450)])

    assert quiet_then_busy.ratio(other) == Measured(median=2, spread=0)


def test_a_rejected_request_makes_a_row_void():
    assert Row("list", "bare", [shot(cpu_us=1), shot(cpu_us=1, bad=1)]).void
    assert not Row("list", "bare", [shot(cpu_us=1), shot(cpu_us=1)]).void


def test_equal_times_in_two_formats_are_equal():
    mine = {"at": "2026-01-01T00:00:00.000Z", "next_cursor": "a"}
    theirs = {"at": "2026-01-01T00:00:00+00:00", "next_cursor": "b"}

    assert answers.plain(mine, answers.CURSOR) == answers.plain(theirs, answers.CURSOR)


def test_the_floor_responds_as_the_service_does(alice):
    rows = [conversation(alice, title="Café con Luna", tags=["casual"]) for _ in range(22)]
    database = settings.DATABASES["default"]["NAME"]
    with ExitStack() as started:
        bench = Bench(started, env("MONGODB_URL"), env("REDIS_URL"), settings.JWT_SECRET_KEY)
        floor = bench.floor(database)
        listed = answers.ask(floor, token(), "GET", f"{PATH}?limit=20")
        one = answers.ask(floor, token(), "GET", f"{PATH}/{rows[0]['id']}")

    assert answers.plain(listed, answers.CURSOR) == answers.plain(
        alice.get(f"{PATH}?limit=20").json(), answers.CURSOR
    )
    assert answers.plain(one, frozenset()) == answers.plain(rows[0], frozenset())
