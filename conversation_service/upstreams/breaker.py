"""Sparing a neighbour that fails, and us the wait for it."""

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
    """Opens after `threshold` failures in a row; after `recovery_s` one call may try.

    pybreaker keeps the states. It is told the outcome of each call rather than given the call:
    it holds its lock for as long as what it calls, so that only one call would run at a time.
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
        """Return whether a call may be made. It must then be made under watching()."""
        with self._lock:
            if self.state == STATE_OPEN and not self.remaining_s():
                self._states.half_open()
                return True
            return self.state == STATE_CLOSED

    def remaining_s(self) -> float:
        """Return how long no call will be admitted for sure."""
        if self.state != STATE_OPEN or self._storage.opened_at is None:
            return 0.0
        open_s = (datetime.now(UTC) - self._storage.opened_at).total_seconds()
        return max(0.0, self._states.reset_timeout - open_s)

    @contextmanager
    def watching(self, *, answered: type[Exception]) -> Iterator[None]:
        """Count how the call in here ends; an exception of type `answered` is no failure."""
        try:
            yield
        except answered:
            self._record(None)
            raise
        except BaseException as error:
            self._record(error)
            raise
        self._record(None)

    def _record(self, failure: BaseException | None) -> None:
        # It repeats the failure, or says that it opened, or that it has been open all along.
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
