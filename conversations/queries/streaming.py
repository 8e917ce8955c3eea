"""The change feed for those who wait for what comes."""

import logging
import time
from collections.abc import Generator

from django.conf import settings
from pymongo.errors import PyMongoError

from conversation_service import shutdown
from conversation_service.http import event_stream
from conversations.queries import feed, feed_cursor
from conversations.queries.feed import Page
from conversations.queries.feed_cursor import FeedCursor
from conversations.queries.waiters import Waiter, waiters

logger = logging.getLogger(__name__)

RECONNECT_S = 2.0


def page(user_id: str, cursor: FeedCursor, limit: int, *, wait_s: float) -> Page:
    """Return a page, and wait for its first change so long. Raises StreamsExhausted."""
    found = feed.page(user_id, cursor, limit)
    if found.rows or not wait_s:
        return found
    ends = time.monotonic() + wait_s
    with waiters.waiter(user_id) as waiter:
        while not (found.rows or shutdown.begun.is_set() or time.monotonic() >= ends):
            waiter.wait(found.next.newest_ms, ends - time.monotonic())
            found = feed.page(user_id, cursor, limit)
    return found


def events(waiter: Waiter, page: Page, limit: int, *, lasts_s: float) -> Generator[bytes]:
    """Yield a page and all that comes, until the time is over or the process is to stop.

    After a failure of MongoDB it ends: the client connects again and goes on where it was.
    """
    ends = time.monotonic() + min(lasts_s, settings.CHANGES_STREAM_S)
    yield event_stream.retry(RECONNECT_S)
    while True:
        for change, cursor in page.steps():
            id_ = feed_cursor.encode(waiter.user_id, cursor)
            yield event_stream.event("change", change, id_=id_)
        left_s = ends - time.monotonic()
        if shutdown.begun.is_set() or left_s <= 0:
            return
        if not page.has_more:
            quiet_s = min(left_s, settings.CHANGES_HEARTBEAT_S)
            if not waiter.wait(page.next.newest_ms, quiet_s):
                yield event_stream.HEARTBEAT
        try:
            page = feed.page(waiter.user_id, page.next, limit)
        except PyMongoError as error:
            logger.warning("A stream of changes ends: %s", type(error).__name__)
            return
