"""The tags of a user, for a sidebar or for a field that completes them."""

from collections.abc import Sequence

from conversations.queries.search import begins
from conversations.queries.statement import (
    Pipeline,
    TagCount,
    ask,
    by_tag,
    most_frequent,
    tag_count,
)
from conversations.states import NOT_TRASHED


def of(user_id: str, beginnings: Sequence[str] = (), *, limit: int) -> list[TagCount]:
    """Return how many conversations have each tag, the most frequent first.

    With `beginnings`, those tags of which some word begins with each of them. The trash does not
    count. Raises what ask() raises.
    """
    if not beginnings:
        return [tag_count(row) for row in ask(every(user_id, limit))["scan"]]
    rows = ask(_beginning(user_id, beginnings, limit), hint="user_words")["scan"]
    return [tag_count(row) for row in rows]


def every(user_id: str, limit: int) -> Pipeline:
    return [
        {"$match": {"user_id": user_id, "status": {"$in": NOT_TRASHED}}},
        {"$group": {"_id": "$tag_line", "count": {"$sum": 1}, "oldest": {"$min": "$_id"}}},
        *by_tag("$_id", limit),
    ]


def _beginning(user_id: str, beginnings: Sequence[str], limit: int) -> Pipeline:
    """Read only conversations that have such words, in the title or in a tag."""
    somewhere = [begins(word) for word in beginnings]
    in_the_tag = [begins(word, "words") for word in beginnings]
    tags = {"$zip": {"inputs": ["$tag_keys", {"$slice": ["$search", 1, {"$size": "$search"}]}]}}
    return [
        {"$match": {"user_id": user_id, "status": {"$in": NOT_TRASHED}, "$and": somewhere}},
        {"$project": {"tag": tags}},
        {"$unwind": "$tag"},
        {"$project": {"key": {"$first": "$tag"}, "words": {"$last": "$tag.words"}}},
        {"$match": {"$and": in_the_tag}},
        {"$group": {"_id": "$key", "count": {"$sum": 1}, "oldest": {"$min": "$_id"}}},
        *most_frequent(limit),
    ]
