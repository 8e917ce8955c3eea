"""When a delivery is attempted again, and when a failing endpoint is disabled."""

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
LAST_TRY = len(PAUSES) - 1  # after so many failed tries, one attempt is left
JITTER = 0.2  # up to 20 % more or less: events that fail together are repeated apart
# An endpoint that fails for this time, without a success, is disabled.
FAILING_FOR = timedelta(days=5)


def next_attempt(now: datetime, tries: int, retry_after_s: float | None) -> datetime | None:
    """Return the time for the attempt after `tries` failed ones; None after the last.

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
