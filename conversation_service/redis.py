"""This process's client for Redis or Valkey, which holds only data that may be lost.

Every caller must handle Unavailable: the service works without Redis.
"""

import logging
from collections.abc import Callable
from concurrent.futures import Future
from threading import Lock, Thread
from time import monotonic
from typing import Any, TypeVar

from django.conf import settings
from redis import ConnectionPool, Redis, RedisError, exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from conversation_service.observability.metrics import REDIS_UNANSWERED

logger = logging.getLogger(__name__)

T = TypeVar("T")

TIMEOUT_S = 0.1  # to connect, with the look-up of the host, and for a reply
RETRY_S = 1.0  # while Redis is down, one command per RETRY_S waits TIMEOUT_S for a reply
MAX_CONNECTIONS = 1_000  # a worker's requests: an exhausted pool looks like a failure

# redis-py raises ValueError or TypeError for a fault in REDIS_URL that it finds when it connects,
# such as a host name that cannot be encoded.
FAILURES = (RedisError, OSError, ValueError, TypeError)


class Unavailable(Exception):
    """Redis is not configured, does not reply, or rejects the command."""


def connect(url: str, *, timeout_s: float) -> Redis:
    """Return a client with a limit to connect and for each reply, without retries."""
    return Redis.from_url(url, **_options(timeout_s), retry=Retry(NoBackoff(), retries=0))


def _options(timeout_s: float) -> dict[str, Any]:
    return {
        "max_connections": MAX_CONNECTIONS,
        "socket_connect_timeout": timeout_s,
        "socket_timeout": timeout_s,
        "protocol": 2,  # protocol 3 adds a handshake to each connection
        "driver_info": None,
    }


class Connections(ConnectionPool):
    """A pool that does not poll a connection before each command.

    Under gevent, the poll takes more time than the command. Without the poll, the first command on
    a connection that the server has closed fails, so the client must repeat the command.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.idle: list[Any] = []

    def get_connection(self, command_name: Any = None, *keys: Any, **options: Any) -> Any:
        try:
            connection = self.idle.pop()
        except IndexError:
            connection = self.make_connection()
        if not connection.is_connected:
            self._connect(connection)
        return connection

    def release(self, connection: Any) -> None:
        self.idle.append(connection)

    def _connect(self, connection: Any) -> None:
        """Connect in a thread: the timeout of a socket does not limit the look-up of its host."""
        connected: Future[None] = Future()
        Thread(target=_connect, args=(connection, connected), daemon=True).start()
        try:
            connected.result(TIMEOUT_S)
        except BaseException:
            connected.add_done_callback(lambda _: self._take_back(connection))
            raise

    def _take_back(self, connection: Any) -> None:
        connection.disconnect()
        self.release(connection)


def _connect(connection: Any, connected: Future[None]) -> None:
    try:
        connection.connect()
        connected.set_result(None)
    except BaseException as error:  # noqa: BLE001 - raised in the caller
        connected.set_exception(error)


class Server:
    """A Redis server. While it is down, calls fail at once, except one per RETRY_S."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._redis: Redis | None = None
        self._lock = Lock()
        self._is_down = False
        self._next_attempt = 0.0

    def call(self, command: Callable[[Redis], T]) -> T:
        if self._is_down and not self._may_retry():
            REDIS_UNANSWERED.inc()
            raise Unavailable
        try:
            reply = command(self._redis or self._create_client())
        except FAILURES as error:
            REDIS_UNANSWERED.inc()
            with self._lock:
                self._next_attempt = monotonic() + RETRY_S
                was_down, self._is_down = self._is_down, True
            if not was_down:
                kind = type(error).__name__
                logger.warning("Redis cannot be used, the service continues without it: %s", kind)
            raise Unavailable from error
        if self._is_down:
            with self._lock:
                self._is_down = False
            logger.warning("Redis can be used again")
        return reply

    def _create_client(self) -> Redis:
        with self._lock:  # concurrent first calls must share one pool
            if self._redis is None:
                retry = Retry(
                    NoBackoff(), retries=1, supported_errors=(exceptions.ConnectionError,)
                )
                pool = Connections.from_url(self.url, **_options(TIMEOUT_S), retry=retry)
                self._redis = Redis(connection_pool=pool)
            return self._redis

    def _may_retry(self) -> bool:
        with self._lock:
            if monotonic() < self._next_attempt:
                return False
            self._next_attempt = monotonic() + RETRY_S
            return True


_choosing = Lock()
_server = Server("")


def call(command: Callable[[Redis], T]) -> T:
    """Run a command such as `lambda redis: redis.get(key)`, and return its reply in bytes.

    Raises Unavailable: at once if REDIS_URL is empty, and nearly always at once while Redis is
    down.
    """
    global _server  # noqa: PLW0603
    if not settings.REDIS_URL:
        raise Unavailable
    if _server.url != settings.REDIS_URL:
        with _choosing:
            if _server.url != settings.REDIS_URL:
                _server = Server(settings.REDIS_URL)
    return _server.call(command)
