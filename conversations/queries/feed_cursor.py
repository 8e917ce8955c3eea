"""The feed cursor: which changes its reader has.

Changes are ordered by `changed_at` and `_id`, but they do not become visible in that order: a write
has its time before a majority has the write, and a pod's clock, which stamps creations, may be
behind. Changes older than OVERLAP by the primary's clock are settled. The cursor lists each newer
change that was sent, so that late changes are found and no change is sent twice.
"""

import base64
import struct
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from conversation_service.http import cursors

# The longest delay until a change is visible: the time until its write is on a majority, plus the
# difference between the pods' and the primaries' clocks. The feed may miss a later change.
OVERLAP = timedelta(minutes=1)
OVERLAP_MS = int(OVERLAP.total_seconds() * 1000)
# Changes that a cursor lists at most, so that a URL can hold the cursor.
MAX_SENT = 50
# While a client polls without changes, its cursor, and so the ETag, stays equal for this time.
REFRESH_MS = 24 * 60 * 60 * 1000

# `changed_at` in milliseconds, and the id in hexadecimal; an empty id is before each other id.
ChangeKey = tuple[int, str]
_KEY = struct.Struct(">Q12s")


@dataclass(frozen=True)
class FeedCursor:
    """The reader has all changes up to `since`, and the changes in `sent`.

    If one minute has more than MAX_SENT changes, the feed continues after `ahead` without a list.
    Once `ahead` is settled, the feed returns to `since` and sends the changes in between again. A
    snapshot reads `ahead` from the start, and then continues after `since`, the time when its
    first page was read.
    """

    since: ChangeKey | None = None
    sent: frozenset[ChangeKey] = frozenset()
    ahead: ChangeKey | None = None
    is_snapshot: bool = False

    @property
    def after(self) -> ChangeKey:
        return self.ahead or self.since or (0, "")

    @property
    def newest_ms(self) -> int:
        """The newest sent change's time, or an earlier time if that change is settled."""
        return max(key[0] for key in (self.after, *self.sent))

    def returns_to_since(self, now_ms: int) -> bool:
        """Return True if all up to `ahead` is settled, so that the next page starts at `since`."""
        if self.is_snapshot or self.ahead is None or self.since is None:
            return False
        return now_ms - OVERLAP_MS >= self.since[0] + OVERLAP_MS

    def advanced(self, keys: list[ChangeKey], *, now_ms: int, more: bool) -> "FeedCursor":
        """Return the cursor after a page with these changes; `more` if others follow the page.

        `now_ms` is the primary's time before the page was read.
        """
        settled = (now_ms - OVERLAP_MS, "")
        since = self.since or settled
        last = keys[-1] if keys else self.after
        if self.is_snapshot and more:
            return replace(self, since=since, ahead=last)
        if self.ahead and not self.is_snapshot:
            return replace(self, ahead=last)
        if not self.is_snapshot and (keys or settled[0] - since[0] > REFRESH_MS):
            since = max(since, min(last, settled) if more else settled)
        sent = frozenset(key for key in (*self.sent, *keys) if key > since)
        if len(sent) > MAX_SENT:
            return FeedCursor(since, ahead=last if more else max(sent))
        return FeedCursor(since, sent)


SNAPSHOT = FeedCursor(is_snapshot=True)


def cursor_since(user_id: str, moment: datetime) -> str:
    """Return a cursor for a client that has all changes visible at that time."""
    return encode(user_id, FeedCursor((cursors.milliseconds(moment - OVERLAP), "")))


def encode(user_id: str, cursor: FeedCursor) -> str:
    values: list[object] = [*(cursor.since or ())]
    if cursor.since and (cursor.sent or cursor.ahead):
        sent = b"".join(_KEY.pack(ms, bytes.fromhex(id_)) for ms, id_ in sorted(cursor.sent))
        values += [base64.b64encode(sent).decode(), cursor.ahead, cursor.is_snapshot]
    return cursors.seal(values, binding=_binding(user_id))


def decode(user_id: str, text: str) -> FeedCursor:
    """Return a cursor that encode() made for this user, or raise InvalidCursor."""
    values = cursors.unseal(text, binding=_binding(user_id))
    if not values:
        return SNAPSHOT
    ms, id_, *rest = values
    if not rest:
        return FeedCursor((ms, id_))
    packed, ahead, is_snapshot = rest
    sent = frozenset((ms, id_.hex()) for ms, id_ in _KEY.iter_unpack(base64.b64decode(packed)))
    return FeedCursor((ms, id_), sent, tuple(ahead) if ahead else None, is_snapshot)


def _binding(user_id: str) -> str:
    return f"changes {user_id}"
