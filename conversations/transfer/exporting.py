"""All that a user has, line by line."""

from collections.abc import Iterator
from typing import Any

from bson import ObjectId

from conversations import history, store
from conversations.documents import resource

END = "end"


def rows(user_id: str, after: ObjectId | None = None) -> Iterator[dict[str, Any]]:
    """Return all of a user's conversations with their history, and then how many they were."""
    count = 0
    for document in store.each_of(user_id, after):
        count += 1
        yield {**resource(document), "history": history.exported(document)}
    yield {"object": END, "count": count}
