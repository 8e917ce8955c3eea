"""Rounds over several servers in turn: what disturbs the machine disturbs them all."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load.wrk import Shot, shoot
from benchmarks.ruler import Measured
from benchmarks.servers import Server

WARM_UP_S = 1.0


@dataclass(frozen=True)
class Row:
    """All shots of one operation at one server."""

    operation: str
    server: str
    shots: Sequence[Shot]

    @property
    def void(self) -> bool:
        return any(shot.bad for shot in self.shots)

    def measured(self, name: str) -> Measured:
        return Measured.of([getattr(shot, name) for shot in self.shots])

    def ratio(self, other: "Row", name: str = "cpu_us") -> Measured:
        """Return how many times as much this one has, round by round."""
        pairs = zip(self.shots, other.shots, strict=True)
        return Measured.of([getattr(a, name) / getattr(b, name) for a, b in pairs])


def run(
    servers: Sequence[Server],
    operations: Sequence[str],
    tokens: Path,
    *,
    rounds: int,
    seconds: float,
) -> list[Row]:
    """Return a row for each operation and server; the floor knows list and get only."""
    rows = []
    for operation in operations:
        able = [server for server in servers if can(server, operation)]
        for server in able:
            shoot(server, operation, tokens, seconds=WARM_UP_S)
        shots: dict[str, list[Shot]] = {server.name: [] for server in able}
        for number in range(rounds):
            turn = number % len(able)
            for server in [*able[turn:], *able[:turn]]:
                shots[server.name].append(shoot(server, operation, tokens, seconds=seconds))
        rows += [Row(operation, name, taken) for name, taken in shots.items()]
    return rows


def can(server: Server, operation: str) -> bool:
    return server.name != "floor" or operation in {"list", "get"}
