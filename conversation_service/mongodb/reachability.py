"""The first contact of a process with MongoDB: a reply within seconds, or the reason."""

import socket
from threading import Thread
from time import monotonic
from typing import Any

import pymongo
from pymongo import MongoClient, ReadPreference
from pymongo.errors import ServerSelectionTimeoutError

FIRST_REPLY_S = 5.0
EXPLANATION_S = 1.5

Address = tuple[str, int | None]


def require_reply(
    client: MongoClient[Any], *, within_s: float, member: Any = ReadPreference.NEAREST
) -> None:
    """Raise PyMongoError with the reason unless a member replies in time.

    During an election the secondaries reply. If none does, a longer wait for a primary is useless.
    """
    try:
        with pymongo.timeout(within_s):
            client.admin.command("ping", read_preference=member)
    except ServerSelectionTimeoutError:
        members = client.topology_description.server_descriptions()
        silent = [
            address
            for address, member in members.items()
            if member.server_type_name == "Unknown" and member.error is None
        ]
        if not silent:
            raise
        raise ServerSelectionTimeoutError(explain_silence(silent)) from None


def explain_silence(addresses: list[Address]) -> str:
    """Say for each member how far a connection gets within EXPLANATION_S.

    PyMongo knows no reason before its own time limit of 20 s.
    """
    reached: dict[Address, str] = {}

    def connect(address: Address) -> None:
        host, port = address
        reached[address] = "the name server does not respond"
        try:
            family, kind, *_, target = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, kind) as connected:
                reached[address] = "does not accept the connection"
                connected.connect(target)
                reached[address] = "accepts the connection, but does not reply"
        except OSError as error:
            reached[address] = str(error)

    threads = [Thread(target=connect, args=(each,), daemon=True) for each in addresses]
    deadline = monotonic() + EXPLANATION_S
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - monotonic()))
    return ", ".join(f"{host}:{port}: {reached[host, port]}" for host, port in addresses)
