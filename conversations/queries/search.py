"""The search: a page of a user's conversations that words or tags find.

A count up to IN_MEMORY_SORT_MAX selects the plan. With fewer matches in the index user_words, they
are read and sorted in memory. Otherwise the list's index is read in its order: with that many
matches, enough rows for a page are near its start.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pymongo
from pymongo.collection import Collection

from conversation_service.mongodb.connection import Document, first_batch
from conversations.collection import conversations
from conversations.queries.filters import WORDS, Condition, page_filter

IN_MEMORY_SORT_MAX = 1_000  # conversations
MAX_PROBES = 16  # words of a search of which the number of conversations is counted
SEARCH_BUDGET_S = 2.0
_INDEX = "user_words"


def find(
    matching: Mapping[str, Any],
    words: Sequence[Condition],
    sides: Sequence[Condition],
    *,
    list_index: str,
    **options: Any,
) -> list[Document]:
    """Read up to `limit` matching rows; with `sides`, only on a cursor's side.

    Raises pymongo.errors.PyMongoError with `timeout` set after SEARCH_BUDGET_S.
    """
    with pymongo.timeout(SEARCH_BUDGET_S):
        collection = conversations()
        where = _by_rare_word(collection, matching, words)
        found = collection.count_documents(where, hint=_INDEX, limit=IN_MEMORY_SORT_MAX)
        if not found:
            return []
        if found == IN_MEMORY_SORT_MAX:
            page = page_filter(matching, sides)
            return first_batch("conversations", page, hint=list_index, **options)
        if sides:
            where["$and"].append({"$or": sides})
        return first_batch("conversations", where, hint=_INDEX, **options)


def count(matching: Mapping[str, Any], words: Sequence[Condition]) -> int:
    """Count all that match. Raises what find() raises."""
    with pymongo.timeout(SEARCH_BUDGET_S):
        collection = conversations()
        where = _by_rare_word(collection, matching, words)
        return collection.count_documents(where, hint=_INDEX)


def _by_rare_word(
    collection: Collection[Document], matching: Mapping[str, Any], words: Sequence[Condition]
) -> dict[str, Any]:
    """Return a form of the filter for which MongoDB looks up a rare word in the index.

    MongoDB alone looks up the first word. A rare word has fewer than IN_MEMORY_SORT_MAX
    conversations; without a rare word, this also uses the first. Reads up to IN_MEMORY_SORT_MAX
    keys for each of MAX_PROBES words.
    """
    word = words[0]
    if len(words) > 1:
        limit = IN_MEMORY_SORT_MAX
        for candidate in words[:MAX_PROBES]:
            where = {"user_id": matching["user_id"], **candidate}
            if collection.count_documents(where, hint=_INDEX, limit=limit) < limit:
                word = candidate
                break
    others = [
        # MongoDB uses no index for a double negation.
        {"$nor": [{"$nor": [condition]}]} if condition.keys() & {WORDS, "$or"} else condition
        for condition in matching["$and"]
        if condition != word
    ]
    return {"$and": [{**matching, "$and": [word]}, *others]}
