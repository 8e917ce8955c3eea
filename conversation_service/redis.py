"""The process's one client of Redis or Valkey, which holds only what may vanish.

Whoever asks must have an answer of its own for Unavailable: Redis may be missing or down, and
the service goes on.
"""

import logging
from collections.abc import Callable
from functools import lru_cache
from threading import Lock
from time import monotonic
from typing import TypeVar

from django.conf import settings
from redis import ConnectionPool, Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from conversation_service.observability.metrics import REDIS_UNANSWERED

logger = logging.getLogger(__name__)

T = TypeVar("T")

TIMEOUT_S = 0.1  # to connect, and to answer
RETRY_S = 1.0  # of an outage, one question in so long pays TIMEOUT_S to see if it is over
MAX_CONNECTIONS = 1_000  # as many as a worker has requests: running out would look like an outage

# The start rejects a REDIS_URL that cannot be read. For a fault that appears only when redis-py
# connects, such as a host name that cannot be encoded, it raises ValueError or TypeError.
NO_ANSWER = (RedisError, OSError, ValueError, TypeError)

_connecting = Lock()


class Unavailable(Exception):
    """There is no Redis, or it does not answer."""


def ask(question: Callable[[Redis], T]) -> T:
    """Put a question, such as `lambda redis: redis.get(key)`, and return the answer in bytes.

    Raises Unavailable: at once where REDIS_URL is empty and, mostly, while Redis is down.
    """
    if not settings.REDIS_URL:
        raise Unavailable
    with _connecting:  # or two first requests would have a server each
        server = _server(settings.REDIS_URL)
    return server.ask(question)


class _Server:
    def __init__(self, url: str) -> None:
        self._url = url
        self._redis: Redis | None = None
        self._state = Lock()
        self._down = False
        self._ask_again_at = 0.0

    def ask(self, question: Callable[[Redis], T]) -> T:
        if self._down and not self._is_my_turn():
            REDIS_UNANSWERED.inc()
            raise Unavailable
        try:
            answer = question(self._client())
        except NO_ANSWER as error:
            self._failed(error)
            raise Unavailable from error
        if self._down:
            self._recovered()
        return answer

    def _client(self) -> Redis:
        with self._state:  # two first requests at once must share one pool
            if self._redis is None:
                self._redis = Redis(connection_pool=_pool(self._url))
            return self._redis

    def _is_my_turn(self) -> bool:
        with self._state:
            if monotonic() < self._ask_again_at:
                return False
            self._ask_again_at = monotonic() + RETRY_S
            return True

    def _failed(self, error: Exception) -> None:
        REDIS_UNANSWERED.inc()
        with self._state:
            self._ask_again_at = monotonic() + RETRY_S
            if self._down:
                return
            self._down = True
        logger.warning("Redis does not answer, going on without it: %s", type(error).__name__)

    def _recovered(self) -> None:
        with self._state:
            if not self._down:
                return
            self._down = False
        logger.warning("Redis answers again")


_server = lru_cache(maxsize=8)(_Server)


def _pool(url: str) -> ConnectionPool:
    return ConnectionPool.from_url(
        url,
        max_connections=MAX_CONNECTIONS,
        socket_connect_timeout=TIMEOUT_S,
        socket_timeout=TIMEOUT_S,
        retry=Retry(NoBackoff(), retries=0),
        protocol=2,  # with 3, each connection begins with a handshake for cloud failovers
        driver_info=None,
    )
