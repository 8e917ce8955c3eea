"""A user's tags with their counts, for a sidebar or for autocompletion."""

from typing import Any

from conversations.queries.aggregation import (
    Pipeline,
    most_frequent_stages,
    run,
    tag_count,
    tag_count_stages,
)
from conversations.queries.filters import index_conditions, words_filter
from conversations.states import NOT_TRASHED
from conversations.words import look_up


def tag_counts(user_id: str, prefix: str, *, limit: int) -> list[dict[str, Any]]:
    """Count conversations by tag, the most frequent tag first, without the trash.

    Only tags that contain, for each word in `prefix`, a word starting with that word. Raises the
    same errors as run().
    """
    lookup = look_up(prefix, signs=False)
    if not lookup.clauses:
        return [tag_count(row) for row in run(all_tags(user_id, limit))]
    any_word = index_conditions(lookup.clauses, lookup.former)
    word_of_tag = words_filter(lookup.clauses, lookup.former, in_element=True)
    tags = {"$zip": {"inputs": ["$tag_keys", {"$slice": ["$search", 1, {"$size": "$search"}]}]}}
    pipeline: Pipeline = [
        # The index finds conversations with such words in the title or in a tag.
        {"$match": {"user_id": user_id, "status": {"$in": NOT_TRASHED}, "$and": any_word}},
        {"$project": {"tag": tags}},
        {"$unwind": "$tag"},
        {"$project": {"key": {"$first": "$tag"}, "words": {"$last": "$tag.words"}}},
        {"$match": {"$and": word_of_tag}},
        {"$group": {"_id": "$key", "count": {"$sum": 1}, "oldest": {"$min": "$_id"}}},
        *most_frequent_stages(user_id, limit),
    ]
    return [tag_count(row) for row in run(pipeline, hint="user_words")]


def all_tags(user_id: str, limit: int) -> Pipeline:
    return [
        {"$match": {"user_id": user_id, "status": {"$in": NOT_TRASHED}}},
        {"$group": {"_id": "$tag_line", "count": {"$sum": 1}, "oldest": {"$min": "$_id"}}},
        *tag_count_stages(user_id, "$_id", limit),
    ]
