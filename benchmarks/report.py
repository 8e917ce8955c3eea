"""What was measured: as JSON, as tables, and against what was aimed at. Nothing here fails."""

import json
import os
import platform
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.endurance import Memory, Workers
from benchmarks.growth import Finding
from benchmarks.rounds import Row
from benchmarks.servers import ROOT

PAGE = ROOT / "docs" / "performance.md"


@dataclass(frozen=True)
class Target:
    name: str
    measured: float
    bound: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        return self.measured >= self.bound if self.at_least else self.measured <= self.bound


@dataclass(frozen=True)
class Results:
    size: int
    rounds: int
    seconds: float
    rows: Sequence[Row]
    memory: Memory
    memory_of_peer: Memory
    workers: Workers
    findings: Sequence[Finding]

    def row(self, operation: str, server: str) -> Row | None:
        for row in self.rows:
            if (row.operation, row.server) == (operation, server):
                return row
        return None

    def ratio(self, operation: str, server: str, other: str, name: str = "cpu_us") -> float | None:
        mine, theirs = self.row(operation, server), self.row(operation, other)
        if mine is None or theirs is None or mine.void or theirs.void:
            return None
        return mine.ratio(theirs, name).median

    @property
    def operations(self) -> list[str]:
        return list(dict.fromkeys(row.operation for row in self.rows))


# How much CPU a request may cost, as a multiple of what it costs the other.
CPU_BOUNDS = {
    ("list", "shipped", "peer"): 1.05,
    ("get", "shipped", "peer"): 1.3,
    ("create", "shipped", "peer"): 1.4,
    ("patch", "shipped", "peer"): 1.4,
    ("mix", "shipped", "peer"): 1.15,
    ("list", "bare", "peer"): 0.95,
    ("get", "bare", "peer"): 0.95,
    ("create", "bare", "peer"): 1.15,
    ("patch", "bare", "peer"): 1.15,
    ("mix", "bare", "peer"): 0.97,
    ("list", "bare", "floor"): 1.4,
    ("get", "bare", "floor"): 1.25,
}


def targets(results: Results) -> Iterator[Target]:
    for (operation, server, other), bound in CPU_BOUNDS.items():
        if ratio := results.ratio(operation, server, other):
            yield Target(f"{operation}: CPU of {server} / {other}", ratio, bound)
    if ratio := results.ratio("mix", "bare", "peer", "p99_ms"):
        yield Target("mix: p99 of bare / peer", ratio, 1.0)
    bare, peer = results.memory, results.memory_of_peer
    yield Target("memory of a worker in the end, bare / peer", bare.after / peer.after, 1.6)
    yield Target("percent that the second half of the requests added", bare.growth_percent, 5)
    yield Target("two workers / one, by CPU", results.workers.by_cpu.median, 1.7, at_least=True)
    for finding in results.findings:
        if finding.unit == "x":
            yield Target(finding.name, finding.value, 1.2)
        elif finding.unit == "MiB":
            yield Target(finding.name, finding.value, 16)
        elif finding.unit == "1/s":
            yield Target(f"{finding.name}, per second", finding.value, 20_000, at_least=True)


def as_json(results: Results) -> str:
    return json.dumps(
        {
            "machine": machine(),
            "size": results.size,
            "rounds": results.rounds,
            "seconds": results.seconds,
            "rows": [asdict(row) | {"void": row.void} for row in results.rows],
            "memory": asdict(results.memory),
            "memory_of_peer": asdict(results.memory_of_peer),
            "workers": asdict(results.workers),
            "findings": [asdict(finding) for finding in results.findings],
            "targets": [asdict(target) | {"met": target.met} for target in targets(results)],
        },
        indent=1,
    )


def machine() -> dict[str, Any]:
    return {
        "processor": _first(r"model name\s*: (.+)", "/proc/cpuinfo"),
        "cores": os.cpu_count(),
        "memory_gib": round(int(_first(r"MemTotal:\s+(\d+)", "/proc/meminfo")) / 2**20),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def _first(pattern: str, path: str) -> str:
    found = re.search(pattern, Path(path).read_text())
    return found[1] if found else "0"


def as_markdown(results: Results) -> str:
    chart = f"![CPU per request of each server](img/performance-{results.size}.svg)"
    parts = [
        *(_answer(results), chart, _targets(results)),
        *(_loads(results), _findings(results), _machine(results)),
    ]
    return "\n\n".join(parts) + "\n"


def _answer(results: Results) -> str:
    """Return a sentence for each configuration of the service, with its ratios to the peer."""
    configurations = {"shipped": "As shipped", "bare": "Without rate limits and access log"}
    return "\n".join(
        f"**{words}**, CPU per request is {', '.join(ratios)} times that of the peer."
        for server, words in configurations.items()
        if (ratios := [*_ratios(results, server)])
    )


def _ratios(results: Results, server: str) -> Iterator[str]:
    for operation in results.operations:
        if ratio := results.ratio(operation, server, "peer"):
            yield f"{ratio:.2f} (`{operation}`)"


def _machine(results: Results) -> str:
    known = machine()
    return (
        f"{results.size:,} conversations; {results.rounds} rounds of {results.seconds:g} s. "
        f"{known['processor']}, {known['cores']} cores, {known['memory_gib']} GiB; "
        f"{known['system']}; Python {known['python']}."
    )


def _loads(results: Results) -> str:
    head = (
        "server",
        "CPU µs/request",
        "±",
        "/ peer",
        "/ floor",
        "p50 ms",
        "p99 ms",
        "requests/s",
        "MiB",
    )
    return _table(("operation", *head), [_load(results, row) for row in results.rows])


def _load(results: Results, row: Row) -> list[str]:
    if row.void:
        return [row.operation, row.server, "void", *[""] * 7]
    cpu = row.measured("cpu_us")
    ratios = [results.ratio(row.operation, row.server, other) for other in ("peer", "floor")]
    return [
        *(row.operation, row.server, f"{cpu.median:,.0f}", f"{cpu.spread:.0f} %"),
        *(f"{ratio:.2f}" if ratio else "" for ratio in ratios),
        *(f"{row.measured(name).median:.1f}" for name in ("p50_ms", "p99_ms")),
        *(f"{row.measured(name).median:,.0f}" for name in ("rate", "memory_mib")),
    ]


def _findings(results: Results) -> str:
    memory, workers = results.memory, results.workers
    found = [
        Finding(f"a worker after {memory.requests:,} requests of the mix", memory.after, "MiB"),
        Finding("what the second half of them added", memory.growth, "MiB"),
        Finding("the peer after as many", results.memory_of_peer.after, "MiB"),
        Finding("two workers / one, requests per second here", workers.rate.median, "x"),
        Finding("two workers / one, by CPU per request", workers.by_cpu.median, "x"),
        *results.findings,
    ]
    return _table(("what", "measured"), [[row.name, _number(row)] for row in found])


def _number(row: Finding) -> str:
    digits = {"x": 2, "1/s": 0}.get(row.unit, 1)
    return f"{row.value:,.{digits}f} {row.unit}"


def _targets(results: Results) -> str:
    rows = [
        [
            target.name,
            f"{'≥' if target.at_least else '≤'} {target.bound:,g}",
            f"{target.measured:,.2f}",
            "yes" if target.met else "no",
        ]
        for target in targets(results)
    ]
    return _table(("target", "bound", "measured", "met"), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |"
        for line in lines
    )


def record(results: Results) -> None:
    """Write the tables into the page's section for this number of conversations, if it exists."""
    text = as_markdown(results)
    PAGE.write_text(place_for(results.size).sub(lambda _: f"\n{text}\n", PAGE.read_text()))


def place_for(size: int) -> re.Pattern[str]:
    return re.compile(rf"(?<=<!-- measured with {size} -->\n).*?(?=<!-- end -->)", re.DOTALL)
