"""A small application that waits in each way of the service. Served by test_gunicorn.py."""

import tempfile
import time
from urllib.parse import parse_qs

import django
import redis
import requests

from config.env import env
from conversation_service.mongodb.connection import collection
from conversation_service.server import connection, worker

django.setup()
valkey = redis.Redis.from_url(env("REDIS_URL"))
BLOCKED_S = 2
LONGEST_S = 60  # ends the wait of a test that has failed


def application(environ, start_response):
    """Run the action of the path, until the key `until` is in Valkey if the action waits.

    Counts the requests with a key: tests.config.test_gunicorn.Wait.
    """
    key = parse_qs(environ["QUERY_STRING"]).get("until", [""])[0]
    if key:
        valkey.incr(f"{key}:arrived")
    response = ACTIONS[environ["PATH_INFO"]](environ, key)
    start_response("200 OK", [("Content-Length", str(len(response)))])
    return [response]


def nothing(environ, key):
    return b"quick"


def sleep(environ, key):
    ends = time.monotonic() + LONGEST_S
    while not valkey.exists(key) and time.monotonic() < ends:
        time.sleep(0.01)
    return b"slept"


def block(environ, key):
    """Keep all greenlets of the worker waiting."""
    ends = time.monotonic() + BLOCKED_S
    while time.monotonic() < ends:
        pass
    return b"blocked"


def wait_for_mongodb(environ, key):
    """Wait in a statement; a write to `waited_for` ends it."""
    wait_ms = LONGEST_S * 1_000
    with collection("waited_for").watch(max_await_time_ms=wait_ms) as stream:
        stream.try_next()
    return b"waited"


def wait_for_valkey(environ, key):
    """Wait in a command; a push to `waited_for` ends it."""
    valkey.blpop(["waited_for"], timeout=LONGEST_S)
    return b"waited"


def wait_for_upstream(environ, key):
    port = environ["SERVER_PORT"]
    return requests.get(f"http://127.0.0.1:{port}/sleep?until={key}", timeout=LONGEST_S).content


def read_body(environ, key):
    return environ["wsgi.input"].read()


def long_response(environ, key):
    return b"a" * 1_000_000


ACTIONS = {
    "/long": long_response,
    "/": nothing,
    "/sleep": sleep,
    "/block": block,
    "/mongodb": wait_for_mongodb,
    "/valkey": wait_for_valkey,
    "/upstream": wait_for_upstream,
    "/body": read_body,
}


def frugal(environ, start_response):
    """As `application`, on a server that holds two long responses for slow readers, not three."""
    connection.UNREAD_BYTES = 2_500_000
    return application(environ, start_response)


def hurried(environ, start_response):
    """As `application`, on a worker that stops listening soon after SIGTERM."""
    worker.DRAIN_S = 0.0
    return application(environ, start_response)


def impatient(environ, start_response):
    """Send 10 MB, to be read at 64 KiB a second at least; a function of its own for each way."""
    connection.SEND_S = 1.0
    start_response("200 OK", [("Content-Type", "text/plain")])
    return LONG[environ["PATH_INFO"]](environ)


LONG = {
    "/": lambda environ: [b"quick"],
    "/rows": lambda environ: (b"a" * 1_000 for _ in range(10_000)),
    "/one": lambda environ: [b"a" * 10_000_000],
    "/file": lambda environ: environ["wsgi.file_wrapper"](a_file()),
}


def a_file():
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the server closes it
    file.write(b"a" * 10_000_000)
    file.seek(0)
    return file
