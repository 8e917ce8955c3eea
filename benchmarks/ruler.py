"""What a server costs: the CPU and the memory of its processes, as Linux accounts for them.

On a machine shared with others, and with the load itself, requests per second swing by a third;
CPU per request holds within some percent. Therefore it is what is compared.
"""

import os
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
MIB = 1024 * 1024
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

# Of /proc/PID/stat, counted from what follows the name.
_PARENT, _USER, _SYSTEM, _RESIDENT = 1, 11, 12, 21


def cpu_s(root: int) -> float:
    """Return the seconds that a process and its descendants have worked, in user and system."""
    ticks = sum(int(row[_USER]) + int(row[_SYSTEM]) for row in _tree(root))
    return ticks / TICKS_PER_S


def memory_mib(root: int) -> float:
    """Return the resident memory of the largest process of the tree: that is a worker."""
    return max(int(row[_RESIDENT]) for row in _tree(root)) * PAGE_BYTES / MIB


def _tree(root: int) -> Iterator[list[str]]:
    rows = dict(_processes())
    wanted = [root]
    while wanted:
        pid = wanted.pop()
        yield rows[pid]
        wanted += [child for child, row in rows.items() if int(row[_PARENT]) == pid]


def _processes() -> Iterator[tuple[int, list[str]]]:
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = entry.read_text()
        except (FileNotFoundError, ProcessLookupError):  # ended meanwhile
            continue
        # A name may hold blanks and parentheses; what follows its end does not.
        yield int(entry.parent.name), text.rpartition(")")[2].split()


@dataclass(frozen=True)
class Measured:
    """The median of some rounds, and how far they lie apart: half their range, in percent."""

    median: float
    spread: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Measured":
        median = statistics.median(values)
        return cls(median, 50 * (max(values) - min(values)) / median if median else 0.0)
