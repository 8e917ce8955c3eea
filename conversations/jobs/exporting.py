"""Exports a user's conversations, row by row."""

import time
from collections.abc import Generator
from typing import Any

from bson import ObjectId

from conversations import history
from conversations.documents import resource
from conversations.jobs.concurrency import exports
from conversations.queries import export

END = "end"


def rows(user_id: str, after: ObjectId | None = None) -> Generator[dict[str, Any]]:
    """Yield all the user's conversations with their history, and then their number.

    Holds an `exports` slot until it ends. Raises RateLimitExceeded or TransfersExhausted.
    """
    count = 0
    with exports.slot(user_id):
        for document in export.iter_conversations(user_id, after):
            count += 1
            time.sleep(0)  # under gevent, other requests run between two lines
            yield {**resource(document), "history": history.exported(document)}
        yield {"object": END, "count": count}
