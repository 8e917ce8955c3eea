"""Times as RFC 3339 writes them."""

import re
from datetime import UTC, datetime, timedelta

_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ]"
    r"((?:[01]\d|2[0-3]):[0-5]\d):(\d\d)(?:\.(\d+))?"
    r"([Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)",
    re.ASCII,
)
_MILLISECOND = timedelta(milliseconds=1)


def parse(text: str) -> datetime:
    """Return the time in UTC, truncated to milliseconds. Raises ValueError.

    Date and time are joined by T, t or a space. A leap second, the second 60 at the end of a month
    in UTC, becomes the last millisecond before it, as no leap second can be stored.
    """
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError("This is not a time of RFC 3339.")
    date, minute, second, fraction, offset = found.groups()
    milliseconds = f"{fraction or ''}000"[:3]
    if is_leap_second := second == "60":
        second, milliseconds = "59", "999"
    try:
        moment = datetime.fromisoformat(f"{date}T{minute}:{second}.{milliseconds}{offset.upper()}")
        moment = moment.astimezone(UTC)
        if is_leap_second and (moment + _MILLISECOND).strftime("%d %H:%M") != "01 00:00":
            raise ValueError("A leap second is at the end of a month.")
    except OverflowError:
        raise ValueError("The time is not in the years 1 to 9999 in UTC.") from None
    return moment
