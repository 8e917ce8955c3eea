"""One interleaved run over a few servers, in a minute or two.

    python -m benchmarks.compare --ops get,list --rounds 5 --seconds 4
    python -m benchmarks.compare --against ../before --servers bare,floor

`--against` adds this service as it is in another checkout, called "before". The ratio is that of
CPU per request, round by round, to the first server.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import answers, data, rounds
from benchmarks.answers import DifferentAnswers
from benchmarks.data import Size
from benchmarks.load.wrk import OPERATIONS
from benchmarks.rounds import Row
from benchmarks.servers import SHIPPED, VAR, Bench, Server, bench
from conversation_service.development.process import CannotStart

SERVERS = ("shipped", "bare", "peer", "floor")


def main() -> None:
    options = arguments()
    size = Size(options.size)
    try:
        with bench(options.data) as running:
            data.prepare(running, size)
            tokens = data.callers(running, size)
            servers = [start(running, name, size) for name in options.servers]
            if options.against:
                servers.append(
                    running.service(
                        size.database, name="before", checkout=options.against.resolve()
                    )
                )
            answers.compare(servers, tokens)
            for operation in options.ops:
                rows = rounds.run(
                    servers, [operation], tokens, rounds=options.rounds, seconds=options.seconds
                )
                show(rows)
    except (CannotStart, DifferentAnswers) as error:
        sys.exit(str(error))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ops", type=several(OPERATIONS), default=["list", "get"])
    parser.add_argument("--servers", type=several(SERVERS), default=["shipped", "bare", "peer"])
    parser.add_argument("--against", type=Path, metavar="CHECKOUT")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--size", type=int, default=50_000, help="conversations (%(default)s)")
    parser.add_argument("--data", type=Path, default=VAR, help="where MongoDB keeps them")
    return parser.parse_args()


def several(allowed: Sequence[str]) -> Callable[[str], list[str]]:
    def split(text: str) -> list[str]:
        names = text.split(",")
        if unknown := set(names) - set(allowed):
            raise argparse.ArgumentTypeError(f"{unknown} are none of {', '.join(allowed)}")
        return names

    return split


def start(running: Bench, name: str, size: Size) -> Server:
    if name == "bare":
        return running.service(size.database)
    if name == "shipped":
        return running.service(size.database, name=name, switches=SHIPPED)
    return running.peer(size.database) if name == "peer" else running.floor(size.database)


def show(rows: Sequence[Row]) -> None:
    for row in rows:
        cpu, ratio = row.measured("cpu_us"), row.ratio(rows[0])
        print(
            f"{row.operation:7}{row.server:11}"
            f"{cpu.median:7.0f} µs CPU/request ±{cpu.spread:3.0f} %"
            f"{ratio.median:7.2f} x"
            f"  p50 {row.measured('p50_ms').median:6.1f} ms"
            f"  p99 {row.measured('p99_ms').median:6.1f} ms"
            f"{row.measured('rate').median:7.0f} requests/s"
            f"{row.measured('memory_mib').median:6.0f} MiB{'  VOID' if row.void else ''}",
            flush=True,
        )


if __name__ == "__main__":
    main()
