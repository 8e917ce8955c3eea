"""What shows only after a while, or with a second worker."""

from dataclasses import dataclass
from pathlib import Path

from benchmarks import rounds
from benchmarks.load.wrk import shoot
from benchmarks.ruler import Measured
from benchmarks.servers import Server

STRETCH_S = 10.0


@dataclass(frozen=True)
class Memory:
    """Of a worker, in MiB: after so many requests, and what the second half of them added."""

    requests: int
    after: float
    growth: float
    bad: int

    @property
    def growth_percent(self) -> float:
        return 100 * self.growth / self.after


def memory(server: Server, tokens: Path, *, requests: int) -> Memory:
    served = bad = 0
    halfway = now = 0.0
    while served < requests:
        shot = shoot(server, "mix", tokens, seconds=STRETCH_S)
        served, bad, now = served + shot.requests, bad + shot.bad, shot.memory_mib
        if served >= requests / 2 and not halfway:
            halfway = now
    return Memory(served, now, now - halfway, bad)


@dataclass(frozen=True)
class Workers:
    """Two workers against one: requests per second as they came, and as CPU allows.

    If two cores also run the load and MongoDB, the second worker has no core to itself. Then only
    the CPU time per request shows the rate of two workers on their own cores.
    """

    rate: Measured
    by_cpu: Measured


def workers(one: Server, two: Server, tokens: Path, *, rounds_: int, seconds: float) -> Workers:
    single, double = rounds.run([one, two], ["mix"], tokens, rounds=rounds_, seconds=seconds)
    cheaper = single.ratio(double)
    return Workers(double.ratio(single, "rate"), Measured(2 * cheaper.median, cheaper.spread))
