"""Numbers and times, as other programs write them."""

import re
from datetime import UTC, datetime
from typing import Any

from conversation_service import numbers
from conversations.jobs.lenient import seconds

# A date and a time of day, only of years in which it cannot be a number of milliseconds.
_COMPACT_TIME = re.compile(r"((?:19[7-9]|20[0-9])[0-9]{5})([0-9]{4}(?:[0-9]{2})?)")
# Seconds since 1970, from 1973 on, or a shorter unit. Fewer digits are a date, such as 20240131.
_EPOCH = re.compile(r"[0-9]{9,}(?:\.[0-9]+)?")


def read_number(value: Any) -> float | None:
    """Return a finite number, also from text or MongoDB's {"$numberLong": "5"}, or None."""
    if isinstance(value, dict) and len(value) == 1:
        [(name, inner)] = value.items()
        value = inner if name.startswith("$number") else None
    return numbers.read_number(value)


def read_seconds(value: Any) -> tuple[float | None, bool]:
    """Return the seconds since 1970, or None; and whether the value is as exports have it.

    That is a number of seconds, MongoDB's extended JSON, or text with an offset. Other text is in
    UTC.
    """
    if isinstance(value, dict):
        value = value.get("$date")
        if (milliseconds := read_number(value)) is not None:
            value = milliseconds / 1000
    if isinstance(value, str):
        return _seconds_of_text(value.strip())
    number = read_number(value)
    if number is None:
        return None, False
    return seconds(number), seconds(number) == number


def _seconds_of_text(text: str) -> tuple[float | None, bool]:
    compact = _COMPACT_TIME.fullmatch(text)
    if compact:
        text = "T".join(compact.groups())
    elif _EPOCH.fullmatch(text):
        return seconds(float(text)), False
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None, False
    has_offset = moment.tzinfo is not None
    number = seconds((moment if has_offset else moment.replace(tzinfo=UTC)).timestamp())
    return number, has_offset and number is not None
