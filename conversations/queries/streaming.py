"""The change feed for clients that wait for changes: long polls and event streams."""

import logging
import time
from collections.abc import Generator

from django.conf import settings
from pymongo.errors import PyMongoError

from conversation_service import shutdown
from conversation_service.http import event_stream
from conversations.queries import feed_cursor
from conversations.queries.feed import FeedPage, read_page
from conversations.queries.feed_cursor import FeedCursor
from conversations.queries.waiters import Waiter, waiters

logger = logging.getLogger(__name__)

RECONNECT_S = 2.0


def wait_for_page(
    user_id: str, cursor: FeedCursor, empty_page: FeedPage, limit: int, *, wait_s: float
) -> FeedPage:
    """Wait up to `wait_s` for a change after an empty page, and return the page with the change.

    Raises StreamsExhausted.
    """
    ends = time.monotonic() + wait_s
    page = empty_page
    with waiters.register(user_id) as waiter:
        while not (page.rows or shutdown.begun.is_set() or time.monotonic() >= ends):
            waiter.wait(page.next.newest_ms, ends - time.monotonic())
            page = read_page(user_id, cursor, limit)
    return page


def events(waiter: Waiter, page: FeedPage, limit: int, *, lasts_s: float) -> Generator[bytes]:
    """Yield a page's changes and all later changes, for up to `lasts_s` or CHANGES_STREAM_S.

    The stream ends earlier if the process stops or MongoDB fails; the client then connects again
    with the last event's cursor.
    """
    ends = time.monotonic() + min(lasts_s, settings.CHANGES_STREAM_S)
    yield event_stream.retry(RECONNECT_S)
    while True:
        for change, cursor in page.steps():
            id_ = feed_cursor.encode(waiter.caller_id, cursor)
            yield event_stream.event("change", change, id_=id_)
        left_s = ends - time.monotonic()
        if shutdown.begun.is_set() or left_s <= 0:
            return
        if not page.has_more:
            quiet_s = min(left_s, settings.CHANGES_HEARTBEAT_S)
            if not waiter.wait(page.next.newest_ms, quiet_s):
                yield event_stream.HEARTBEAT
        try:
            page = read_page(waiter.caller_id, page.next, limit)
        except PyMongoError as error:
            logger.warning("A stream of changes ends: %s", type(error).__name__)
            return
