"""Visible and invisible characters."""

import re
import unicodedata

# For a character class: Unicode's Default_Ignorable_Code_Point, without the two joiners.
IGNORABLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_BLANKS = "\u2800\U0001d159"  # BRAILLE PATTERN BLANK, MUSICAL SYMBOL NULL NOTEHEAD
# Code points that Unicode never assigns: the last two in each plane, and 32 others.
_NONCHARACTERS = "\ufdd0-\ufdef" + "".join(
    chr(plane | last) for plane in range(0, 0x110000, 0x10000) for last in (0xFFFE, 0xFFFF)
)
_INVISIBLE = re.compile(f"[{IGNORABLE}{_BLANKS}{_NONCHARACTERS}]+")
# Marks combine with a character before them, so they are visible only with one. Unassigned and
# private characters can be visible: newer emoji, logos.
_INVISIBLE_CATEGORIES = {"Zs", "Zl", "Zp", "Cc", "Cf", "Cs", "Mn", "Mc", "Me"}


def is_visible(text: str) -> bool:
    """Return True for a text with at least one visible character."""
    rest = _INVISIBLE.sub("", text)
    return any(unicodedata.category(character) not in _INVISIBLE_CATEGORIES for character in rest)
