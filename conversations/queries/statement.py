"""One statement of several parts, and the parts that several questions have."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pymongo

from conversation_service.mongodb.connection import Document, collection
from conversations.words import tag_key

Pipeline = list[dict[str, Any]]

# A question that takes longer is given up; the API then answers 503.
BUDGET_S = 2.0
# So that the first batch is the last one.
_ALL_ROWS = 1_000


@dataclass(frozen=True)
class TagCount:
    tag: str
    count: int


def ask(
    scan: Pipeline, *, hint: str = "user_characters", **parts: Pipeline
) -> dict[str, list[Document]]:
    """Return the rows of each pipeline, all asked in one statement; those of the first as "scan".

    $facet would read everything by one plan. Joined by $unionWith each has its own, but a hint
    reaches the first only: that is the one which needs it, as it reads all that the user has and
    must find everything in the index.

    Raises pymongo.errors.PyMongoError with `timeout` set past BUDGET_S.
    """
    pipeline = [*scan, _labelled("scan")]
    for name, part in parts.items():
        branch = [*part, _labelled(name)]
        pipeline.append({"$unionWith": {"coll": "conversations", "pipeline": branch}})
    rows: dict[str, list[Document]] = {name: [] for name in ("scan", *parts)}
    with pymongo.timeout(BUDGET_S):
        found = collection("conversations").aggregate(pipeline, hint=hint, batchSize=_ALL_ROWS)
        for labelled in found:
            rows[labelled["part"]].append(labelled["row"])
    return rows


def _labelled(name: str) -> dict[str, Any]:
    return {"$replaceWith": {"part": name, "row": "$$ROOT"}}


def count(where: Mapping[str, Any]) -> Pipeline:
    return [{"$match": where}, {"$count": "count"}]


def counted(rows: list[Document]) -> int:
    return rows[0]["count"] if rows else 0


def by_tag(line: str, limit: int) -> Pipeline:
    """Count by tag, the most frequent first, after rows were grouped by `tag_line`.

    Many conversations have the same tags, so few lines are to be split. `line` is where a row
    has its own, beside `count` and `oldest`.
    """
    return [
        {"$project": {"tag": {"$split": [line, "\n"]}, "count": 1, "oldest": 1}},
        {"$unwind": "$tag"},
        {"$match": {"tag": {"$ne": ""}}},
        {
            "$group": {
                "_id": "$tag",
                "count": {"$sum": "$count"},
                "oldest": {"$min": "$oldest"},
            }
        },
        *most_frequent(limit),
    ]


def most_frequent(limit: int) -> Pipeline:
    """Keep the most frequent tags, each with the conversation that spells it."""
    return [
        {"$sort": {"count": -1, "_id": 1}},
        {"$limit": limit},
        {
            "$lookup": {
                "from": "conversations",
                "localField": "oldest",
                "foreignField": "_id",
                "pipeline": [{"$project": {"tags": 1}}],
                "as": "spelt",
            }
        },
    ]


def tag_count(row: Document) -> TagCount:
    """Return a tag as the oldest conversation spells it.

    Without a spelling it is told by its key: the conversation lost it at this very moment, or
    somebody has written tags past the service, which reindex_search mends.
    """
    key: str = row["_id"]
    spelt = (tag for document in row["spelt"] for tag in document.get("tags", []))
    return TagCount(next((tag for tag in spelt if tag_key(tag) == key), key), row["count"])
