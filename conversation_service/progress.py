"""The progress of long commands, and how signals end them.

Progress is a bar on a terminal, and lines in a log.
"""

import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import Event, Thread, current_thread, main_thread
from types import FrameType
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")

LINE_EVERY_S = 10.0
BAR_EVERY_S = 0.5


def track(items: Iterable[T], *, total: int | None, what: str, out: Any) -> Iterator[T]:
    """Yield the items, and print the progress.

    `total` can be an estimate, or None if it is unknown; `out` is stderr.
    """
    if out.isatty():
        # Through `out`, Django would add a line break to each update.
        yield from tqdm(items, total=total, desc=what, unit="", file=sys.stderr)
        return
    began = printed = time.monotonic()
    for number, item in enumerate(items, start=1):
        yield item
        if time.monotonic() - printed >= LINE_EVERY_S:
            printed = time.monotonic()
            rate = number / (printed - began)
            about = "" if total is None else f" of about {total:,}"
            out.write(f"{what}: {number:,}{about}, {rate:,.0f}/s")


@contextmanager
def stopped_by_signals() -> Iterator[list[int]]:
    """Yield a list that gets the first Ctrl-C or SIGTERM. A second signal ends the process."""
    received: list[int] = []
    # Complete before the first handler is set, as a signal can arrive at once.
    before: dict[int, Any] = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}

    def receive(number: int, frame: FrameType | None) -> None:
        received.append(number)
        signal.signal(number, before[number])

    for number in before:
        signal.signal(number, receive)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def watched(look: Callable[[], tuple[int, int] | None], *, what: str, out: Any) -> Iterator[None]:
    """Print the progress while the work runs elsewhere; `look` returns done and total.

    If `done` decreases, the work has begun its next step.
    """
    ended = Event()

    def watch() -> None:
        step, latest = 1, 0
        with tqdm(desc=what, unit="", file=sys.stderr, disable=not out.isatty()) as bar:
            while not ended.wait(LINE_EVERY_S if bar.disable else BAR_EVERY_S):
                if not (at := look()):
                    continue
                step += at[0] < latest
                latest = at[0]
                if bar.disable:
                    out.write("{}, step {}: {:,} of about {:,}".format(what, step, *at))
                else:
                    bar.n, bar.total = at
                    bar.set_description(f"{what}, step {step}")

    watcher = Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


@contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Raise KeyboardInterrupt for SIGTERM as for Ctrl-C, during a long call to a server.

    Also for Ctrl-C in a background command, where a shell ignores it.
    """
    if current_thread() is not main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
