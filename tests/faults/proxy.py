"""A TCP proxy on loopback that can be cut, as a network."""

import socket
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from threading import Thread
from typing import Self

CHUNK = 256 * 1024
LOOK_S = 0.2


class Proxy:
    """Forwards connections to a port while `is_cut` is false for the client's port.

    While it is true, no bytes arrive in either direction. Afterwards a connection that has lost
    bytes ends.
    """

    def __init__(self, port: int, is_cut: Callable[[int], bool]) -> None:
        self._target = port
        self._is_cut = is_cut
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = int(self._listener.getsockname()[1])

    def __enter__(self) -> Self:
        Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, (_, client_port) = self._listener.accept()
                Thread(target=self._serve, args=(client, client_port), daemon=True).start()

    def _serve(self, client: socket.socket, client_port: int) -> None:
        with closing(client), suppress(OSError):
            server = socket.create_connection(("127.0.0.1", self._target))
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with closing(server):
                back = Thread(target=self._forward, args=(server, client, client_port), daemon=True)
                back.start()
                self._forward(client, server, client_port)
                back.join()

    def _forward(self, source: socket.socket, target: socket.socket, client_port: int) -> None:
        with suppress(OSError):
            while received := source.recv(CHUNK):
                if self._is_cut(client_port):
                    while self._is_cut(client_port):
                        time.sleep(LOOK_S)
                    break
                target.sendall(received)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)


def owns_port(pid: int, port: int) -> bool:
    """Return True if a process has a connection from this port of loopback. Linux only."""
    local = f":{port:04X}"
    inodes = {
        columns[9]
        for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
        if (columns := line.split())[1].endswith(local)
    }
    with suppress(FileNotFoundError):  # a descriptor was closed meanwhile
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                if str(descriptor.readlink())[8:-1] in inodes:  # socket:[123]
                    return True
    return False
