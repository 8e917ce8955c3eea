"""Several pipelines in one statement, and the stages that tag counts share."""

from collections.abc import Mapping
from typing import Any

import pymongo

from conversation_service.mongodb.connection import Document
from conversations.collection import CHARACTERS_INDEX, conversations
from conversations.words import tag_key

Pipeline = list[dict[str, Any]]

# After this time a statement is aborted, and the API responds with 503.
BUDGET_S = 2.0
# More rows than all parts return: the first batch holds them all.
_ALL_ROWS = 1_000


def run(pipeline: Pipeline, hint: str = CHARACTERS_INDEX) -> list[Document]:
    """Return all rows. Raises pymongo.errors.PyMongoError with `timeout` set after BUDGET_S."""
    with pymongo.timeout(BUDGET_S):
        return conversations().aggregate(pipeline, hint=hint, batchSize=_ALL_ROWS).to_list()


def run_parts(scan: Pipeline, parts: Mapping[str, Pipeline]) -> dict[str, list[Document]]:
    """Run several pipelines in one statement and return the rows by part.

    $facet would use one plan for all parts. With $unionWith each part has its own plan, but a hint
    applies only to the first. `scan` reads all the user's conversations: with the hint, the index
    has all values that it needs. Raises the same errors as run().
    """
    pipeline = [*scan, {"$replaceWith": {"part": "scan", "row": "$$ROOT"}}]
    for name, part in parts.items():
        branch = [*part, {"$replaceWith": {"part": name, "row": "$$ROOT"}}]
        pipeline.append({"$unionWith": {"coll": conversations().name, "pipeline": branch}})
    rows: dict[str, list[Document]] = {name: [] for name in ("scan", *parts)}
    for labelled in run(pipeline):
        rows[labelled["part"]].append(labelled["row"])
    return rows


def count_stages(where: Mapping[str, Any]) -> Pipeline:
    return [{"$match": where}, {"$count": "count"}]


def count_of(rows: list[Document]) -> int:
    """Return the number that count_stages() counted: without matches they return no row."""
    return rows[0]["count"] if rows else 0


def tag_count_stages(user_id: str, tag_line: str, limit: int) -> Pipeline:
    """Return stages that count tags, the most frequent first, in rows grouped by `tag_line`.

    `tag_line` is the path to the line; a row also has `count` and `oldest`. Many conversations have
    equal tags, so there are fewer lines to split than conversations.
    """
    return [
        {"$project": {"tag": {"$split": [tag_line, "\n"]}, "count": 1, "oldest": 1}},
        {"$unwind": "$tag"},
        {"$match": {"tag": {"$ne": ""}}},
        {
            "$group": {
                "_id": "$tag",
                "count": {"$sum": "$count"},
                "oldest": {"$min": "$oldest"},
            }
        },
        *most_frequent_stages(user_id, limit),
    ]


def most_frequent_stages(user_id: str, limit: int) -> Pipeline:
    """Return stages that keep the most frequent tags and look up their oldest documents."""
    return [
        {"$sort": {"count": -1, "_id": 1}},
        {"$limit": limit},
        lookup_stage(user_id, "oldest", {"tags": 1}),
    ]


def lookup_stage(user_id: str, path: str, projection: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stage that replaces the id at a path by a list with the user's document."""
    return {
        "$lookup": {
            "from": conversations().name,
            "localField": path,
            "foreignField": "_id",
            "pipeline": [{"$match": {"user_id": user_id}}, {"$project": projection}],
            "as": path,
        }
    }


def tag_count(row: Document) -> dict[str, Any]:
    """Return a tag as its oldest conversation spells it.

    Without a spelling, return its key: the conversation lost the tag during the statement, or
    something else wrote the tags, which `manage.py reindex_search` repairs.
    """
    key: str = row["_id"]
    spelt = (tag for document in row["oldest"] for tag in document.get("tags", []))
    return {"tag": next((tag for tag in spelt if tag_key(tag) == key), key), "count": row["count"]}
