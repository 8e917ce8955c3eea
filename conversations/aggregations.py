"""Questions about many conversations that only an aggregation pipeline answers.

Each function is one question, one round trip, and returns plain values, never documents.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pymongo

from conversation_service.mongodb.connection import collection

# A question that takes longer is given up; the API then answers 503.
BUDGET_S = 2.0
TOP_TAGS = 10
WEEK = timedelta(days=7)


@dataclass(frozen=True)
class MostUsedCharacter:
    character_id: str
    character_name: str | None
    conversation_count: int


@dataclass(frozen=True)
class TagCount:
    tag: str
    count: int


@dataclass(frozen=True)
class RecentActivity:
    last_conversation_created: datetime | None
    last_message_sent: datetime | None
    conversations_this_week: int
    active_this_week: int


@dataclass(frozen=True)
class Statistics:
    total_conversations: int
    active_conversations: int
    archived_conversations: int
    deleted_conversations: int
    total_messages: int
    total_tokens: int
    most_used_character: MostUsedCharacter | None
    top_tags: list[TagCount]
    recent_activity: RecentActivity


@dataclass(frozen=True)
class Summary:
    user_id: str
    statistics: Statistics
    generated_at: datetime


def summary(user_id: str, *, now: datetime) -> Summary:
    """Return a user's numbers. Only `deleted_conversations` speaks of what is in the trash.

    "This week" is the seven days up to `now`. The index user_status_activity confines the
    statement to the user's own documents; each is read once.

    Raises pymongo.errors.PyMongoError with `timeout` set past BUDGET_S.
    """
    since = now - WEEK
    pipeline: list[dict[str, Any]] = [
        {"$match": {"user_id": user_id, "status": {"$in": ["active", "archived", "deleted"]}}},
        {
            "$facet": {
                "states": [{"$group": {"_id": "$status", "count": {"$sum": 1}}}],
                "totals": [{"$match": _KEPT}, {"$group": {"_id": None, **_totals(since)}}],
                "characters": [{"$match": _KEPT}, *_ranked("$character_id", 1)],
                "tags": [
                    {"$match": _KEPT},
                    {"$project": {"tag": {"$zip": {"inputs": ["$tag_keys", "$tags"]}}}},
                    {"$unwind": "$tag"},
                    *_ranked({"$first": "$tag"}, TOP_TAGS, spelling={"$first": {"$last": "$tag"}}),
                ],
            }
        },
    ]
    with pymongo.timeout(BUDGET_S):
        [found] = collection("conversations").aggregate(pipeline)

    states = {row["_id"]: row["count"] for row in found["states"]}
    [totals] = found["totals"] or [_NOTHING]
    return Summary(
        user_id,
        Statistics(
            total_conversations=states.get("active", 0) + states.get("archived", 0),
            active_conversations=states.get("active", 0),
            archived_conversations=states.get("archived", 0),
            deleted_conversations=states.get("deleted", 0),
            total_messages=totals["messages"],
            total_tokens=totals["tokens"],
            most_used_character=next(
                (MostUsedCharacter(row["_id"], None, row["count"]) for row in found["characters"]),
                None,
            ),
            top_tags=[TagCount(row["spelling"], row["count"]) for row in found["tags"]],
            recent_activity=RecentActivity(
                totals["created"], totals["sent"], totals["created_since"], totals["active_since"]
            ),
        ),
        generated_at=now,
    )


_KEPT = {"status": {"$ne": "deleted"}}
_NOTHING = {
    "messages": 0,
    "tokens": 0,
    "created": None,
    "sent": None,
    "created_since": 0,
    "active_since": 0,
}


def _totals(since: datetime) -> dict[str, Any]:
    def how_many_since(path: str) -> dict[str, Any]:
        return {"$sum": {"$cond": [{"$gte": [path, since]}, 1, 0]}}

    return {
        "messages": {"$sum": "$metadata.message_count"},
        "tokens": {"$sum": "$metadata.total_tokens"},
        "created": {"$max": "$metadata.created_at"},
        "sent": {"$max": "$metadata.last_message_at"},
        "created_since": how_many_since("$metadata.created_at"),
        "active_since": how_many_since("$metadata.last_activity"),
    }


def _ranked(key: Any, limit: int, **also: Any) -> list[dict[str, Any]]:
    """Count by `key`, the most frequent first; of equals the smaller key."""
    return [
        {"$group": {"_id": key, "count": {"$sum": 1}, **also}},
        {"$sort": {"count": -1, "_id": 1}},
        {"$limit": limit},
    ]
