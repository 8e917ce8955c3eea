"""A GET that ends in time, and the neighbours that are asked with it.

The timeouts of requests, like those of sockets, bound each single read: a server that sends a
byte every second is never late for them, not even with its headers; and nothing bounds the
look-up of a name. So each exchange runs in a thread of its own (a greenlet, in the worker) while
its caller waits for it with one limit, and cuts its connection on leaving, so that no exchange
outlives its caller for long.
"""

import logging
import random
import socket
import ssl
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from functools import cache, lru_cache
from http import HTTPStatus
from http.client import HTTPException
from http.cookiejar import DefaultCookiePolicy
from threading import BoundedSemaphore, Lock, Thread
from time import monotonic, sleep
from typing import Any, TypeVar

import orjson
import requests
from django.conf import settings
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError

from conversation_service.observability import context
from conversation_service.observability.metrics import (
    UPSTREAM_REQUEST_DURATION,
    UPSTREAM_REQUESTS,
)
from conversation_service.upstreams.breaker import Breaker

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_BYTES = 1024 * 1024
# At once to one neighbour, from this process; also the connections that are kept.
MOST_EXCHANGES = 64
# With less time than this nobody is asked: it would fail, and be held against the neighbour.
LEAST_S = 0.02
# Before the first retry at most, and half of that at least; doubled for each further one.
PAUSE_S = 0.05

FAILURES = (requests.RequestException, HTTPError, HTTPException, OSError, ValueError)
BUSY = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS}


class NoAnswer(Exception):
    """The other side gave no answer that can be used, in the time there was."""

    def __init__(self, reason: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class Refused(NoAnswer):
    """The other side is well, and does not want to tell us."""


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes

    def json(self) -> Any:
        """Return what the body says, or raise NoAnswer."""
        try:
            return orjson.loads(self.body)  # it refuses lone surrogates and deep nesting
        except orjson.JSONDecodeError:
            raise NoAnswer("The body is not JSON") from None


def get(url: str, *, timeout_s: float, limit: int) -> Answer:
    """Return what an http or https URL answers, following no redirect.

    Raises NoAnswer if that takes longer than `timeout_s`, or if the body has more than `limit`
    bytes; with a limit of 0 the body is not read at all.
    """
    each_s = (timeout_s, timeout_s)
    headers = {"Connection": "close"}
    return _Exchange(_session(), url, headers, each_s, limit).answer(within_s=timeout_s)


class Neighbour:
    """A service around us, with connections and a circuit breaker of its own in each process.

    Safe to share between threads and greenlets.
    """

    def __init__(  # noqa: PLR0913
        self,
        name: str,
        url: str,
        *,
        connect_timeout_s: float,
        read_timeout_s: float,
        retries: int,
        breaker_threshold: int,
        breaker_recovery_s: float,
    ) -> None:
        self.name = name
        self.breaker = Breaker(name, threshold=breaker_threshold, recovery_s=breaker_recovery_s)
        self._url = url.rstrip("/")
        self._timeouts_s = (connect_timeout_s, read_timeout_s)
        self._retries = retries
        self._session = _new_session()
        self._places = BoundedSemaphore(MOST_EXCHANGES)

    def ask(
        self, path: str, read: Callable[[Answer], T], *, headers: dict[str, str] | None = None
    ) -> T:
        """Return what `read` makes of the answer to a GET.

        `read` is given every answer but redirects and those of a server in trouble; it raises
        NoAnswer for nonsense, which counts against the neighbour, and Refused otherwise. This
        raises the same, within what is left of the incoming request's budget.
        """
        deadline = _deadline()
        if deadline - monotonic() < LEAST_S:
            self._count("out_of_time")
            raise NoAnswer(f"No time was left to ask {self.name}")
        if not self.breaker.admits():
            self._count("rejected")
            raise NoAnswer(f"{self.name} is being spared", retry_after_s=self.breaker.remaining_s())
        with self.breaker.watching(answered=Refused):
            return self._ask(path, read, _passed_on() | (headers or {}), deadline)

    def _ask(
        self, path: str, read: Callable[[Answer], T], headers: dict[str, str], deadline: float
    ) -> T:
        pause_s = PAUSE_S * random.uniform(0.5, 1)  # noqa: S311
        for _ in range(self._retries):
            try:
                return self._attempt(path, read, headers, deadline)
            except Refused:
                raise
            except NoAnswer:
                if deadline - monotonic() < pause_s + LEAST_S:
                    raise
            sleep(pause_s)
            pause_s *= 2
        return self._attempt(path, read, headers, deadline)

    def _attempt(
        self, path: str, read: Callable[[Answer], T], headers: dict[str, str], deadline: float
    ) -> T:
        started = monotonic()
        outcome = "failed"
        try:
            answer = self._exchange(path, headers, deadline)
            if _in_trouble(answer.status):
                raise NoAnswer(f"The status is {answer.status}")
            result = read(answer)
            outcome = "answered"
        except Refused:
            outcome = "refused"
            raise
        except NoAnswer as error:
            logger.warning("%s gave no answer: %s", self.name, error)
            raise
        finally:
            self._count(outcome)
            UPSTREAM_REQUEST_DURATION.labels(self.name).observe(monotonic() - started)
        return result

    def _exchange(self, path: str, headers: dict[str, str], deadline: float) -> Answer:
        url = self._url + path
        if not self._places.acquire(timeout=max(0.0, deadline - monotonic())):
            raise NoAnswer("Too many questions are under way")
        exchange = _Exchange(
            self._session, url, headers, self._timeouts_s, MAX_BYTES, at_end=self._places.release
        )
        return exchange.answer(within_s=deadline - monotonic())

    def _count(self, outcome: str) -> None:
        UPSTREAM_REQUESTS.labels(self.name, outcome).inc()


def neighbour(name: str) -> Neighbour:
    """Return this process's AUTH, CHARACTERS or MESSAGE, under the current settings."""
    with _building:  # or two first requests would have a circuit breaker each
        url = getattr(settings, f"{name}_SERVICE_URL")
        return _build(name.lower(), url, **settings.NEIGHBOURS[name])


_building = Lock()


@lru_cache(maxsize=8)
def _build(name: str, url: str, **options: Any) -> Neighbour:
    return Neighbour(name, url, **options)


def time_left_s() -> float:
    return _deadline() - monotonic()


def _deadline() -> float:
    """Return time.monotonic() at which the time for upstreams ends, NEIGHBOUR_BUDGET_S at most.

    All requests to upstreams that are made for one incoming request share it, from the first one
    on. Outside of a request, each has the whole time.
    """
    shared = context.upstream_deadline.get()
    if shared:
        return shared
    deadline: float = monotonic() + settings.NEIGHBOUR_BUDGET_S
    if shared is not None:
        context.upstream_deadline.set(deadline)
    return deadline


def _passed_on() -> dict[str, str]:
    headers = {
        "X-Request-ID": context.request_id.get(),
        "traceparent": context.traceparent.get(),
    }
    return {name: value for name, value in headers.items() if value not in {"", "-"}}


def _in_trouble(status: int) -> bool:
    redirected = HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST
    return redirected or status in BUSY or status >= HTTPStatus.INTERNAL_SERVER_ERROR


_current: ContextVar["_Exchange"] = ContextVar("exchange")


class _Exchange:
    """One GET in a thread of its own, which its caller can leave at any time."""

    def __init__(  # noqa: PLR0913
        self,
        session: requests.Session,
        url: str,
        headers: dict[str, str],
        timeouts_s: tuple[float, float],
        limit: int,
        *,
        at_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._session = session
        self._url = url
        self._headers = headers
        self._timeouts_s = timeouts_s
        self._limit = limit
        self._at_end = at_end
        self._outcome: Future[Answer] = Future()
        self._lock = Lock()
        self._left = False
        self._lines: list[socket.socket] = []

    def answer(self, *, within_s: float) -> Answer:
        run = copy_context().run
        Thread(target=run, args=(self._run,), name="exchange", daemon=True).start()
        try:
            return self._outcome.result(max(0.0, within_s))
        except FAILURES as error:  # TimeoutError is one
            raise NoAnswer(_reason(error)) from None
        finally:
            self._leave()

    def hold(self, channel: socket.socket) -> None:
        """Remember a connection, to cut it should the caller leave. Called by the connection."""
        with self._lock:
            if self._left:
                raise TimeoutError("Nobody waits for this answer any more")
            # A copy, as TLS takes over the original.
            self._lines.append(socket.fromfd(channel.fileno(), channel.family, channel.type))

    def _leave(self) -> None:
        with self._lock:
            self._left = True
            for line in self._lines:
                if not self._outcome.done():
                    with suppress(OSError):  # it has ended by itself
                        line.shutdown(socket.SHUT_RDWR)
                line.close()

    def _run(self) -> None:
        _current.set(self)
        try:
            self._outcome.set_result(self._get())
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            self._outcome.set_exception(error)
        finally:
            self._at_end()

    def _get(self) -> Answer:
        with self._session.get(
            self._url,
            headers=self._headers,
            timeout=self._timeouts_s,
            stream=True,
            allow_redirects=False,
        ) as response:
            if self._limit == 0:
                return Answer(response.status_code, b"")
            body = response.raw.read(self._limit + 1, decode_content=True)
        if len(body) > self._limit:
            raise NoAnswer(f"The body has more than {self._limit} bytes")
        return Answer(response.status_code, body)


class _Line(HTTPConnection):
    """A connection that tells the exchange that uses it which socket it has."""

    def _new_conn(self) -> socket.socket:
        channel = super()._new_conn()
        try:
            _current.get().hold(channel)
        except OSError:
            channel.close()
            raise
        return channel

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None:
            _current.get().hold(self.sock)
        super().request(*args, **kwargs)


class _SecureLine(_Line, HTTPSConnection):
    pass


class _Lines(HTTPConnectionPool):
    ConnectionCls = _Line


class _SecureLines(HTTPSConnectionPool):
    ConnectionCls = _SecureLine


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, ssl_context=_tls(), **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Lines, "https": _SecureLines}

    def cert_verify(self, *args: Any) -> None:
        """Add nothing to the context, which knows whom this machine trusts."""


class _Session(requests.Session):
    def get_redirect_target(self, response: requests.Response) -> None:
        """See no redirect in anything: to offer the next address, requests would first read a
        body of any length.
        """


@cache
def _session() -> requests.Session:
    return _new_session()


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _new_session() -> requests.Session:
    session = _Session()
    session.trust_env = False  # no proxies, and no netrc that replaces our tokens
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.headers.update(
        {
            "User-Agent": settings.SERVICE_NAME,
            "Accept": "application/json",
            "Accept-Encoding": "identity",
        }
    )
    adapter = _Adapter(pool_maxsize=MOST_EXCHANGES)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


def _reason(error: BaseException) -> str:
    """Return the kind of an error and its reason in the operating system.

    Its own text is left out: it repeats the URL, and the ids in it.
    """
    root = error
    while cause := root.__cause__ or root.__context__:
        root = cause
    kind = type(error).__name__
    return f"{kind} ({root.strerror})" if isinstance(root, OSError) and root.strerror else kind
