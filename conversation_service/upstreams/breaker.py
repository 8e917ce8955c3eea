"""A circuit breaker: after repeated failures, requests to an upstream fail at once."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from threading import Lock

from pybreaker import (
    STATE_CLOSED,
    STATE_HALF_OPEN,
    STATE_OPEN,
    CircuitBreaker,
    CircuitBreakerError,
    CircuitBreakerListener,
    CircuitBreakerState,
    CircuitMemoryStorage,
)

from conversation_service.observability.metrics import CIRCUIT_BREAKER_STATE

logger = logging.getLogger(__name__)

STATES = {STATE_CLOSED: 0, STATE_HALF_OPEN: 1, STATE_OPEN: 2}


class Breaker:
    """Opens after `threshold` failures in a row. After `recovery_s`, lets one request through.

    pybreaker keeps the states, and gets each outcome afterwards: as it holds its lock while it runs
    a function, requests within it would run in sequence.
    """

    def __init__(self, name: str, *, threshold: int, recovery_s: float) -> None:
        self._storage = CircuitMemoryStorage(STATE_CLOSED)
        self._states = CircuitBreaker(
            fail_max=threshold,
            reset_timeout=recovery_s,
            state_storage=self._storage,
            listeners=[_Announcer()],
            name=name,
        )
        self._lock = Lock()
        CIRCUIT_BREAKER_STATE.labels(name).set(STATES[STATE_CLOSED])

    @property
    def state(self) -> str:
        """ "closed", "half-open" or "open"."""
        return self._states.current_state

    def admits(self) -> bool:
        """Return True if a request may be sent; the caller sends it within watching()."""
        with self._lock:
            if self.state == STATE_OPEN and not self.remaining_s():
                self._states.half_open()
                return True
            return self.state == STATE_CLOSED

    def remaining_s(self) -> float:
        """Return the seconds for which no request will be let through."""
        if self.state != STATE_OPEN or self._storage.opened_at is None:
            return 0.0
        open_s = (datetime.now(UTC) - self._storage.opened_at).total_seconds()
        return max(0.0, self._states.reset_timeout - open_s)

    @contextmanager
    def watching(self, *, success: type[Exception]) -> Iterator[None]:
        """Record the outcome of the request within. An exception `success` is a success."""
        try:
            yield
        except success:
            self._record(None)
            raise
        except BaseException as error:
            self._record(error)
            raise
        self._record(None)

    def _record(self, failure: BaseException | None) -> None:
        # pybreaker raises the failure again, or CircuitBreakerError if it opens or is open.
        with suppress(CircuitBreakerError, *([type(failure)] if failure else [])):
            self._states.call(_repeat, failure)


def _repeat(failure: BaseException | None) -> None:
    if failure:
        raise failure


class _Announcer(CircuitBreakerListener):
    def state_change(
        self,
        cb: CircuitBreaker,
        old_state: CircuitBreakerState | None,
        new_state: CircuitBreakerState,
    ) -> None:
        CIRCUIT_BREAKER_STATE.labels(cb.name).set(STATES[new_state.name])
        logger.warning("The circuit breaker of %s is %s", cb.name, new_state.name)
