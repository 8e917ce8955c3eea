"""Plain log lines: one per record, with any input of a client."""

import json
import logging
import re
import subprocess
import sys

import pytest

from conversation_service import clock
from conversation_service.observability.logs import EcsObjects, Lines
from tests.config.processes import environment
from tests.config.test_gunicorn import serving

FORMAT = "{asctime} {levelname} {name} [{request_id}] {message}"
FORGED = "2026-11-27 00:00:00,000 INFO forged [-] admin logged in"
UNSAFE = {
    "line feed": "\n",
    "carriage return": "\r",
    "escape": "\x1b[31m",
    "backspace": "\x08",
    "null": "\0",
    "delete": "\x7f",
    "next line (C1)": "\x85",
    "control sequence introducer (C1)": "\x9b31m",
    "vertical tab": "\v",
    "form feed": "\f",
    "line separator": "\u2028",
    "paragraph separator": "\u2029",
    "right-to-left override": "\u202e",
    "right-to-left isolate": "\u2067",
    "zero width space": "\u200b",
    "lone surrogate": "\udc80",
}
each = pytest.mark.parametrize("text", UNSAFE.values(), ids=UNSAFE)


def record(message, *arguments, exc_info=None, **fields):
    logger = logging.getLogger("tests")
    extra = {"request_id": "-"} | fields
    return logger.makeRecord(
        *("tests", logging.ERROR, "", 0, message, arguments, exc_info), extra=extra
    )


def lines(*arguments, **options):
    return Lines(FORMAT, style="{").format(record(*arguments, **options)).splitlines()


def failure(text):
    """Return an error with a text and a cause, as `exc_info`."""
    try:
        try:
            raise KeyError(text)
        except KeyError as cause:
            raise ValueError(text) from cause
    except ValueError as error:
        return type(error), error, error.__traceback__


@each
def test_a_logged_value_stays_in_its_line_and_sends_nothing_to_a_terminal(text):
    [line] = lines("GET %s", f"/x{text}{FORGED}")

    assert line.isprintable()
    assert FORGED in line


@each
def test_a_logged_request_id_stays_in_its_line(text):
    [line] = lines("x", request_id=f"{text}{FORGED}")

    assert line.isprintable()


@each
def test_a_traceback_follows_its_record_and_starts_no_new_one(text):
    first, *below = lines("x", exc_info=failure(f"{text}{FORGED}"))

    assert not first.startswith(" ")
    assert all(line.startswith("  ") and line.isprintable() for line in below)
    assert "Traceback (most recent call last):" in below[0]


@each
def test_a_logged_value_stays_in_its_object_and_sends_nothing_to_a_terminal(text):
    fields = {"url.path": f"/x{text}", "event.start": clock.now(), "labels.x": object()}
    line = EcsObjects().format(record("GET %s", f"/x{text}", **fields))

    assert line.isascii()
    assert len(line.splitlines()) == 1
    assert json.loads(line)["message"] == f"GET /x{text}"
    assert json.loads(line)["url"]["path"] == f"/x{text}"


def test_an_object_has_the_whole_traceback():
    line = EcsObjects({"service.name": "x"}).format(record("failed", exc_info=failure("b")))

    logged = json.loads(line)
    assert logged["error"]["type"] == "ValueError"
    assert "KeyError: 'b'" in logged["error"]["stack_trace"]
    assert logged["service"] == {"name": "x"}


def test_printable_text_is_unchanged():
    [line] = lines("%s", "¿Qué? 日本語 😀 C:\\new")

    assert line.endswith("¿Qué? 日本語 😀 C:\\new")


def test_a_document_in_a_mongodb_error_is_removed_to_its_end():
    text = "E11000 duplicate key error dup key: { title: 'a\nsecret words' }"

    for formatter in (Lines(FORMAT, style="{"), EcsObjects()):
        logged = formatter.format(record("%s", text, exc_info=failure(text)))
        assert "secret words" not in logged
        assert "dup key left out" in logged


def test_a_formatter_writes_its_own_traceback_after_another_formatter():
    entry = record("x", exc_info=failure(f"\n{FORGED}"))
    logging.Formatter().format(entry)

    assert f"\n{FORGED}" not in Lines(FORMAT, style="{").format(entry)


def test_a_path_forges_no_line_of_a_real_server(tmp_path):
    path = "/api/v1/x%0a" + FORGED.replace(" ", "%20") + "%1b[31m%e2%80%a8%c2%9b%0d"
    options = {"LOG_FORMAT": "line", "ACCESS_LOG": "true"}
    with serving(tmp_path / "log", "config.wsgi:application", **options) as server:
        server.send(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        server.send(b"GET / HTTP/1.1\r\nX-Request-ID: a\x1b[31m\r\nConnection: close\r\n\r\n")

    logged = (tmp_path / "log").read_text()
    assert r"/api/v1/x\n2026-11-27" in logged
    assert not re.search(f"^{re.escape(FORGED)}", logged, re.MULTILINE)
    assert all(line.isprintable() for line in logged.split("\n"))


def test_development_writes_each_failure_once():
    """The access log has the status of each request; Django adds the traceback of an exception."""
    program = (
        "import django, logging; django.setup(); "
        "log = logging.getLogger('django.request'); "
        "log.error('Service Unavailable: /health'); "
        "log.error('Internal Server Error: /x', exc_info=ValueError('a bug'))"
    )
    development = environment(
        ENVIRONMENT="development", DJANGO_SETTINGS_MODULE="config.settings.development"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=development, capture_output=True, text=True, check=True
    )

    printed = done.stdout + done.stderr
    assert "Service Unavailable" not in printed
    assert printed.count("Internal Server Error: /x") == 1
    assert printed.count("ValueError: a bug") == 1
