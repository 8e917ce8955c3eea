"""The numbers of the contract, for the serializers and for the database's validator."""

from dataclasses import dataclass
from datetime import UTC, datetime

from django.conf import settings

TITLE_LENGTH = 200
TAGS = 10
TAG_LENGTH = 50
CUSTOM_KEYS = 16
CUSTOM_VALUE_LENGTH = 512
STOP_SEQUENCES = 10
STOP_SEQUENCE_LENGTH = 64
ID_LENGTH = 64
SEARCH_LENGTH = 200
SEARCH_WORDS = 8
MAX_TAGS_LISTED = 200
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)  # before whatever has a time

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
# Ids of users and characters are made elsewhere; here they are opaque and compared exactly.
EXTERNAL_ID = r"[A-Za-z0-9_.:@-]{1,64}"
# Letters, marks and digits of any script, as serializers.Tag has them; and what MongoDB does not
# know yet (Cn), as its Unicode is older than Python's.
TAG = r"[\p{L}\p{M}\p{N}\p{Cn} _.-]+"
# No dot and no dollar sign: both mean something in a MongoDB path.
CUSTOM_KEY = r"[A-Za-z0-9_:-]{1,64}"


@dataclass(frozen=True)
class Bounds:
    """What a number among the LLM settings may be, both ends inclusive."""

    minimum: float
    maximum: float
    default: float

    @property
    def is_whole(self) -> bool:
        return isinstance(self.default, int)


def _ceiling(maximum: int, default: int) -> Bounds:
    return Bounds(1, maximum, min(default, maximum))


LLM_SETTINGS = {
    "temperature": Bounds(0, 2, 0.7),
    "max_tokens": _ceiling(settings.MAX_TOKENS_CEILING, 2048),
    "context_window": _ceiling(settings.CONTEXT_WINDOW_CEILING, 4000),
    "top_p": Bounds(0, 1, 0.9),
    "frequency_penalty": Bounds(-2, 2, 0.0),
    "presence_penalty": Bounds(-2, 2, 0.0),
}
