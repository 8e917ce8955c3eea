"""gunicorn's gevent worker, with time limits for clients.

Do not import Django or PyMongo at the top: the master loads this module, and sockets are patched
after the fork.
"""

import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from http import HTTPStatus
from typing import Any

import gevent
from gunicorn import glogging
from gunicorn.http.errors import ParseException
from gunicorn.util import write_nonblock
from gunicorn.workers.ggevent import GeventWorker

from config.env import env
from conversation_service.server import private
from conversation_service.server.connection import LINGER_S, Connection, TooSlow, waiting
from conversation_service.server.request import (
    BodyIncomplete,
    WholeBodyReader,
    check_head,
    read_ahead,
)
from conversation_service.server.resolver import Resolver

BODY_S = env("CLIENT_BODY_TIMEOUT_S")
DRAIN_BYTES = 128 * 1024  # unread bytes of a body with which a connection is still kept
DRAIN_S = 5.0  # in which a worker with connections accepts requests after SIGTERM
UNUSED_S = 1.0  # after which a stopping worker closes a connection without a request

private.change_gunicorn(server=env("SERVICE_NAME"), body_reader=WholeBodyReader)
private.change_gevent()
private.skip_callers()
gevent.config.resolver = Resolver


class Logger(glogging.Logger):  # type: ignore[misc]
    def access(self, *request: Any) -> None:
        """Log nothing: ObserveRequests logs each request with its route and user."""


class PatientWorker(GeventWorker):  # type: ignore[misc]
    # Returns the status and the whole response for a request that gunicorn or a check rejects.
    # config/gunicorn.conf.py sets it before the worker accepts connections.
    error_response: Callable[[Any, BaseException, bytes], tuple[int, bytes]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.connections: set[Connection] = set()
        self.draining_since: float | None = None
        self.stopping = False

    def init_process(self) -> None:
        # gunicorn sets its handlers later, after patching. It would lose a signal before that, and
        # the master would wait for this worker until the graceful timeout.
        signal.signal(signal.SIGTERM, self.handle_exit)
        private.read_settings_once(self.cfg)
        super().init_process()

    def handle_usr1(self, sig: int, frame: Any) -> None:
        """Drain: every response from now on closes its connection.

        The preStop of a pod sends SIGUSR1 to the master, which forwards it. gunicorn's own handler
        reopens log files, and the service has none.
        """
        self.drain()

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Drain, then stop. gunicorn's own handler would reset requests on kept connections."""
        self.stopping = True
        self.drain()
        self.stop_if_due()

    def drain(self) -> None:
        if self.draining_since is None:
            self.draining_since = time.monotonic()

    def stop_if_due(self) -> None:
        """End the main loop: after SIGTERM when drained, or at once if the master has ended.

        gunicorn's own worker exits without its master, in the middle of requests.
        """
        if self.ppid != os.getppid():
            self.drain()
            self.alive = False
        elif self.stopping and self.draining_since is not None:
            drained_s = time.monotonic() - self.draining_since
            if not self.connections or drained_s >= DRAIN_S:
                self.alive = False

    def timeout_ctx(self) -> AbstractContextManager[None]:
        return nullcontext()  # each connection has its own deadline

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        connection = Connection(client)
        if len(self.connections) + 1 >= self.worker_connections:
            self.make_room()
        self.connections.add(connection)
        try:
            # gunicorn uses only the listener's address, which a closed listener does not have.
            super().handle(connection, connection, addr)
        finally:
            self.connections.discard(connection)
            self.stop_if_due()

    def handle_request(self, listener_name: Any, req: Any, sock: Connection, addr: Any) -> None:
        sock.expect(BODY_S)
        check_head(req)
        read_ahead(req, sock)
        sock.begin_request()
        if self.draining_since is not None:
            req.force_close()
        super().handle_request(listener_name, req, sock, addr)
        if not drained(req, sock):
            raise StopIteration  # gunicorn then closes the connection
        sock.rest(self.cfg.keepalive)
        if len(self.connections) >= self.worker_connections:
            self.make_room()
        if sock.giving_way:
            raise StopIteration

    def make_room(self) -> None:
        """Close the connection that has waited longest for a request, or else for its client.

        Called when worker_connections are open. gevent then accepts no client until one ends:
        connections without a request, or with a client that does not read, would keep health checks
        out. Connections that wait for the service itself stay open.
        """
        idle = [c for c in self.connections if c.idle_since is not None]
        if idle:
            longest = min(idle, key=lambda connection: connection.idle_since or 0.0)
            self.connections.discard(longest)
            longest.give_way()
        elif stalled := waiting.cut_off_first():
            self.connections.discard(stalled)

    def notify(self) -> None:
        """Each second: publish gauges, and close connections that are past their deadline.

        While the worker stops, also end requests that wait for changes, and close unused
        connections: both would delay the stop.
        """
        from conversation_service import shutdown  # noqa: PLC0415 - after patching
        from conversation_service.observability import metrics  # noqa: PLC0415

        self.tmp.notify()  # the heartbeat
        for publish in metrics.every_second.values():
            publish()
        self.stop_if_due()
        is_stopping = self.stopping or not self.alive
        if is_stopping:
            shutdown.begun.set()
        for connection in self.connections:
            if is_stopping and connection.is_unused(self.draining_since or 0.0, UNUSED_S):
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RD)
            elif connection.is_late():
                connection.stop_waiting()

    def handle_error(self, req: Any, client: Connection, addr: Any, exc: BaseException) -> None:
        status, response = self.error_response(req, exc, b"".join(client.head))
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self.log.error("Error handling a request", exc_info=exc)
        else:
            self.log.warning("Rejected a request from %s: %.100s", (addr or ("",))[0], exc)
        with suppress(OSError):
            write_nonblock(client, response)


def drained(req: Any, connection: Connection) -> bool:
    """Read the unread bytes. Return False for DRAIN_BYTES or more, or after LINGER_S."""
    if getattr(req.body.reader, "length", None) == 0:  # a body with a length, read to its end
        return True
    connection.expect(LINGER_S)
    connection.idle_since = time.monotonic()  # its response is sent, so it may give way
    try:
        return len(req.body.read(DRAIN_BYTES)) < DRAIN_BYTES
    except (TooSlow, BodyIncomplete, ParseException):
        return False
