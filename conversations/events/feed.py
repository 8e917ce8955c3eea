"""Pages of the event log for services, with a signed cursor."""

import time
from collections.abc import Collection
from dataclasses import dataclass

from conversation_service import shutdown
from conversation_service.http import cursors
from conversations.events import log
from conversations.events.log import Event
from conversations.exceptions import EventsCursorExpired
from conversations.queries.waiters import Waiters

_BINDING = "events"

waiters = Waiters(lambda services: dict.fromkeys(services, log.newest_seq()))


@dataclass(frozen=True)
class EventPage:
    """Events after a position. The next page begins after the position `next`."""

    events: list[Event]
    next: int
    has_more: bool


def encode(position: int) -> str:
    return cursors.seal([position], binding=_BINDING)


def decode(cursor: str) -> int:
    """Return the position in a cursor from encode(), or raise InvalidCursor."""
    [position] = cursors.unseal(cursor, binding=_BINDING)
    return int(position)


def read_page(after: int | None, types: Collection[str] | None, limit: int) -> EventPage:
    """Read events after a position; None starts at the oldest event.

    Raises EventsCursorExpired if an event after the position was deleted.
    """
    newest = log.newest_seq()  # first: the next statement sees all events up to this one
    found = log.read(after or 0, types=types, limit=limit + 1)
    if after is not None:
        is_next = bool(found) and found[0]["seq"] == after + 1
        # A new primary can be behind the position for a moment. A restored database stays behind.
        is_ahead = after > newest and after > log.newest_seq(confirmed=True)
        # Checked after the page was read, as MongoDB can delete events between two statements.
        if is_ahead or (not is_next and after + 1 < log.oldest_seq()):
            raise EventsCursorExpired(oldest_cursor=encode(log.oldest_seq() - 1))
    events = found[:limit]
    last = events[-1]["seq"] if events else after or 0
    if len(found) > limit:
        return EventPage(events, last, has_more=True)
    # With rare types, the cursor passes all other events, so that it does not expire.
    return EventPage(events, max(last, newest), has_more=False)


def wait_for_page(
    service: str, page: EventPage, types: Collection[str] | None, limit: int, *, wait_s: float
) -> EventPage:
    """Wait up to `wait_s` for events after an empty page. Raises StreamsExhausted."""
    ends = time.monotonic() + wait_s
    with waiters.register(service) as waiter:
        while not (page.events or shutdown.begun.is_set() or time.monotonic() >= ends):
            waiter.wait(page.next, ends - time.monotonic())
            page = read_page(page.next, types, limit)
    return page
