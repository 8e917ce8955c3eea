"""gunicorn's gevent worker, patient with clients up to a point.

Nothing here may import Django or PyMongo at the top: the master loads this module, and sockets
are patched after the fork.
"""

import signal
import socket
import time
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cache
from http import HTTPStatus
from typing import Any

from gevent.thread import LockType  # type: ignore[import-not-found]
from gunicorn import glogging
from gunicorn.http import wsgi
from gunicorn.http.errors import ParseException
from gunicorn.util import write_nonblock
from gunicorn.workers.ggevent import GeventWorker

from config.env import env
from conversation_service.server.connection import LINGER_S, Connection, TooSlow, waiting
from conversation_service.server.request import BodyIncomplete, check_head, read_ahead
from conversation_service.server.response import Response

BODY_S = env("CLIENT_BODY_TIMEOUT_S")
DRAIN_BYTES = 128 * 1024  # what may be left unread of a body without losing the connection

wsgi.SERVER = env("SERVICE_NAME")  # the Server header
wsgi.WSGIErrorsWrapper = cache(wsgi.WSGIErrorsWrapper)  # gunicorn makes one for each request
wsgi.Response = Response

# A threading.Condition finds out whether its lock is held by trying to take it, whereupon gevent's
# lets all other greenlets run first. PyMongo does that twice for each command.
LockType._is_owned = LockType.locked


class Logger(glogging.Logger):  # type: ignore[misc]
    def access(self, *request: Any) -> None:
        """Leave it to the application, which knows more of its requests."""


class PatientWorker(GeventWorker):  # type: ignore[misc]
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.connections: set[Connection] = set()

    def init_process(self) -> None:
        # gunicorn itself listens only later, after patching: a signal in between would be lost,
        # and the master would wait for this worker until the graceful timeout.
        signal.signal(signal.SIGTERM, self.handle_exit)
        # A setting is looked up by two functions, twenty times a request; now it is there.
        settings = {name: setting.get() for name, setting in self.cfg.settings.items()}
        self.cfg.__dict__.update(settings)
        super().init_process()

    def timeout_ctx(self) -> AbstractContextManager[None]:
        return nullcontext()  # connections keep their own time

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        connection = Connection(client)
        if len(self.connections) + 1 >= self.worker_connections:
            self.make_room()
        self.connections.add(connection)
        try:
            super().handle(listener, connection, addr)
        finally:
            self.connections.discard(connection)

    def handle_request(self, listener_name: Any, req: Any, sock: Connection, addr: Any) -> None:
        sock.expect(BODY_S)
        check_head(req)
        read_ahead(req, sock)
        sock.begin_request()
        super().handle_request(listener_name, req, sock, addr)
        if not self.alive or not drained(req, sock):
            raise StopIteration  # gunicorn's word for closing the connection
        sock.rest(self.cfg.keepalive)
        if len(self.connections) >= self.worker_connections:
            self.make_room()
        if sock.giving_way:
            raise StopIteration

    def make_room(self) -> None:
        """Close the connection that has waited longest for a request, or else for its client.

        Called when the last of worker_connections is taken. gevent then accepts no client until
        one ends, and connections without a request, or whose client does not read, would keep
        health checks out. No connection that waits for the service itself is closed.
        """
        idle = [c for c in self.connections if c.idle_since is not None]
        if idle:
            longest = min(idle, key=lambda connection: connection.idle_since or 0.0)
            self.connections.discard(longest)
            longest.give_way()
        elif stalled := waiting.cut_off_first():
            self.connections.discard(stalled)

    def notify(self) -> None:
        """Every second: hang up on clients that are late, and when stopping on resting ones.

        Those would hold it up as requests do. Tell it to those who wait, too.
        """
        from conversation_service import shutdown  # noqa: PLC0415 - after patching
        from conversation_service.observability import metrics  # noqa: PLC0415

        super().notify()
        for tell in metrics.every_second.values():
            tell()
        if not self.alive:
            shutdown.begun.set()
        for connection in self.connections:
            if connection.resting and not self.alive:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RD)
            elif connection.is_late():
                connection.stop_waiting()

    def handle_error(self, req: Any, client: Connection, addr: Any, exc: BaseException) -> None:
        from conversation_service.server.gunicorn_errors import refusal  # noqa: PLC0415 - brings Django along

        failure, answer = refusal(req, exc)
        if failure.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self.log.error("Error handling a request", exc_info=exc)
        else:
            self.log.warning("Refused a request from %s: %.100s", (addr or ("",))[0], exc)
        with suppress(OSError):
            write_nonblock(client, answer)


def drained(req: Any, connection: Connection) -> bool:
    """Read what the application left of a body; false if it is too long or too slow for that."""
    if getattr(req.body.reader, "length", None) == 0:  # of one that was announced, all is here
        return True
    connection.expect(LINGER_S)
    connection.idle_since = time.monotonic()  # it has its response, so it may give way
    try:
        return len(req.body.read(DRAIN_BYTES)) < DRAIN_BYTES
    except (TooSlow, BodyIncomplete, ParseException):
        return False
