"""Cached responses of upstreams, in this process and in Redis for all processes."""

import json
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from operator import attrgetter
from threading import Lock
from time import time
from typing import Any, NamedTuple

from conversation_service import redis
from conversation_service.observability.metrics import REMEMBERED_ANSWERS
from conversation_service.upstreams import http

MAX_ENTRIES = 2_000  # per upstream, in this process


class CacheEntry(NamedTuple):
    """A JSON value, and the times until which it is fresh and usable, in seconds since 1970."""

    value: Any
    fresh_until: float
    usable_until: float


MISSING = CacheEntry(None, 0.0, 0.0)


@dataclass(frozen=True)
class Fetched:
    """A JSON value from an upstream: fresh for `fresh_s`, usable for `usable_s` if it fails."""

    value: Any
    fresh_s: float
    usable_s: float


class ResponseCache:
    """An upstream's cached responses; safe to share between threads and greenlets."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._local: OrderedDict[str, CacheEntry] = OrderedDict()
        self._lock = Lock()
        self._running: dict[str, Future[Any]] = {}
        self._fresh, self._missing, self._stale = (
            REMEMBERED_ANSWERS.labels(upstream, outcome)
            for outcome in ("fresh", "missing", "stale")
        )

    def get(self, key: str, fetch: Callable[[], Fetched]) -> Any:
        """Return the cached value if it is fresh, or else the value that `fetch` returns.

        Concurrent calls with the same key share a `fetch` in this process. If it raises
        UpstreamError, this returns a usable value; without a usable value, it raises the same.
        """
        entry = self._read(key)
        if time() < entry.fresh_until:
            self._fresh.inc()
            return entry.value
        self._missing.inc()
        try:
            return self._fetch_once(key, fetch)
        except http.UpstreamError:
            if time() >= entry.usable_until:
                raise
            self._stale.inc()
            return entry.value

    def _read(self, key: str) -> CacheEntry:
        entry = self._local.get(key, MISSING)
        if time() < entry.fresh_until:
            return entry
        with suppress(redis.Unavailable):
            if sent := redis.call(lambda server: server.get(f"{self._upstream}:{key}")):
                shared = CacheEntry(*json.loads(sent))
                entry = max(entry, shared, key=attrgetter("fresh_until"))
                self._keep(key, entry)
        return entry

    def _write(self, key: str, fetched: Fetched) -> None:
        now = time()
        entry = CacheEntry(fetched.value, now + fetched.fresh_s, now + fetched.usable_s)
        self._keep(key, entry)
        life_ms = max(1, ceil(fetched.usable_s * 1000))
        with suppress(redis.Unavailable):
            redis.call(
                lambda server: server.set(f"{self._upstream}:{key}", json.dumps(entry), px=life_ms)
            )

    def _keep(self, key: str, entry: CacheEntry) -> None:
        with self._lock:
            self._local[key] = entry
            self._local.move_to_end(key)
            if len(self._local) > MAX_ENTRIES:
                self._local.popitem(last=False)

    def _fetch_once(self, key: str, fetch: Callable[[], Fetched]) -> Any:
        with self._lock:
            running = self._running.get(key)
            if running is None:
                own = self._running[key] = Future()
        if running is not None:
            try:
                return running.result(max(0.0, http.time_left_s()))
            except TimeoutError:
                raise http.UpstreamError("An equal request takes too long") from None
        try:
            entry = self._read(key)  # another call may have ended just before
            if time() < entry.fresh_until:
                own.set_result(entry.value)
            else:
                fetched = fetch()
                self._write(key, fetched)
                own.set_result(fetched.value)
        except BaseException as error:
            own.set_exception(error)
            raise
        finally:
            with self._lock:
                del self._running[key]
        return own.result()
