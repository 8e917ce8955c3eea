"""The MongoDB filter for a list.

No client text becomes an operator: each word is a range in the index user_words, and each other
value is compared. In regular expressions, for tags and for words with several spellings, the text
is escaped.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from bson import Regex

from conversations.serializers.search import NO_SEARCH
from conversations.states import ARCHIVED, LISTS
from conversations.words import (
    PREFIX_RANGE_END,
    RULES_MARK,
    Clause,
    longest_words,
    prefixes,
    tag_key,
)

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
    return {"user_id": user_id, "status": {"$in": [*states]}, **conditions(parameters)}


def conditions(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the conditions on all fields but the user and the state."""
    search = parameters.get("search", NO_SEARCH)
    matching: dict[str, Any] = {}
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
        others = [*map(has_tag, tags)]
    else:
        # A bulk action may send an empty list: that matches no conversation, not all of them.
        others = [has_tag(*tags)] if "tags" in parameters else []
    others += [*map(has_tag, search.tags), *search.others]
    others += words_filter(search.words, search.former)
    if others:
        matching["$and"] = others
    return matching


def word_conditions(parameters: Mapping[str, Any]) -> list[Condition]:
    """Return conditions for the index user_words; each listed conversation matches them all.

    They include words from tags, as equal tags have equal words.
    """
    search = parameters.get("search", NO_SEARCH)
    conditions = index_conditions(search.words, search.former)
    longest = [longest_words(tag) for tag in parameters.get("tags", [])]
    if parameters["tags_match"] == "all":
        conditions += [_has_whole_word(words) for words in longest if words]
    elif longest and all(longest):
        conditions.append(_has_whole_word([word for words in longest for word in words]))
    of_tags = map(longest_words, search.tags)
    return conditions + [_has_whole_word(words) for words in of_tags if words]


def _has_whole_word(words: Sequence[str]) -> Condition:
    return {WORDS: words[0] if len(words) == 1 else {"$in": words}}


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


def words_filter(
    clauses: Sequence[Clause], former: Sequence[str], *, in_element: bool = False
) -> list[Condition]:
    """Return the conditions for a words.Lookup, on a conversation or on an element of `search`."""
    path = "words" if in_element else WORDS
    conditions = [_has_word(clause, path) for clause in clauses]
    if not former:
        return conditions
    by_former_rules: list[Condition] = [
        {"words": _range(prefix) | {"$ne": RULES_MARK}} for prefix in former
    ]
    if not in_element:
        by_former_rules = [{"search": {"$elemMatch": element}} for element in by_former_rules]
    return [{"$or": [{"$and": conditions}, {"$and": by_former_rules}]}]


def index_conditions(clauses: Sequence[Clause], former: Sequence[str]) -> list[Condition]:
    """Return conditions for the index user_words; all that words_filter() matches matches them."""
    if not former:
        return [_has_word(clause) for clause in clauses]
    return [
        _has_word((*prefixes(clause), former[min(number, len(former) - 1)]))
        for number, clause in enumerate(clauses)
    ]


def _has_word(clause: Clause, path: str = WORDS) -> Condition:
    """Return the condition that a word starts with a prefix: ranges in an index over words."""
    if isinstance(clause, str):
        return {path: _range(clause)}
    return {path: {"$in": [Regex(f"^{re.escape(prefix)}") for prefix in clause]}}


def _range(prefix: str) -> Condition:
    return {"$elemMatch": {"$gte": prefix, "$lt": prefix + PREFIX_RANGE_END}}


def has_tag(*tags: str) -> Condition:
    """Return a filter for conversations that have at least one of the tags.

    Without tags it matches no conversation. An index that ends with `tag_line` covers the filter; a
    multikey index over `tag_keys` cannot.
    """
    keys = "|".join(re.escape(tag_key(tag)) for tag in tags) or _MATCHES_NO_TEXT
    return {"tag_line": {"$regex": rf"(?:^|\n)(?:{keys})(?:\n|\z)"}}
