"""A load by wrk, and what the server that bears it spends."""

import itertools
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks import ruler
from benchmarks.servers import ROOT, Server

OPERATIONS = ("list", "get", "create", "patch", "mix")
CONNECTIONS = 8
ANSWER_S = 30
SCRIPT = Path(__file__).with_name("requests.lua")

_seeds = itertools.count(os.getpid() * 1_000)


@dataclass(frozen=True)
class Shot:
    """Some seconds of one operation against one server. `bad` answers make it void."""

    requests: int
    rate: float
    cpu_us: float
    p50_ms: float
    p99_ms: float
    memory_mib: float
    bad: int


def shoot(
    server: Server, operation: str, tokens: Path, *, seconds: float, connections: int = CONNECTIONS
) -> Shot:
    """Keep that many connections busy, each with one request after the other."""
    environment = os.environ | {
        "OP": operation,
        "TOKENS": str(tokens),
        "SEED": str(next(_seeds)),
    }
    before = ruler.cpu_s(server.pid)
    finished = subprocess.run(  # noqa: S603
        [
            *(find(), "--threads=1", f"--connections={connections}", f"--duration={seconds:.0f}s"),
            *(f"--timeout={ANSWER_S}s", f"--script={SCRIPT}", server.url),
        ],
        env=environment,
        capture_output=True,
        text=True,
        timeout=seconds + 2 * ANSWER_S,
        check=True,
    )
    spent = ruler.cpu_s(server.pid) - before
    result = json.loads(finished.stderr.splitlines()[-1])
    return Shot(
        requests=result["requests"],
        rate=result["requests"] / result["duration_us"] * 1e6,
        cpu_us=spent / max(1, result["requests"]) * 1e6,
        p50_ms=result["p50_us"] / 1e3,
        p99_ms=result["p99_us"] / 1e3,
        memory_mib=ruler.memory_mib(server.pid),
        bad=result["refused"] + result["failed"],
    )


def find() -> str:
    own = ROOT / ".tools" / "bin" / "wrk"
    if found := shutil.which(own) or shutil.which("wrk"):
        return found
    sys.exit("There is no wrk here, which makes the load: `apt-get install wrk`.")
