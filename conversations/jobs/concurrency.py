"""Limits for concurrent imports and exports in a process.

Each can use tens of MiB in memory or in the temporary folder, until its client has finished.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

from django.utils.translation import gettext_lazy as _

from conversation_service.errors import RateLimitExceeded
from conversations import metrics
from conversations.exceptions import TransfersExhausted


class ConcurrencyLimit:
    """At most `per_user` requests at a time for each user, and `total` for all users."""

    def __init__(self, *, per_user: int, total: int) -> None:
        self.per_user = per_user
        self.total = total
        self._running: Counter[str] = Counter()
        # The garbage collector may close an abandoned slot while this thread holds the lock.
        self._lock = RLock()

    @contextmanager
    def slot(self, user_id: str) -> Iterator[None]:
        """Hold a slot within the block. Raises RateLimitExceeded or TransfersExhausted."""
        with self._lock:
            if self._running[user_id] >= self.per_user:
                raise RateLimitExceeded(
                    _("Wait until your other import or export has ended."),
                    again_in_s=TransfersExhausted.again_in_s,
                    limit=self.per_user,
                    retry_after_s=TransfersExhausted.again_in_s,
                )
            if self._running.total() >= self.total:
                metrics.LIMIT_REJECTIONS.labels("transfers").inc()
                raise TransfersExhausted
            self._running[user_id] += 1
        try:
            yield
        finally:
            with self._lock:
                self._running[user_id] -= 1
                if not self._running[user_id]:
                    del self._running[user_id]


# A body takes up to 16 MiB in the temporary folder: two workers fill its 128 MiB.
imports = ConcurrencyLimit(per_user=1, total=4)
# The longest line takes up to 32 MiB while it is sent.
exports = ConcurrencyLimit(per_user=2, total=6)
