"""A name server and a network that a test sets."""

import socket

import pytest


class Internet:
    """Names with their addresses, and servers on loopback behind public addresses.

    Each look-up of a name takes the next list of addresses; the last list stays.
    """

    def __init__(self) -> None:
        self.names: dict[str, list[list[str]]] = {}
        self.servers: dict[str, str] = {}  # host:port of a server, by the address
        self.connected: list[str] = []
        self.looked_up: list[str] = []

    def getaddrinfo(self, host, port, *_args, **_options):
        self.looked_up.append(host)
        if host not in self.names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        found = self.names[host]
        first = found.pop(0) if len(found) > 1 else found[0]
        return [
            (
                (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
                if ":" in address
                else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            )
            for address in first
        ]


@pytest.fixture
def internet(monkeypatch) -> Internet:
    net = Internet()
    connect = socket.socket.connect

    def reroute(self, address):
        host = address[0]
        net.connected.append(host)
        if host not in net.servers:
            raise OSError("Network is unreachable")
        server, port = net.servers[host].split(":")
        connect(self, (server, int(port)))

    monkeypatch.setattr(socket, "getaddrinfo", net.getaddrinfo)
    monkeypatch.setattr(socket.socket, "connect", reroute)
    return net
