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


def application(environ, start_response):
    wait_s = float(parse_qs(environ["QUERY_STRING"]).get("s", ["0"])[0])
    response = ACTIONS[environ["PATH_INFO"]](environ, wait_s)
    start_response("200 OK", [("Content-Length", str(len(response)))])
    return [response]


def nothing(environ, wait_s):
    return b"quick"


def sleep(environ, wait_s):
    time.sleep(wait_s)
    return b"slept"


def block(environ, wait_s):
    """Keep all greenlets of the worker waiting."""
    ends = time.monotonic() + wait_s
    while time.monotonic() < ends:
        pass
    return b"blocked"


def wait_for_mongodb(environ, wait_s):
    with collection("nothing_happens_here").watch(max_await_time_ms=int(wait_s * 1000)) as stream:
        stream.try_next()
    return b"waited"


def wait_for_valkey(environ, wait_s):
    valkey.blpop(["nothing_is_pushed_here"], timeout=wait_s)
    return b"waited"


def wait_for_upstream(environ, wait_s):
    port = environ["SERVER_PORT"]
    return requests.get(f"http://127.0.0.1:{port}/sleep?s={wait_s}", timeout=10).content


def read_body(environ, wait_s):
    return environ["wsgi.input"].read()


def long_response(environ, wait_s):
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
