"""The service's clock."""

from datetime import UTC, datetime


def now() -> datetime:
    """Return the current time in UTC, cut to the milliseconds that MongoDB keeps.

    Otherwise the response to a creation would differ from a later read of the same object.
    """
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def naive_now() -> datetime:
    """Return now() as PyMongo reads times from MongoDB: in UTC, without a time zone."""
    return now().replace(tzinfo=None)
