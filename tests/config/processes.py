"""Helpers of the tests that run whole processes."""

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path


def environment(**changes: str) -> dict[str, str]:
    return os.environ | changes  # noqa: TID251


def eventually(
    condition: Callable[[], object], *, within_s: float = 60, log: Path | None = None
) -> None:
    """Wait for a condition; a failure shows the log."""
    deadline = time.monotonic() + within_s
    while not condition():
        shown = log.read_text() if log else ""
        assert time.monotonic() < deadline, f"not within {within_s} s\n{shown}"
        time.sleep(0.05)


def mentioning(text: Path | str) -> list[str]:
    """Return the command lines of all running processes that mention a text."""
    lines = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(entry.read_text().replace("\0", " "))
        except OSError:  # ended meanwhile
            continue
    return [line for line in lines if str(text) in line]


def is_open(port: int) -> bool:
    """Return True if a server accepts connections at a port of this machine."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def listening() -> socket.socket:
    """Return a socket that keeps a free port of this machine busy."""
    return socket.create_server(("127.0.0.1", 0))
