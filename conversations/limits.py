"""Bounds that the serializers and the database's validator share."""

from datetime import UTC, datetime, timedelta

from conversation_service.numbers import MAX_EXACT

TITLE_LENGTH = 200
TAGS = 10
TAG_LENGTH = 50
CUSTOM_KEYS = 16
CUSTOM_VALUE_LENGTH = 512
MODEL_LENGTH = 128
REASONING_EFFORT_LENGTH = 64
EXTRA_KEYS = 16
EXTRA_VALUE_LENGTH = 512
SETTING_NAME_LENGTH = 64
MAX_SETTINGS = 64  # names in `settings_given`, also from a later release
STOP_SEQUENCES = 10
STOP_SEQUENCE_LENGTH = 64
EXTERNAL_ID_LENGTH = 255  # characters in an id of another program, in an import
ID_LENGTH = 64  # characters in a conversation id before it is parsed
CURSOR_LENGTH = 8_190  # characters; the longest request line has 8,190
SEARCH_LENGTH = 65_536  # no request has a longer text
SEARCH_WORDS = 8
SEARCH_OPERATORS = 16
# In a list's `search.ignored`: words, and characters in a word.
IGNORED_WORDS = 100
IGNORED_LENGTH = 100
MAX_TAGS_LISTED = 200
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)  # earlier than every stored time

# How far the clock of another service may be ahead of the clock of the database.
MAX_AHEAD = timedelta(minutes=5)

# Stored in a conversation: its newest revisions, its newest idempotency keys, and the responses
# to the newest of these.
REVISIONS = 50
KEYS = 1_000
ANSWERS = 50

MAX_COUNT = MAX_EXACT

PAGE_SIZE = 20
MAX_PAGE_SIZE = 100
CHANGES_PAGE_SIZE = 100
MAX_CHANGES_PAGE_SIZE = 500
# Rows that page and per_page can skip. A cursor has no such bound.
MAX_SKIPPED_ROWS = 10_000

# Patterns for a whole string, without anchors: Python and MongoDB write its end differently.
# Any characters on one line except the comma, which separates tags in a query string.
TAG = r"[^\p{Cc}\p{Zl}\p{Zp},]+"
# Without dot and dollar sign, which have a meaning in a MongoDB path.
OBJECT_KEY = r"[A-Za-z0-9_:-]{1,64}"

# The maximum for a setting with a ceiling: a signed 32-bit integer.
MAX_WHOLE_SETTING = 2**31 - 1
