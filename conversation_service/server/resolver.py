"""Look-ups of host names in the worker.

gevent has ten native threads for all look-ups of a process. Without a reply from the DNS server a
look-up keeps its thread for ten seconds and more, so that requests for one such name would delay
every new connection, also to an IP address.
"""

import _socket
from ipaddress import ip_address
from typing import Any

from gevent.resolver import thread


class Resolver(thread.Resolver):
    """Looks up each name once at a time, and IP addresses without a thread."""

    def __init__(self, hub: Any = None) -> None:
        super().__init__(hub)
        self._running: dict[tuple[Any, ...], Any] = {}

    def getaddrinfo(self, host: Any, *args: Any, **kwargs: Any) -> Any:
        if host is None or is_address(host):
            return _socket.getaddrinfo(host, *args, **kwargs)
        key = (host, args, *kwargs.items())
        if key not in self._running:
            lookup = self.pool.spawn(_socket.getaddrinfo, host, *args, **kwargs)
            self._running[key] = lookup
            lookup.rawlink(lambda _: self._running.pop(key, None))
        return self._running[key].get()


def is_address(host: str | bytes) -> bool:
    text = host.decode("ascii", "replace") if isinstance(host, bytes) else host
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
