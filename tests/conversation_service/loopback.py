"""Real servers on loopback that behave, hang or trickle."""

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Thread

Talk = Callable[[socket.socket], object]


class _Server(ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 64


@contextmanager
def serving(talk: Talk) -> Iterator[str]:
    """Run `talk` for each connection, each in a thread; yield host:port."""

    class Handler(BaseRequestHandler):
        def handle(self):
            with suppress(OSError):
                talk(self.request)

    with _Server(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            yield "{}:{}".format(*server.server_address)
        finally:
            server.shutdown()


def secured(certificate: Path, talk: Talk) -> Talk:
    """Encrypt the connection, then run `talk`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def talk_secured(channel: socket.socket) -> None:
        with context.wrap_socket(channel, server_side=True) as encrypted:
            talk(encrypted)

    return talk_secured


def closed_port() -> str:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return "{}:{}".format(*unused.getsockname())


def respond(body: bytes = b"{}", *, status: str = "200 OK", headers: str = "") -> Talk:
    headers += "Connection: close\r\n"
    return lambda channel: reply(channel, body, status=status, headers=headers)


def reply(channel: socket.socket, body: bytes, *, status: str = "200 OK", headers: str = "") -> str:
    """Respond to one HTTP request and return its first line."""
    request = b""
    while b"\r\n\r\n" not in request:
        if not (received := channel.recv(65536)):
            return ""
        request += received
    write(channel, body, status=status, headers=headers)
    return request.split(b"\r\n")[0].decode()


def write(
    channel: socket.socket, body: bytes, *, status: str = "200 OK", headers: str = ""
) -> None:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    channel.sendall(head.encode() + body)


def silence(channel: socket.socket) -> None:
    """Accept and read, and never respond."""
    while channel.recv(65536):
        pass


def trickle(channel: socket.socket) -> None:
    """Send a header that never ends, a byte at a time: no single read is ever late."""
    channel.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        channel.sendall(b"x")
        time.sleep(0.05)
