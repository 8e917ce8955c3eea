"""The requests that wait for changes in this process, and the statement that wakes them.

Every CHANGES_LOOK_S it reads the latest change for each waiting caller. For users it reads the
index alone: a change stream would send every user's writes to each process.
"""

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Lock, Thread

from django.conf import settings
from pymongo.errors import PyMongoError

from conversation_service import clock, shutdown
from conversation_service.http.cursors import milliseconds
from conversations import metrics
from conversations.collection import conversations
from conversations.exceptions import StreamsExhausted
from conversations.queries.feed import INDEX
from conversations.queries.feed_cursor import OVERLAP

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Waiter:
    """A request that waits for changes. `caller_id` is the id of a user or the name of a service.

    `newest` is the newest change that the request has, as the time in milliseconds or as a
    position.
    """

    caller_id: str
    newest: int = 0
    woken: Event = field(default_factory=Event)

    def wait(self, newest: int, timeout_s: float) -> bool:
        """Wait for a change later than `newest`; return False after `timeout_s` without any.

        A change that becomes visible late does not wake the request: read again after a timeout.
        """
        self.newest = newest
        self.woken.clear()
        return shutdown.begun.is_set() or self.woken.wait(timeout_s)


class Waiters:
    """All waiters in this process. A thread wakes them, and ends when none are left.

    `latest` returns the latest change for each of these callers.
    """

    def __init__(self, latest: Callable[[Collection[str]], Mapping[str, int]]) -> None:
        self._latest = latest
        self._lock = Lock()
        self._waiters: set[Waiter] = set()
        self._thread: Thread | None = None

    @contextmanager
    def register(self, caller_id: str) -> Iterator[Waiter]:
        """Register a waiter; raise StreamsExhausted if the caller or the process has too many."""
        waiter = Waiter(caller_id)
        with self._lock:
            total = len(self._waiters)
            own = sum(other.caller_id == caller_id for other in self._waiters)
            metrics.CHANGES_WAITING.labels("limit").set(settings.CHANGES_WAITING)
            full = total >= settings.CHANGES_WAITING
            if full or own >= settings.CHANGES_WAITING_PER_USER:
                metrics.LIMIT_REJECTIONS.labels("streams" if full else "user_streams").inc()
                raise StreamsExhausted
            self._waiters.add(waiter)
            metrics.CHANGES_WAITING.labels("waiting").inc()
            if self._thread is None or not self._thread.is_alive():
                self._thread = Thread(target=self._poll, name="changes", daemon=True)
                self._thread.start()
        try:
            yield waiter
        finally:
            with self._lock:
                self._waiters.remove(waiter)
                metrics.CHANGES_WAITING.labels("waiting").dec()

    def _poll(self) -> None:
        while not shutdown.begun.wait(settings.CHANGES_LOOK_S):
            with self._lock:
                if not self._waiters:
                    self._thread = None
                    return
                waiting = [*self._waiters]
            try:
                latest = self._latest({waiter.caller_id for waiter in waiting})
            except PyMongoError as error:
                logger.warning("Cannot look for changes: %s", type(error).__name__)
                continue
            for waiter in waiting:
                if latest.get(waiter.caller_id, 0) > waiter.newest:
                    waiter.woken.set()
        with self._lock:
            for waiter in self._waiters:
                waiter.woken.set()


def latest_changes(users: Collection[str]) -> dict[str, int]:
    """Return each user's latest change in milliseconds, if newer than OVERLAP."""
    recent = {"$gte": clock.now() - OVERLAP}
    rows = conversations().aggregate(
        [
            {"$match": {"user_id": {"$in": [*users]}, "changed_at": recent}},
            {"$group": {"_id": "$user_id", "at": {"$max": "$changed_at"}}},
        ],
        hint=INDEX,
    )
    return {row["_id"]: milliseconds(row["at"]) for row in rows}


waiters = Waiters(latest_changes)
