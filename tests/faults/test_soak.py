"""Memory, connections and descriptors do not grow under a mixed load."""

import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from pymongo import MongoClient

from tests.faults.load import SUCCESSES, Load
from tests.faults.service import BUDGET_S, one_mongodb, service, workers_of

pytestmark = pytest.mark.faults

SAMPLE_S = 5.0
GROWTH = 0.05


def memory_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    [resident] = [line.split()[1] for line in lines if line.startswith("VmRSS:")]
    return int(resident) / 1024


def sample(workers: list[int], mongodb: Any) -> dict[str, float]:
    return {
        "memory in MiB": sum(map(memory_mib, workers)),
        "connections to MongoDB": mongodb.command("serverStatus")["connections"]["current"],
        "descriptors": sum(len([*Path(f"/proc/{pid}/fd").iterdir()]) for pid in workers),
    }


def growth(values: list[float]) -> float:
    """Compare the last quarter with the one before: the first half fills caches and pools."""
    quarter = len(values) // 4
    return mean(values[-quarter:]) / mean(values[-2 * quarter : -quarter]) - 1


def test_memory_and_connections_do_not_grow(soak_minutes, report, tmp_path):
    with (
        one_mongodb(tmp_path) as url,
        MongoClient[Any](url) as mongodb,
        service(tmp_path / "log", url) as server,
    ):
        workers = workers_of(server)
        with Load(
            server.port,
            budget_s=BUDGET_S,
            readers=8,
            followers=8,
            pause_s=0.05,
            allowed=SUCCESSES,
        ) as load:
            samples = [*samples_of(workers, mongodb.admin, soak_minutes * 60)]
        differences = load.differences()
        still = workers_of(server)
    columns = {name: [each[name] for each in samples] for name in samples[0]}
    report(f"soak, {soak_minutes} minutes: {load.summary()}; {len(load.faults)} faults")
    for name, values in columns.items():
        report(
            f"soak, {name}: {values[0]:.0f} at first, {values[len(values) // 2]:.0f} at half, "
            f"{values[-1]:.0f} at the end; last quarter {growth(values):+.1%}"
        )

    assert not differences, "\n".join(differences)
    assert not load.faults, "\n".join(load.faults)
    assert still == workers
    assert {
        name: growth(values) for name, values in columns.items() if growth(values) > GROWTH
    } == {}


def samples_of(workers: list[int], mongodb: Any, seconds: float) -> Iterator[dict[str, float]]:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        time.sleep(SAMPLE_S)
        yield sample(workers, mongodb)
