"""Common to all stand-ins: routes, JSON, /health, and a switch for failures."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from email.message import Message
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any, Self

SLOW_S = 2.0
HANG_S = 60.0
LOOPBACK = "127.0.0.1"
MODES = ("ok", "slow", "hang", "error", "nonsense")
# A longer body is rejected.
MAX_BYTES = 64 * 1024


@dataclass(frozen=True)
class Call:
    """A request: the groups of the route's pattern, the JSON body and its bytes, the headers."""

    path: dict[str, str]
    body: dict[str, Any]
    content: bytes
    headers: Message

    @property
    def token(self) -> str:
        return str(self.headers.get("Authorization", "")).removeprefix("Bearer ")


Reply = tuple[HTTPStatus, Any]
Respond = Callable[[Call], Reply]
# (method, a pattern for the whole path, the function that responds)
Route = tuple[str, str, Respond]


class StandIn(ThreadingHTTPServer):
    """A server at an address. `mode`, a word of MODES, chooses its behaviour."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, name: str, address: tuple[str, int], routes: list[Route]) -> None:
        self.name = name
        self.mode = "ok"
        self.routes = [
            ("GET", "/health", self.health),
            ("GET", "/switch", self.state),
            ("PUT", "/switch", self.switch),
            *routes,
        ]
        self.switched = Event()
        super().__init__(address, Handler)

    def __enter__(self) -> Self:
        Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.shutdown()
        self.switched.set()  # ends the requests that hang
        self.server_close()

    @property
    def url(self) -> str:
        host, port = self.server_address[:2]
        return f"http://{host!s}:{port}"

    def respond(self, method: str, path: str, call: Call) -> Reply:
        known = False
        for allowed, pattern, respond in self.routes:
            if match := re.fullmatch(pattern, path):
                known = True
                if allowed == method:
                    return respond(replace(call, path=match.groupdict()))
        if known:
            return HTTPStatus.METHOD_NOT_ALLOWED, {"detail": "Method not allowed"}
        return HTTPStatus.NOT_FOUND, {"detail": "Not found"}

    def health(self, call: Call) -> Reply:
        return HTTPStatus.OK, {"status": "healthy", "service": self.name}

    def state(self, call: Call) -> Reply:
        return HTTPStatus.OK, {"mode": self.mode}

    def switch(self, call: Call) -> Reply:
        mode = call.body.get("mode")
        if mode not in MODES:
            return HTTPStatus.UNPROCESSABLE_ENTITY, {"detail": f"mode is one of {', '.join(MODES)}"}
        self.mode = mode
        self.switched.set()
        self.switched = Event()
        return self.state(call)


class Handler(BaseHTTPRequestHandler):
    server: StandIn
    protocol_version = "HTTP/1.1"
    timeout = HANG_S
    wbufsize = -1  # head and body in one packet: a second packet would wait 40 ms for an ACK

    def handle_any(self) -> None:
        path = self.path.partition("?")[0]
        try:
            call = self._call()
        except ValueError as error:
            self._send(HTTPStatus.BAD_REQUEST, {"detail": str(error)})
            return
        if path != "/switch" and self._misbehaves():
            return
        self._send(*self.server.respond(self.command, path, call))

    do_GET = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815

    def _misbehaves(self) -> bool:
        """Apply the mode. Return True if no further response is due."""
        switched = self.server.switched
        match self.server.mode:
            case "slow":
                switched.wait(SLOW_S)
            case "hang":
                switched.wait(HANG_S)
                self.close_connection = True
                return True
            case "error":
                self._send(HTTPStatus.INTERNAL_SERVER_ERROR, {"detail": "The mode is error"})
                return True
            case "nonsense":
                self._send_bytes(HTTPStatus.OK, b"<html>It works!</html>", "text/html")
                return True
        return False

    def _call(self) -> Call:
        length = int(self.headers.get("Content-Length") or 0)
        if not 0 <= length <= MAX_BYTES:
            self.close_connection = True
            raise ValueError(f"A body has {MAX_BYTES} bytes at most")
        content = self.rfile.read(length)
        body = json.loads(content or b"{}")
        if not isinstance(body, dict):
            raise ValueError("The body is a JSON object")
        return Call({}, body, content, self.headers)

    def _send(self, status: HTTPStatus, body: Any) -> None:
        self._send_bytes(status, json.dumps(body).encode(), "application/json")

    def _send_bytes(self, status: HTTPStatus, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *message: Any) -> None:
        """Do not log: the terminal is for the service."""
