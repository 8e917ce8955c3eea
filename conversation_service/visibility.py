"""Visible and invisible characters."""

import re
import unicodedata

# A part of a character class: Unicode's Default_Ignorable_Code_Point, without the two joiners.
IGNORABLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_IGNORABLE_OR_BLANK = re.compile(rf"[{IGNORABLE}\u2800]+")  # U+2800: BRAILLE PATTERN BLANK
# Unassigned and private characters can be visible: newer emoji, logos.
_INVISIBLE_CATEGORIES = {"Zs", "Zl", "Zp", "Cc", "Cf", "Cs"}


def is_visible(text: str) -> bool:
    """Return True for a text with at least one visible character."""
    rest = _IGNORABLE_OR_BLANK.sub("", text)
    return any(unicodedata.category(character) not in _INVISIBLE_CATEGORIES for character in rest)
