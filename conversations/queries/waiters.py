"""Those in this process who wait for changes, and the one statement a second for all of them.

A change stream would bring every process every write of everybody, and look up for each whose it
is. This reads, from the index alone, what changed lately of those who wait.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Lock, Thread

from django.conf import settings
from pymongo.errors import PyMongoError

from conversation_service import clock, shutdown
from conversation_service.http import cursors
from conversations import collection
from conversations.exceptions import StreamsExhausted
from conversations.queries.feed import INDEX
from conversations.queries.feed_cursor import OVERLAP

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Waiter:
    user_id: str
    newest_ms: int = 0
    _woken: Event = field(default_factory=Event)

    def wait(self, newest_ms: int, timeout_s: float) -> bool:
        """Wait for a change that is later than `newest_ms`; return whether there may be one.

        What becomes visible late does not wake: whoever waits looks for that now and then.
        """
        self.newest_ms = newest_ms
        self._woken.clear()
        if shutdown.begun.is_set():
            return True
        return self._woken.wait(timeout_s)

    def wake(self) -> None:
        self._woken.set()


class Waiters:
    def __init__(self) -> None:
        self._lock = Lock()
        self._waiters: dict[str, list[Waiter]] = {}
        self._thread: Thread | None = None

    @contextmanager
    def waiter(self, user_id: str) -> Iterator[Waiter]:
        """Have a place among those who wait, or raise StreamsExhausted."""
        waiter = Waiter(user_id)
        with self._lock:
            self._admit(waiter)
        try:
            yield waiter
        finally:
            with self._lock:
                self._waiters[user_id].remove(waiter)
                if not self._waiters[user_id]:
                    del self._waiters[user_id]

    def _admit(self, waiter: Waiter) -> None:
        mine = self._waiters.get(waiter.user_id, [])
        everybody = sum(map(len, self._waiters.values()))
        if len(mine) >= settings.CHANGES_WAITING_PER_USER or everybody >= settings.CHANGES_WAITING:
            raise StreamsExhausted
        self._waiters[waiter.user_id] = [*mine, waiter]
        if self._thread is None or not self._thread.is_alive():
            self._thread = Thread(target=self._look_on, name="changes", daemon=True)
            self._thread.start()

    def _look_on(self) -> None:
        while not shutdown.begun.wait(settings.CHANGES_LOOK_S):
            with self._lock:
                if not self._waiters:
                    self._thread = None
                    return
                users = [*self._waiters]
            try:
                latest = latest_changes(users)
            except PyMongoError as error:
                logger.warning("Cannot look for changes: %s", type(error).__name__)
                continue
            for waiter in self._all():
                if latest.get(waiter.user_id, 0) > waiter.newest_ms:
                    waiter.wake()
        for waiter in self._all():
            waiter.wake()

    def _all(self) -> list[Waiter]:
        with self._lock:
            return [waiter for waiters in self._waiters.values() for waiter in waiters]


def latest_changes(users: list[str]) -> dict[str, int]:
    """Return the time of the latest change, in milliseconds, of those who had one lately."""
    lately = {"$gte": clock.now() - OVERLAP}
    rows = collection.conversations().aggregate(
        [
            {"$match": {"user_id": {"$in": users}, "changed_at": lately}},
            {"$group": {"_id": "$user_id", "at": {"$max": "$changed_at"}}},
        ],
        hint=INDEX,
    )
    return {row["_id"]: cursors.milliseconds(row["at"]) for row in rows}


waiters = Waiters()
