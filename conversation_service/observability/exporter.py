"""The HTTP server of a command that runs for ever: its metrics and its health."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

TIMEOUT_S = 10.0  # for a request


@contextmanager
def serving(host: str, port: int, is_healthy: Callable[[], bool]) -> Iterator[None]:
    """Serve /metrics and /healthz (200 or 503) in a thread until the end; none on port 0.

    Raises OSError if the port is in use.
    """
    if not port:
        yield
        return

    class Handler(BaseHTTPRequestHandler):
        timeout = TIMEOUT_S

        def do_GET(self) -> None:
            status, body, kind = HTTPStatus.NOT_FOUND, b"", "text/plain"
            if self.path == "/metrics":
                status, body, kind = HTTPStatus.OK, generate_latest(), CONTENT_TYPE_LATEST
            elif self.path == "/healthz":
                status = HTTPStatus.OK if is_healthy() else HTTPStatus.SERVICE_UNAVAILABLE
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Requests of probes are not logged."""

    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    with Server((host, port), Handler) as server:
        thread = Thread(target=server.serve_forever, name="metrics", daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
