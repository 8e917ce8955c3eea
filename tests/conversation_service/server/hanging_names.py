"""The service with a DNS server that does not reply for one name."""

import _socket
import os
import socket
from pathlib import Path

from gevent.monkey import get_original

NAME = os.environ["HANGING_NAME"]  # noqa: TID251
HANGS_S = 30
# The name resolves to this machine until there is this file.
BEGIN = Path(os.environ.get("HANGING_FROM", "/"))  # noqa: TID251

look_up = _socket.getaddrinfo
sleep = get_original("time", "sleep")


def getaddrinfo(host, *args, **kwargs):
    if host == NAME:
        if not BEGIN.exists():
            return look_up("127.0.0.1", *args, **kwargs)
        sleep(HANGS_S)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    return look_up(host, *args, **kwargs)


_socket.getaddrinfo = getaddrinfo

from config.wsgi import application  # noqa: E402, F401
