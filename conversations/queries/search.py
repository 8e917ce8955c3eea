"""A page of the conversations that words or tags find.

Two plans are possible, and a count up to IN_MEMORY_SORT_MAX chooses between them. If the index of
words has fewer matches, they are read and sorted in memory. Otherwise the index of the list is read
in its order, as enough of its rows match soon.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pymongo

from conversation_service.mongodb.connection import Document, first_batch
from conversations.collection import conversations
from conversations.queries.filters import WORDS, Condition, page_filter

IN_MEMORY_SORT_MAX = 1_000  # conversations
SEARCH_BUDGET_S = 2.0
_INDEX = "user_words"


def find(
    matching: Mapping[str, Any],
    words: Sequence[Condition],
    sides: list[Condition],
    *,
    list_index: str,
    **options: Any,
) -> list[Document]:
    """Read up to `limit` rows that match, on the side of a cursor if there is one.

    Raises pymongo.errors.PyMongoError with `timeout` set after SEARCH_BUDGET_S.
    """
    with pymongo.timeout(SEARCH_BUDGET_S):
        where = _by_rare_word(matching, words)
        found = conversations().count_documents(where, hint=_INDEX, limit=IN_MEMORY_SORT_MAX)
        if not found:
            return []
        if found == IN_MEMORY_SORT_MAX:
            where = page_filter(matching, sides)
            return first_batch("conversations", where, hint=list_index, **options)
        if sides:
            where["$and"].append({"$or": sides})
        return first_batch("conversations", where, hint=_INDEX, **options)


def count(matching: Mapping[str, Any], words: Sequence[Condition]) -> int:
    """Count all that match. Raises what find() raises."""
    with pymongo.timeout(SEARCH_BUDGET_S):
        return conversations().count_documents(_by_rare_word(matching, words), hint=_INDEX)


def _by_rare_word(matching: Mapping[str, Any], words: Sequence[Condition]) -> dict[str, Any]:
    """Return the filter in a form for which MongoDB looks up only one word in the index.

    It would look up the first one. This is the first word with fewer than IN_MEMORY_SORT_MAX
    conversations of the user, or else the first word; it reads up to IN_MEMORY_SORT_MAX keys for
    each of them.
    """
    word = words[0]
    if len(words) > 1:
        collection, user_id = conversations(), matching["user_id"]
        for candidate in words:
            where = {"user_id": user_id, **candidate}
            limit = IN_MEMORY_SORT_MAX
            if collection.count_documents(where, hint=_INDEX, limit=limit) < limit:
                word = candidate
                break
    others = [
        # MongoDB uses no index for a double negation.
        {"$nor": [{"$nor": [condition]}]} if WORDS in condition else condition
        for condition in matching["$and"]
        if condition != word
    ]
    return {"$and": [{**matching, "$and": [word]}, *others]}
