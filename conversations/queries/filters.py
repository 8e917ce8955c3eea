"""The MongoDB filter for a list.

No client text becomes an operator: each word is a range in the index user_words, and each other
value is compared. The only regular expression, for tags, has them escaped.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from conversations.serializers.search import NO_SEARCH
from conversations.states import ARCHIVED, LISTS
from conversations.words import PREFIX_RANGE_END, fold, split_words, tag_key

Condition = dict[str, Any]

WORDS = "search.words"
_PINNED = {
    True: {"$ne": None},
    # "Not a date" instead of null: an index stores null for missing values too, so null needs a
    # document fetch.
    False: {"$not": {"$gte": datetime.min.replace(tzinfo=UTC)}},
}
_MATCHES_NO_TEXT = "(?!)"  # a regular expression


def build_filter(user_id: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the filter for a user's conversations from ListParameters or a bulk filter.

    Bulk cursors are bound to its repr(): if a condition gets another form, the bulk cursors that
    clients hold become invalid.
    """
    search = parameters.get("search", NO_SEARCH)
    states = LISTS[ARCHIVED if search.archived else parameters["status"]]
    matching: dict[str, Any] = {"user_id": user_id, "status": {"$in": [*states]}}
    if "character_id" in parameters:
        matching["character_id"] = parameters["character_id"]
    if "pinned" in parameters:
        matching["pinned_at"] = _PINNED[parameters["pinned"]]
    for path, name in (("metadata.created_at", "created"), ("metadata.last_activity", "activity")):
        bounds = {"$gt": parameters.get(f"{name}_after"), "$lt": parameters.get(f"{name}_before")}
        if given := {operator: moment for operator, moment in bounds.items() if moment}:
            matching[path] = given
    tags = parameters.get("tags", [])
    if tags and parameters["tags_match"] == "all":
        conditions = [*map(has_tag, tags)]
    else:
        # A bulk action may send an empty list: that matches no conversation, not all of them.
        conditions = [has_tag(*tags)] if "tags" in parameters else []
    conditions += [*map(has_tag, search.tags), *search.others, *map(has_word, search.words)]
    if conditions:
        matching["$and"] = conditions
    return matching


def word_conditions(parameters: Mapping[str, Any]) -> list[Condition]:
    """Return conditions for the index user_words; each listed conversation matches them all.

    They include words from tags, as equal tags have equal words.
    """
    search = parameters.get("search", NO_SEARCH)
    conditions = [*map(has_word, search.words)]
    longest = [_longest_word(tag) for tag in parameters.get("tags", [])]
    if parameters["tags_match"] == "all":
        conditions += [{WORDS: word} for word in longest if word]
    elif longest and all(longest):
        conditions.append({WORDS: {"$in": longest}})
    return conditions + [{WORDS: word} for tag in search.tags if (word := _longest_word(tag))]


def page_filter(matching: Mapping[str, Any], sides: Sequence[Condition]) -> Mapping[str, Any]:
    """Return the filter for the matching rows on a cursor's side; without `sides`, for all.

    The $or is at the top and repeats the filter for each state and each condition. So MongoDB
    plans each branch as a range in the sort's index, and merges the branches in order without
    reading a row that the page does not have.
    """
    if not sides:
        return matching
    return {
        "$or": [
            {"$and": [{**matching, "status": state}, side]}
            for state in matching["status"]["$in"]
            for side in sides
        ]
    }


def has_word(prefix: str, path: str = WORDS) -> Condition:
    """Return the condition that a word starts with a prefix: a range in an index over words."""
    return {path: {"$elemMatch": {"$gte": prefix, "$lt": prefix + PREFIX_RANGE_END}}}


def has_tag(*tags: str) -> Condition:
    """Return a filter for conversations that have at least one of the tags.

    Without tags it matches no conversation. An index that ends with `tag_line` covers the filter; a
    multikey index over `tag_keys` cannot.
    """
    keys = "|".join(re.escape(tag_key(tag)) for tag in tags) or _MATCHES_NO_TEXT
    return {"tag_line": {"$regex": rf"(?:^|\n)(?:{keys})(?:\n|\z)"}}


def _longest_word(tag: str) -> str:
    return max(split_words(fold(tag)), key=len, default="")
