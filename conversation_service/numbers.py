"""Numbers in JSON and BSON."""

import math
from typing import Any

from bson import Decimal128

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


def read_number(value: Any) -> float | None:
    """Return a finite number, also from text, or None. Without a fraction, it is an int."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal128):
        return None
    try:
        number = float(str(value))
    except ValueError:
        return None
    if not math.isfinite(number):
        return None
    integer = read_integer(number)
    return number if integer is None else integer
