"""When a delivery is attempted again, and when an endpoint counts as dead."""

import random
from datetime import datetime, timedelta

# The pause before each attempt. After the last one, about 3 days later, the delivery has failed.
PAUSES = (
    timedelta(0),
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    *(timedelta(hours=hours) for hours in (2, 5, 10, 14, 20, 24)),
)
JITTER = 0.2  # of a pause, in both directions: events that fail together return apart
# Without a success for this time, an endpoint that fails is disabled.
FAILING_FOR = timedelta(days=5)


def next_attempt(now: datetime, tries: int, retry_after_s: float | None) -> datetime | None:
    """Return the time of the attempt after `tries` failed ones; None after the last.

    Retry-After applies within the pause and its double.
    """
    if tries >= len(PAUSES):
        return None
    pause_s = PAUSES[tries].total_seconds()
    if retry_after_s is None:
        pause_s *= random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311
    else:
        pause_s = min(max(retry_after_s, pause_s), 2 * pause_s)
    return now + timedelta(milliseconds=round(pause_s * 1_000))
