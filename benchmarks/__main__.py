"""All of it: `make bench`, or `python -m benchmarks --help`."""

import argparse
import sys
import time
from pathlib import Path

from benchmarks import answers, chart, compare, data, endurance, growth, report, rounds
from benchmarks.answers import DifferentAnswers
from benchmarks.data import Size
from benchmarks.load.wrk import OPERATIONS
from benchmarks.servers import ROOT, SHIPPED, VAR, Bench, bench
from conversation_service.development.process import CannotStart

SMALL = Size(10_000)


def main() -> None:
    options = arguments()
    try:
        with bench(options.data) as running:
            results = measure(running, options)
    except (CannotStart, DifferentAnswers) as error:
        sys.exit(str(error))
    print(f"\n{report.as_markdown(results)}")
    VAR.joinpath("results.json").write_text(report.as_json(results))
    chart.draw(results, VAR / "performance.svg")
    if options.record:
        report.record(results)
        chart.draw(results, ROOT / "docs" / "img" / f"performance-{results.size}.svg")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure this service against its yardsticks.")
    parser.add_argument("--size", type=int, default=1_000_000, help="conversations (%(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="of each load (%(default)s)")
    parser.add_argument("--seconds", type=float, default=2, help="of each shot (%(default)s)")
    parser.add_argument(
        "--requests", type=int, default=100_000, help="to watch a worker's memory (%(default)s)"
    )
    parser.add_argument(
        "--data", type=Path, default=VAR, metavar="FOLDER", help="where MongoDB keeps its data"
    )
    parser.add_argument(
        "--record", action="store_true", help="write docs/performance.md and its picture, too"
    )
    return parser.parse_args()


def measure(running: Bench, options: argparse.Namespace) -> report.Results:
    size = Size(options.size)
    say(f"Preparing {size.conversations:,} conversations ...")
    took = data.prepare(running, size)
    data.prepare(running, SMALL)
    tokens = data.callers(running, size)

    say("Starting the servers, and comparing their answers ...")
    bare, peer, floor = (
        running.service(size.database),
        running.peer(size.database),
        running.floor(size.database),
    )
    shipped = running.service(size.database, name="shipped", switches=SHIPPED)
    servers = [shipped, bare, peer, floor]
    answers.compare(servers, tokens)

    loads = {"rounds": options.rounds, "seconds": options.seconds}
    rows = []
    for operation in OPERATIONS:
        say(f"Measuring {operation} ...")
        measured = rounds.run(servers, [operation], tokens, **loads)
        compare.show(measured)
        rows += measured
    say("Measuring two workers against one ...")
    two = running.service(size.database, name="two", workers=2)
    workers = endurance.workers(bare, two, tokens, rounds_=options.rounds, seconds=options.seconds)
    say("Measuring what grows ...")
    small = running.service(SMALL.database, name="small")
    findings = []
    for finding in growth.find(running, bare, size, small, took):
        print(f"{finding.name}: {finding.value:,.2f} {finding.unit}", flush=True)
        findings.append(finding)
    say(f"Measuring the memory of a worker over {options.requests:,} requests ...")
    memory, memory_of_peer = (
        endurance.memory(server, tokens, requests=options.requests) for server in (bare, peer)
    )
    return report.Results(
        size=size.conversations,
        rounds=options.rounds,
        seconds=options.seconds,
        rows=rows,
        memory=memory,
        memory_of_peer=memory_of_peer,
        workers=workers,
        findings=findings,
    )


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


if __name__ == "__main__":
    main()
