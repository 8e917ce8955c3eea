"""GET requests to upstreams, with a time limit for the whole exchange.

The timeouts in requests and sockets bound each single read: a server that sends a byte per second
never exceeds them, and the resolution of a host name has no limit. So each exchange runs in its own
thread (a greenlet, in the worker). The caller waits up to the limit, and then cuts the connection,
so that the exchange ends soon after.
"""

import logging
import random
import socket
import ssl
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from functools import cache, partial
from http import HTTPStatus
from http.client import HTTPException
from http.cookiejar import DefaultCookiePolicy
from threading import BoundedSemaphore, Lock, Thread
from time import monotonic, sleep
from typing import Any, Generic, TypeVar

import orjson
import requests
from django.conf import settings
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError

from config.upstreams import UPSTREAMS
from conversation_service.observability import context
from conversation_service.observability.metrics import (
    UPSTREAM_REQUEST_DURATION,
    UPSTREAM_REQUESTS,
)
from conversation_service.upstreams.breaker import Breaker

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_BYTES = 1024 * 1024
# Concurrent exchanges per upstream and process, and the connections that are kept.
MAX_EXCHANGES = 64
# With less time, no request is sent: it would count as the upstream's failure.
MIN_TIME_S = 0.02
# The longest pause before the first retry; the shortest is half. Each retry doubles the pause.
PAUSE_S = 0.05

FAILURES = (requests.RequestException, HTTPError, HTTPException, OSError, ValueError)
BUSY = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS}


class UpstreamError(Exception):
    """The upstream did not return a usable response in time."""

    def __init__(self, reason: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class UpstreamRejection(UpstreamError):
    """The upstream works, and rejects this request."""


@dataclass(frozen=True)
class UpstreamResponse:
    status: int
    body: bytes

    def json(self) -> Any:
        """Return the parsed body. Raises UpstreamError."""
        try:
            return orjson.loads(self.body)  # rejects lone surrogates and deep nesting
        except orjson.JSONDecodeError:
            raise UpstreamError("The body is not JSON") from None


def get(url: str, *, timeout_s: float, limit: int) -> UpstreamResponse:
    """GET an http or https URL, without following a redirect.

    Raises UpstreamError after `timeout_s`, or if the body has more than `limit` bytes; if `limit`
    is 0, the body is not read.
    """
    timeouts_s = (timeout_s, timeout_s)
    exchange = Exchange(partial(_get, url, {"Connection": "close"}, timeouts_s, limit))
    return _response(exchange, timeout_s)


class Client:
    """The client of an upstream, with a circuit breaker per process.

    Safe to share between threads and greenlets. Its settings are the upstream's variables in
    config/upstreams.py.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._url = _setting(name, "SERVICE_URL").rstrip("/")
        self._timeouts_s = _setting(name, "CONNECT_TIMEOUT_S"), _setting(name, "READ_TIMEOUT_S")
        self._retries = _setting(name, "RETRIES")
        self.breaker = Breaker(
            name,
            threshold=_setting(name, "BREAKER_THRESHOLD"),
            recovery_s=_setting(name, "BREAKER_RECOVERY_S"),
        )
        self._slots = BoundedSemaphore(MAX_EXCHANGES)

    def get(
        self,
        path: str,
        read: Callable[[UpstreamResponse], T],
        *,
        headers: dict[str, str] | None = None,
    ) -> T:
        """Send a GET, and return what `read` returns for its response.

        `read` does not receive redirects and responses from a failing or busy server. It raises
        UpstreamError for an invalid response, which counts as the upstream's failure, and
        UpstreamRejection if the upstream works. This raises the same, within the incoming request's
        remaining time for upstreams.
        """
        deadline = _deadline()
        if deadline - monotonic() < MIN_TIME_S:
            self._count("out_of_time")
            raise UpstreamError(f"No time is left for a request to {self.name}")
        if not self.breaker.admits():
            self._count("rejected")
            raise UpstreamError(
                f"The circuit breaker of {self.name} is open",
                retry_after_s=self.breaker.remaining_s(),
            )
        sent = {"X-Request-ID": context.request_id.get(), "traceparent": context.traceparent.get()}
        sent = {name: value for name, value in sent.items() if value not in {"", "-"}}
        attempt = partial(self._attempt, path, read, sent | (headers or {}), deadline)
        pause_s = PAUSE_S * random.uniform(0.5, 1)  # noqa: S311
        with self.breaker.watching(success=UpstreamRejection):
            for _ in range(self._retries):
                try:
                    return attempt()
                except UpstreamRejection:
                    raise
                except UpstreamError:
                    if deadline - monotonic() < pause_s + MIN_TIME_S:
                        raise
                sleep(pause_s)
                pause_s *= 2
            return attempt()

    def _attempt(
        self,
        path: str,
        read: Callable[[UpstreamResponse], T],
        headers: dict[str, str],
        deadline: float,
    ) -> T:
        started = monotonic()
        outcome = "failed"
        try:
            if not self._slots.acquire(timeout=max(0.0, deadline - monotonic())):
                raise UpstreamError(f"{MAX_EXCHANGES} other requests are running")
            url, release = self._url + path, self._slots.release
            send = partial(_get, url, headers, self._timeouts_s, MAX_BYTES)
            response = _response(Exchange(send, at_end=release), deadline - monotonic())
            status = response.status
            is_redirect = HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST
            if is_redirect or status in BUSY or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                raise UpstreamError(f"The status is {status}")
            result = read(response)
            outcome = "answered"
        except UpstreamRejection:
            outcome = "refused"
            raise
        except UpstreamError as error:
            logger.warning("The request to %s failed: %s", self.name, error)
            raise
        finally:
            self._count(outcome)
            UPSTREAM_REQUEST_DURATION.labels(self.name).observe(monotonic() - started)
        return result

    def _count(self, outcome: str) -> None:
        UPSTREAM_REQUESTS.labels(self.name, outcome).inc()


_creating = Lock()
_clients: dict[str, tuple[list[Any], Client]] = {}


def client(name: str) -> Client:
    """Return this process's client of an upstream; a new one if its settings have changed."""
    variables = UPSTREAMS[name].variables()
    values = [getattr(settings, variable) for variable in variables]
    with _creating:  # concurrent first calls must share one circuit breaker
        known = _clients.get(name)
        if known is None or known[0] != values:
            known = _clients[name] = (values, Client(name))
        return known[1]


def _setting(name: str, option: str) -> Any:
    return getattr(settings, f"{name.upper()}_{option}")


def time_left_s() -> float:
    return _deadline() - monotonic()


def _deadline() -> float:
    """Return when the time for upstreams, NEIGHBOUR_BUDGET_S, ends, by time.monotonic().

    Within an incoming request, all requests to upstreams share the time, from the first request on.
    Outside, each request has the whole time.
    """
    shared = context.upstream_deadline.get()
    if shared:
        return shared
    deadline: float = monotonic() + settings.NEIGHBOUR_BUDGET_S
    if shared is not None:
        context.upstream_deadline.set(deadline)
    return deadline


_current: ContextVar["Exchange[Any]"] = ContextVar("exchange")


@dataclass(eq=False)
class Exchange(Generic[T]):
    """A call of `send` in its own thread, which the caller can end at any time.

    `send` registers each socket that it uses.
    """

    send: Callable[[], T]
    at_end: Callable[[], None] = lambda: None
    _outcome: Future[T] = field(init=False, default_factory=Future)
    _lock: Any = field(init=False, default_factory=Lock)
    _is_abandoned: bool = field(init=False, default=False)
    _sockets: list[socket.socket] = field(init=False, default_factory=list)

    def wait(self, limit_s: float) -> T:
        """Return what `send` returns, or raise its exception; TimeoutError after the limit."""
        run = copy_context().run
        Thread(target=run, args=(self._run,), name="exchange", daemon=True).start()
        try:
            return self._outcome.result(max(0.0, limit_s))
        finally:
            with self._lock:
                self._is_abandoned = True
                for connected in self._sockets:
                    if not self._outcome.done():
                        with suppress(OSError):  # the connection has ended
                            connected.shutdown(socket.SHUT_RDWR)
                    connected.close()

    def register_socket(self, connected: socket.socket) -> None:
        """Register a connection's socket, to be cut when the caller stops to wait."""
        with self._lock:
            if self._is_abandoned:
                raise TimeoutError("The caller no longer waits for this response")
            # A duplicate, as TLS detaches the original.
            copy = socket.fromfd(connected.fileno(), connected.family, connected.type)
            self._sockets.append(copy)

    def _run(self) -> None:
        _current.set(self)
        try:
            self._outcome.set_result(self.send())
        except BaseException as error:  # noqa: BLE001 - raised in wait()
            self._outcome.set_exception(error)
        finally:
            self.at_end()


def register_socket(connected: socket.socket) -> None:
    """Register a socket with the exchange of this thread. Raises TimeoutError if it has ended."""
    _current.get().register_socket(connected)


def _response(exchange: Exchange[UpstreamResponse], limit_s: float) -> UpstreamResponse:
    try:
        return exchange.wait(limit_s)
    except FAILURES as error:  # TimeoutError is an OSError
        raise UpstreamError(reason(error)) from None


def _get(
    url: str, headers: dict[str, str], timeouts_s: tuple[float, float], limit: int
) -> UpstreamResponse:
    with _session().get(
        url, headers=headers, timeout=timeouts_s, stream=True, allow_redirects=False
    ) as response:
        if limit == 0:
            return UpstreamResponse(response.status_code, b"")
        body = response.raw.read(limit + 1, decode_content=True)
    if len(body) > limit:
        raise UpstreamError(f"The body has more than {limit} bytes")
    return UpstreamResponse(response.status_code, body)


class TrackedConnection(HTTPConnection):
    """A urllib3 connection that registers its socket with the exchange that uses it."""

    def _new_conn(self) -> socket.socket:
        connected = super()._new_conn()
        try:
            register_socket(connected)
        except OSError:
            connected.close()
            raise
        return connected

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None:
            register_socket(self.sock)
        super().request(*args, **kwargs)


class TrackedTLSConnection(TrackedConnection, HTTPSConnection):
    pass


class TrackedPool(HTTPConnectionPool):
    ConnectionCls = TrackedConnection


class TrackedTLSPool(HTTPSConnectionPool):
    ConnectionCls = TrackedTLSConnection


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, ssl_context=ssl.create_default_context(), **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": TrackedPool, "https": TrackedTLSPool}

    def cert_verify(self, *args: Any) -> None:
        """Keep the system's certificates, which the context has loaded."""


class _Session(requests.Session):
    def get_redirect_target(self, response: requests.Response) -> None:
        """Return no redirect: requests would read its body, however long."""


@cache
def _session() -> requests.Session:
    """Return this process's session, which keeps connections per host."""
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
    adapter = _Adapter(pool_maxsize=MAX_EXCHANGES)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


def reason(error: BaseException) -> str:
    """Return an error's type, and its reason if the operating system gives one.

    The error's text is omitted: it contains the URL with its ids.
    """
    root = error
    while cause := root.__cause__ or root.__context__:
        root = cause
    kind = type(error).__name__
    return f"{kind} ({root.strerror})" if isinstance(root, OSError) and root.strerror else kind
