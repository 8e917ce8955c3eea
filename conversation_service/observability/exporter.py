"""The HTTP server for the metrics and the health of a command that runs for ever."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from django.core.management.base import CommandError
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from config.env import env

TIMEOUT_S = 10.0  # for a request
STUCK_S = 120.0  # without a step


@contextmanager
def serving(port: int, active_at: Callable[[], float]) -> Iterator[None]:
    """Serve /metrics and /healthz in a thread until the end; none on port 0.

    `active_at` returns the time.monotonic() of the command's last step. After STUCK_S without a
    step, /healthz responds with 503. Raises CommandError if the port cannot be used.
    """
    if not port:
        yield
        return
    host: str = env("HOST")

    class Handler(BaseHTTPRequestHandler):
        timeout = TIMEOUT_S

        def do_GET(self) -> None:
            status, body, kind = HTTPStatus.NOT_FOUND, b"", "text/plain"
            if self.path == "/metrics":
                status, body, kind = HTTPStatus.OK, generate_latest(), CONTENT_TYPE_LATEST
            elif self.path == "/healthz":
                is_stuck = time.monotonic() - active_at() >= STUCK_S
                status = HTTPStatus.SERVICE_UNAVAILABLE if is_stuck else HTTPStatus.OK
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Requests of probes are not logged."""

    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    try:
        server = Server((host, port), Handler)
    except OSError as error:
        raise CommandError(
            f"Port {port} cannot be used, {error.strerror}. Choose another with --port."
        ) from None
    with server:
        thread = Thread(target=server.serve_forever, name="metrics", daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
