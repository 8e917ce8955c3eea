"""The progress of a long command, on a terminal and in a log."""

import os
import pty
import signal
import subprocess
import sys
import termios
from contextlib import suppress
from io import StringIO
from threading import Event

from django.core.management.base import OutputWrapper

from conversation_service import progress

TRACKED = """
import sys
from django.core.management.base import OutputWrapper
from conversation_service.progress import track
list(track(range(3), total=3, what="Read", out=OutputWrapper(sys.stderr)))
"""
WATCHED = """
import sys
from threading import Semaphore
from django.core.management.base import OutputWrapper
from conversation_service import progress
progress.BAR_EVERY_S = 0.01
looks = Semaphore(0)
with progress.watched(
    lambda: looks.release() or (2, 3), what="Build", out=OutputWrapper(sys.stderr)
):
    for _ in range(3):
        assert looks.acquire(timeout=60)
"""


def on_a_terminal(program):
    """Run a program; return the output on its terminal."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    subprocess.run([sys.executable, "-c", program], stderr=theirs, timeout=60, check=True)
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # the end of a terminal
        while read := os.read(ours, 65_536):
            shown += read
    os.close(ours)
    return shown.decode()


def test_a_terminal_shows_one_changing_line():
    shown = on_a_terminal(TRACKED)

    assert "3/3" in shown
    assert shown.count("\n") == 1


def test_progress_of_another_process_is_a_bar():
    shown = on_a_terminal(WATCHED)

    assert "2/3" in shown
    assert shown.count("\n") == 1


def test_a_log_gets_plain_lines_at_intervals(monkeypatch):
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    log = StringIO()

    list(progress.track(range(2_000), total=2_000, what="Read", out=OutputWrapper(log)))

    first, *_, last = log.getvalue().splitlines()
    assert first.startswith("Read: 1 of about 2,000, ")
    assert last.startswith("Read: 2,000 of about 2,000, ")


def test_a_total_can_be_unknown(monkeypatch):
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    log = StringIO()

    list(progress.track(range(2), total=None, what="Batches", out=OutputWrapper(log)))

    assert log.getvalue().startswith("Batches: 1, ")


def test_a_signal_that_arrives_at_once_is_recorded(monkeypatch):
    numbers = [signal.SIGINT, signal.SIGTERM]
    former = [signal.getsignal(number) for number in numbers]
    set_handler = signal.signal

    def set_and_receive(number, handler):
        set_handler(number, handler)
        if handler not in former:
            signal.raise_signal(number)

    monkeypatch.setattr(signal, "signal", set_and_receive)
    with progress.stopped_by_signals() as received:
        assert received == numbers

    assert [signal.getsignal(number) for number in numbers] == former


def test_progress_of_another_process_never_runs_backwards(monkeypatch):
    """An index build reads all documents, and then writes the keys from the beginning."""
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.01)
    printed = StringIO()
    states = iter([(150_000, 200_000), (199_000, 200_000), (118_000, 200_000), (5, 10)])
    done = Event()

    def look():
        state = next(states, None)
        if state is None:
            done.set()
        return state

    with progress.watched(look, what="Build", out=OutputWrapper(printed)):
        assert done.wait(60)

    assert printed.getvalue().splitlines() == [
        "Build, step 1: 150,000 of about 200,000",
        "Build, step 1: 199,000 of about 200,000",
        "Build, step 2: 118,000 of about 200,000",
        "Build, step 3: 5 of about 10",
    ]
