"""Where a reader of the change feed stands.

Changes are ordered by `changed_at` and `_id`, but others do not see them in that order: a write
has its time before it is visible, and a pod's clock, which stamps creations, may be behind. All
that is older than OVERLAP by the primary's clock is settled. What was sent of the time since is
remembered one by one, so that what comes late is found and what was sent is not sent again.
"""

import base64
import struct
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from conversation_service.http import cursors

# How late a change may become visible: the time until its write is on a majority, and how far
# the clocks of pods and of a next primary may be behind. What comes later still may be missed.
OVERLAP = timedelta(minutes=1)
OVERLAP_MS = int(OVERLAP.total_seconds() * 1000)
# A cursor has so many changes at most, that it fits into an address. See FeedCursor.ahead.
MAX_SENT = 50
# A client that polls and finds nothing keeps its cursor, and so its ETag, for so long.
REFRESH_MS = 24 * 60 * 60 * 1000

Place = tuple[int, str]  # milliseconds, and hex digits of an id or nothing, which is before all
_PLACE = struct.Struct(">Q12s")


@dataclass(frozen=True)
class FeedCursor:
    """All up to `since` has been sent for good, and what is in `sent` of what comes after it.

    Where more is sent in a minute than can be remembered, sending goes on after `ahead`, and when
    it is settled, once more after `since`: so that is sent twice, and nothing is missed. A
    snapshot goes `ahead` from the beginning, and on after `since`, which is when it was begun.
    """

    since: Place | None = None
    sent: frozenset[Place] = frozenset()
    ahead: Place | None = None
    is_snapshot: bool = False

    @property
    def after(self) -> Place:
        return self.ahead or self.since or (0, "")

    @property
    def newest_ms(self) -> int:
        """The time of the last change that was sent, unless it is settled."""
        return max(place[0] for place in (self.after, *self.sent))

    def is_to_return(self, now_ms: int) -> bool:
        """Tell whether what was sent ahead is settled, so that `since` is to be come back to."""
        if self.is_snapshot or self.ahead is None or self.since is None:
            return False
        return now_ms - OVERLAP_MS >= self.since[0] + OVERLAP_MS

    def advanced(self, places: list[Place], *, now_ms: int, more: bool) -> "FeedCursor":
        """Return the cursor behind a page: its places, and whether there are more.

        `now_ms` is of the primary's clock, from before the page was read.
        """
        settled = (now_ms - OVERLAP_MS, "")
        since = self.since or settled
        last = places[-1] if places else self.after
        if self.is_snapshot and more:
            return replace(self, since=since, ahead=last)
        if self.ahead and not self.is_snapshot:
            return replace(self, ahead=last)
        if not self.is_snapshot and (places or settled[0] - since[0] > REFRESH_MS):
            since = max(since, min(last, settled) if more else settled)
        sent = frozenset(place for place in (*self.sent, *places) if place > since)
        if len(sent) > MAX_SENT:
            return FeedCursor(since, ahead=last if more else max(sent))
        return FeedCursor(since, sent)


SNAPSHOT = FeedCursor(is_snapshot=True)


def cursor_since(user_id: str, moment: datetime) -> str:
    """Return the cursor of one who knows all that was visible at that moment."""
    return encode(user_id, FeedCursor((cursors.milliseconds(moment - OVERLAP), "")))


def encode(user_id: str, cursor: FeedCursor) -> str:
    return cursors.seal(_plain(cursor), binding=_binding(user_id))


def decode(user_id: str, text: str) -> FeedCursor:
    """Return the cursor, or raise InvalidCursor if it was not made by us for this user."""
    values = cursors.unseal(text, binding=_binding(user_id))
    if not values:
        return SNAPSHOT
    ms, id_, *rest = values
    if not rest:
        return FeedCursor((ms, id_))
    sent, ahead, is_snapshot = rest
    return FeedCursor((ms, id_), _unpacked(sent), tuple(ahead) if ahead else None, is_snapshot)


def _binding(user_id: str) -> str:
    return f"changes {user_id}"


def _plain(cursor: FeedCursor) -> list[Any]:
    if cursor.since is None:
        return []
    if not cursor.sent and not cursor.ahead:
        return [*cursor.since]
    return [*cursor.since, _packed(cursor.sent), cursor.ahead, cursor.is_snapshot]


def _packed(places: frozenset[Place]) -> str:
    packed = (_PLACE.pack(ms, bytes.fromhex(id_)) for ms, id_ in sorted(places))
    return base64.b64encode(b"".join(packed)).decode()


def _unpacked(text: str) -> frozenset[Place]:
    found = _PLACE.iter_unpack(base64.b64decode(text))
    return frozenset((ms, id_.hex()) for ms, id_ in found)


def moment(place: Place) -> datetime:
    return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=place[0])
