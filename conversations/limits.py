"""The numbers of the contract, for the serializers and for the database's validator."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.conf import settings

TITLE_LENGTH = 200
TAGS = 10
TAG_LENGTH = 50
CUSTOM_KEYS = 16
CUSTOM_VALUE_LENGTH = 512
STOP_SEQUENCES = 10
STOP_SEQUENCE_LENGTH = 64
ID_LENGTH = 64  # bounds the text of a conversation id before it is parsed
SEARCH_LENGTH = 200
CURSOR_LENGTH = 8_190  # characters, as of the longest request line
SEARCH_WORDS = 8
MAX_TAGS_LISTED = 200
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)  # before whatever has a time

# How far the clock of another service may be ahead of the clock of the database.
MAX_AHEAD = timedelta(minutes=5)

# What a conversation remembers of itself: its newest revisions, and idempotency keys with the
# answers to the newest of them.
REVISIONS = 50
KEYS = 1_000
ANSWERS = 50

# What JavaScript and every JSON reader can still count exactly.
MAX_COUNT = 2**53 - 1

PAGE_SIZE = 20
MAX_PAGE_SIZE = 100
# Rows that page/per_page may skip; beyond it a cursor costs the same as at the start.
MAX_SKIPPED_ROWS = 10_000

# Patterns for a whole string, without anchors: Python and MongoDB write its end differently.
# Letters, marks and digits of any script, as serializers.Tag has them; and what MongoDB does not
# know yet (Cn), as its Unicode is older than Python's.
TAG = r"[\p{L}\p{M}\p{N}\p{Cn} _.-]+"
# No dot and no dollar sign: both mean something in a MongoDB path.
CUSTOM_KEY = r"[A-Za-z0-9_:-]{1,64}"


# The maximum of the settings that have a ceiling: that of a signed 32-bit integer.
MAX_WHOLE_SETTING = 2**31 - 1


@dataclass(frozen=True)
class Bounds:
    """What a number among the LLM settings may be, both ends inclusive.

    `minimum` and `maximum` hold for every stored value. `ceiling_variable` names the variable of
    this deployment with the maximum of values that users set; it may change at any restart, and
    stored values above it stay valid.
    """

    minimum: float
    maximum: float
    default: float
    ceiling_variable: str = ""

    @property
    def is_whole(self) -> bool:
        return isinstance(self.default, int)

    @property
    def ceiling(self) -> float:
        """The maximum of what a user may set in this deployment."""
        if not self.ceiling_variable:
            return self.maximum
        allowed: int = getattr(settings, self.ceiling_variable)
        return min(self.maximum, allowed)

    @property
    def default_for_new(self) -> float:
        """The default that a new conversation stores, and that null puts back."""
        return min(self.default, self.ceiling) if self.ceiling_variable else self.default


LLM_SETTINGS = {
    "temperature": Bounds(0, 2, 0.7),
    "max_tokens": Bounds(1, MAX_WHOLE_SETTING, 2048, "MAX_TOKENS_CEILING"),
    "context_window": Bounds(1, MAX_WHOLE_SETTING, 4000, "CONTEXT_WINDOW_CEILING"),
    "top_p": Bounds(0, 1, 0.9),
    "frequency_penalty": Bounds(-2, 2, 0.0),
    "presence_penalty": Bounds(-2, 2, 0.0),
}
