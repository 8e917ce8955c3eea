"""CPU per request of each server, as a picture."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.report import Results

SERVERS: Sequence[tuple[str, str]] = [
    ("shipped", "#2f6f9f"),
    ("bare", "#8fbcd9"),
    ("peer", "#e0a458"),
    ("floor", "#9aa5b1"),
]
WIDTH = 0.2


def draw(results: Results, path: Path) -> None:
    # The same numbers give the same file, and words stay words.
    mpl.rcParams |= {"svg.hashsalt": "performance", "svg.fonttype": "none"}
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    for number, (server, colour) in enumerate(SERVERS):
        rows = [
            (place, row.measured("cpu_us").median)
            for place, operation in enumerate(results.operations)
            if (row := results.row(operation, server)) and not row.void
        ]
        places = [place + (number - 1.5) * WIDTH for place, _ in rows]
        bars = axes.bar(places, [cpu for _, cpu in rows], WIDTH, label=server, color=colour)
        axes.bar_label(bars, fmt="{:,.0f}", fontsize=7)
    axes.set_xticks(range(len(results.operations)), results.operations)
    axes.set_ylabel("CPU per request, µs")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, ncols=len(SERVERS), loc="lower center", bbox_to_anchor=(0.5, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
