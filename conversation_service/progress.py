"""How long-running commands tell how far they are: a bar on a terminal, plain lines in a log."""

import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")

LINE_EVERY_S = 10.0


def track(items: Iterable[T], *, total: int, what: str, out: Any) -> Iterator[T]:
    """Yield the items. `total` may be an estimate; `out` is a command's stderr or stdout."""
    if out.isatty():
        yield from tqdm(items, total=total, desc=what, unit="", file=out)
        return
    told = time.monotonic()
    for number, item in enumerate(items, start=1):
        yield item
        if time.monotonic() - told >= LINE_EVERY_S:
            told = time.monotonic()
            out.write(f"{what}: {number:,} of about {total:,}")
