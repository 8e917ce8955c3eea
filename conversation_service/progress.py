"""How long-running commands tell how far they are: a bar on a terminal, plain lines in a log.

And how they end when they are told to.
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


def track(items: Iterable[T], *, total: int, what: str, out: Any) -> Iterator[T]:
    """Yield the items. `total` may be an estimate; `out` is a command's stderr."""
    if out.isatty():
        # Django would end each state of the bar with a line break, if it went through `out`.
        yield from tqdm(items, total=total, desc=what, unit="", file=sys.stderr)
        return
    began = told = time.monotonic()
    for number, item in enumerate(items, start=1):
        yield item
        if time.monotonic() - told >= LINE_EVERY_S:
            told = time.monotonic()
            rate = number / (told - began)
            out.write(f"{what}: {number:,} of about {total:,}, {rate:,.0f}/s")


@contextmanager
def stopped_by_signals() -> Iterator[list[int]]:
    """Give a list that the first Ctrl-C or SIGTERM is put into; a second one ends the process."""
    received: list[int] = []

    def receive(number: int, frame: FrameType | None) -> None:
        received.append(number)
        signal.signal(number, before[number])

    before: dict[int, Any] = {n: signal.signal(n, receive) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def watched(look: Callable[[], tuple[int, int] | None], *, what: str, out: Any) -> Iterator[None]:
    """Tell meanwhile how far another's work is, which `look` returns as done and total."""
    ended = Event()

    def watch() -> None:
        with tqdm(desc=what, unit="", file=sys.stderr, disable=not out.isatty()) as bar:
            while not ended.wait(LINE_EVERY_S if bar.disable else BAR_EVERY_S):
                if not (at := look()):
                    continue
                if bar.disable:
                    out.write("{}: {:,} of about {:,}".format(what, *at))
                else:
                    bar.n, bar.total = at
                    bar.refresh()

    watcher = Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


@contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Let SIGTERM raise KeyboardInterrupt, as Ctrl-C does: for one long call to a server.

    Ctrl-C too, where a shell started this in the background and made it deaf to that.
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
