"""Integers in JSON."""

from typing import Any

# JavaScript, and every float, represents all integers up to this one exactly.
MAX_EXACT = 2**53 - 1


def read_integer(value: Any) -> int | None:
    """Return a parsed JSON number without a fraction as an int, or None.

    As in JSON Schema 2020-12, 2048.0 and 1e3 are integers. A float beyond MAX_EXACT is None: the
    text may have had another number.
    """
    if isinstance(value, float) and value.is_integer() and abs(value) <= MAX_EXACT:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
