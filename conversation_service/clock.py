"""The service's clock."""

from datetime import UTC, datetime


def now() -> datetime:
    """Return the current time in UTC, cut to the milliseconds that MongoDB keeps.

    With more, a created object would answer with another time than the same object read back.
    """
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
