"""Confirmed writes survive the loss of the primary, in each way that it can be lost."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from tests.config.processes import eventually
from tests.faults.load import Load
from tests.faults.proxy import Proxy, owns_port
from tests.faults.service import BUDGET_S, DATABASE, service
from tests.replica_set import Member, ReplicaSet, create_collections, three_members

pytestmark = pytest.mark.faults

WARM_UP_S = 2.0
DISK_MB = 320


class Cluster:
    """Three members. If a fault needs it, their network can be cut, or their disks are small."""

    def __init__(self, stack: ExitStack, fault: str) -> None:
        self._stack = stack
        self._fault = fault
        self.isolated: Member | None = None
        self.replica_set: ReplicaSet

    def prepare(self, member: Member) -> None:
        if self._fault == "cut network":
            port = member.port
            proxy = self._stack.enter_context(
                Proxy(port, lambda client_port: self._is_cut(member, client_port))
            )
            member.address = f"127.0.0.1:{proxy.port}"
        if self._fault == "full disk":
            member.data.mkdir(parents=True)
            size = f"size={DISK_MB}m"
            subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", member.data], check=True)
            unmount = ["umount", "--lazy", str(member.data)]
            self._stack.callback(lambda: subprocess.run(unmount, check=True))

    def _is_cut(self, member: Member, client_port: int) -> bool:
        isolated = self.isolated
        if isolated is None:
            return False
        return isolated is member or owns_port(isolated.pid, client_port)


# Each fault yields the time at which it began.


@contextmanager
def killed(cluster: Cluster, primary: Member) -> Iterator[float]:
    began = time.monotonic()
    primary.kill()
    yield began
    primary.start()


@contextmanager
def frozen(cluster: Cluster, primary: Member) -> Iterator[float]:
    primary.freeze()
    try:
        yield time.monotonic()
    finally:
        primary.thaw()


@contextmanager
def stepped_down(cluster: Cluster, primary: Member) -> Iterator[float]:
    began = time.monotonic()
    primary.command("replSetStepDown", 5, secondaryCatchUpPeriodSecs=5)
    yield began


@contextmanager
def cut_network(cluster: Cluster, primary: Member) -> Iterator[float]:
    cluster.isolated = primary
    try:
        yield time.monotonic()
    finally:
        cluster.isolated = None


@contextmanager
def full_disk(cluster: Cluster, primary: Member) -> Iterator[float]:
    filler = primary.data / "filler"
    fill(filler)
    with suppress(PyMongoError):
        primary.command("fsync")  # a checkpoint: MongoDB ends, as it cannot write
    yield time.monotonic()
    filler.unlink()
    primary.kill()
    primary.start()


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1024 * 1024))
        except OSError:  # no space left
            return


FAULTS: dict[str, Callable] = {
    "kill": killed,
    "freeze": frozen,
    "step-down": stepped_down,
    "cut network": cut_network,
    "full disk": full_disk,
}


@pytest.fixture
def cluster(fault, tmp_path) -> Iterator[Cluster]:
    if fault == "full disk" and os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    with ExitStack() as stack:
        cluster = Cluster(stack, fault)
        cluster.replica_set = stack.enter_context(three_members(tmp_path, cluster.prepare))
        with MongoClient[Any](cluster.replica_set.url, w="majority") as client:
            create_collections(client[DATABASE])
        yield cluster


@pytest.mark.parametrize("fault", FAULTS)
def test_no_confirmed_write_is_lost_or_doubled(fault, cluster, rounds, report, tmp_path):
    replica_set = cluster.replica_set
    recovered_s = []
    with service(tmp_path / "log", replica_set.url) as server:
        with Load(server.port, budget_s=BUDGET_S) as load:
            for number in range(1, rounds + 1):
                time.sleep(WARM_UP_S)
                primary = replica_set.primary()
                with FAULTS[fault](cluster, primary) as began:
                    recovered_s.append(load.wait_until_recovered(began))
                report(f"primary lost, {fault}, round {number}: {recovered_s[-1]:.1f} s")
                eventually(lambda: all(m.is_ready() for m in replica_set.members))
                replica_set.primary()
        differences = load.differences()
    report(
        f"primary lost, {fault}: {rounds} rounds, recovery median {median(recovered_s):.1f} s, "
        f"worst {max(recovered_s):.1f} s; {load.summary()}; {len(differences)} differences, "
        f"{len(load.faults)} faults"
    )

    assert not differences, "\n".join(differences)
    assert not load.faults, "\n".join(load.faults)
