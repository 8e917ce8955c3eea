"""Look-ups of host names in the worker.

gevent has ten native threads for all look-ups of a process. Without a reply from the DNS server a
look-up keeps its thread for ten seconds and more, so that requests for one such name would delay
every new connection, also to an IP address.
"""

import _socket
from ipaddress import ip_address
from socket import EAI_AGAIN, gaierror
from typing import Any

import gevent
from gevent.resolver import thread

from conversation_service.server import private

LIMIT_S = 10.0  # the system's resolver repeats a lost request after 5 s


class Resolver(thread.Resolver):
    """Looks up each name once at a time, and IP addresses without a thread.

    A look-up ends with the time for a MongoDB operation: PyMongo's own limit begins with the
    connection.
    """

    def __init__(self, hub: Any = None) -> None:
        super().__init__(hub)
        self._running: dict[tuple[Any, ...], Any] = {}

    def getaddrinfo(self, host: Any, *args: Any, **kwargs: Any) -> Any:
        if host is None or is_address(host):
            return _socket.getaddrinfo(host, *args, **kwargs)
        key = (host, args, *kwargs.items())
        lookup = self._running.get(key)
        if lookup is None:
            lookup = self._running[key] = self.pool.spawn(
                _socket.getaddrinfo, host, *args, **kwargs
            )
            lookup.rawlink(lambda _: self._running.pop(key, None))
        try:
            return lookup.get(timeout=max(0.0, private.remaining_timeout(LIMIT_S)))
        except gevent.Timeout:
            raise gaierror(EAI_AGAIN, "The name server does not respond in time") from None


def is_address(host: str | bytes) -> bool:
    text = host.decode("ascii", "replace") if isinstance(host, bytes) else host
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
