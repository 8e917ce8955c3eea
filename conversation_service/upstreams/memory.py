"""What neighbours answered lately: in this process, and in Redis for all of them."""

import json
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from math import ceil
from operator import attrgetter
from threading import Lock
from time import time
from typing import Any, NamedTuple

from conversation_service import redis
from conversation_service.observability.metrics import REMEMBERED_ANSWERS
from conversation_service.upstreams import http

MOST_ENTRIES = 2_000  # per neighbour, in this process


class Entry(NamedTuple):
    """A value, and seconds since 1970 until when it is fresh, and until when it will do."""

    value: Any
    fresh_until: float
    usable_until: float


NOTHING = Entry(None, 0.0, 0.0)


@dataclass(frozen=True)
class Answered:
    """A JSON value, for how long it need not be asked for again, and for how long it will do
    while the neighbour does not answer.
    """

    value: Any
    fresh_s: float
    usable_s: float


class Memory:
    """The answers of one neighbour; safe to share between threads and greenlets."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._own = _Own()
        self._lock = Lock()
        self._under_way: dict[str, Future[Any]] = {}
        self._fresh, self._missing, self._stale = (
            REMEMBERED_ANSWERS.labels(name, outcome) for outcome in ("fresh", "missing", "stale")
        )

    def answer(self, key: str, ask: Callable[[], Answered]) -> Any:
        """Return the value that is remembered, or else the one that `ask` gives.

        All who miss the same key at the same time in this process share one call of `ask`. If it
        raises NoAnswer, a value that is no longer fresh will do; without one, this raises it.
        """
        value, fresh = self._recall(key)
        if fresh:
            self._fresh.inc()
            return value
        self._missing.inc()
        try:
            return self._once(key, partial(self._renew, key, ask))
        except http.NoAnswer:
            if fresh is None:
                raise
            self._stale.inc()
            return value

    def _renew(self, key: str, ask: Callable[[], Answered]) -> Any:
        value, fresh = self._recall(key)  # somebody may just have asked
        if fresh:
            return value
        answered = ask()
        now = time()
        entry = Entry(answered.value, now + answered.fresh_s, now + answered.usable_s)
        self._own.keep(key, entry)
        _keep_in_redis(f"{self._name}:{key}", json.dumps(entry), answered.usable_s)
        return answered.value

    def _recall(self, key: str) -> tuple[Any, bool | None]:
        """Return a value and whether it is fresh: None if there is none at all."""
        now = time()
        entry = self._own.recall(key)
        if now >= entry.fresh_until and (sent := _recall_from_redis(f"{self._name}:{key}")):
            entry = max(entry, Entry(*json.loads(sent)), key=attrgetter("fresh_until"))
            self._own.keep(key, entry)
        if now >= entry.usable_until:
            return None, None
        return entry.value, now < entry.fresh_until

    def _once(self, key: str, call: Callable[[], Any]) -> Any:
        with self._lock:
            under_way = self._under_way.get(key)
            if under_way is None:
                mine = self._under_way[key] = Future()
        if under_way is not None:
            return _awaited(under_way)
        try:
            result = call()
        except BaseException as error:
            mine.set_exception(error)
            raise
        else:
            mine.set_result(result)
            return result
        finally:
            with self._lock:
                del self._under_way[key]


def _awaited(under_way: Future[Any]) -> Any:
    try:
        return under_way.result(max(0.0, http.time_left_s()))
    except TimeoutError:
        raise http.NoAnswer("Another request's question takes too long") from None


class _Own:
    """This process's part: the newest MOST_ENTRIES."""

    def __init__(self) -> None:
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._lock = Lock()

    def recall(self, key: str) -> Entry:
        return self._entries.get(key, NOTHING)

    def keep(self, key: str, entry: Entry) -> None:
        with self._lock:
            self._entries[key] = entry
            self._entries.move_to_end(key)
            if len(self._entries) > MOST_ENTRIES:
                self._entries.popitem(last=False)


def _recall_from_redis(key: str) -> bytes | None:
    try:
        found: bytes | None = redis.ask(lambda server: server.get(key))  # type: ignore[assignment]
    except redis.Unavailable:
        return None
    return found


def _keep_in_redis(key: str, entry: str, for_s: float) -> None:
    with suppress(redis.Unavailable):
        redis.ask(lambda server: server.set(key, entry, px=max(1, ceil(for_s * 1000))))
