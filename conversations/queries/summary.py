"""The summary: a user's statistics in a single statement."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from conversations import limits
from conversations.collection import conversations
from conversations.documents import DEFAULTS, complete
from conversations.queries.aggregation import (
    Pipeline,
    TagCount,
    count_of,
    count_stages,
    run_parts,
    tag_count,
    tag_count_stages,
)
from conversations.states import ACTIVE, ARCHIVED, DELETED, NOT_TRASHED

TOP_TAGS = 10
WEEK = timedelta(days=7)


@dataclass(frozen=True)
class MostUsedCharacter:
    character_id: str
    character_name: str | None
    conversation_count: int


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


def user_summary(user_id: str, *, now: datetime) -> Summary:
    """Return a user's statistics; only `deleted_conversations` includes the trash.

    "This week" is the seven days up to `now`. All numbers come from indexes; documents are read
    only for the character's name and for each tag's spelling. Raises the errors that run_parts()
    raises.
    """
    kept = {"user_id": user_id, "status": {"$in": NOT_TRASHED}}
    # Pods' clocks differ, and imported times can be far in the future.
    since = {"$gte": now - WEEK, "$lte": now + limits.MAX_AHEAD}
    found = run_parts(
        totals_stages(kept),
        active=count_stages(kept | {"status": ACTIVE}),
        archived=count_stages(kept | {"status": ARCHIVED}),
        deleted=count_stages(kept | {"status": DELETED}),
        created_since=count_stages(kept | {"metadata.created_at": since}),
        active_since=count_stages(kept | {"metadata.last_activity": since}),
        newest=[
            {"$match": kept},
            {"$sort": {"metadata.created_at": -1}},
            {"$limit": 1},
            {"$project": {"metadata.created_at": 1}},
        ],
    )
    active, archived = count_of(found[ACTIVE]), count_of(found[ARCHIVED])
    [scanned] = found["scan"]
    [totals] = scanned["totals"] or [{"messages": 0, "tokens": 0, "sent": None}]
    most_used = None
    for row in scanned["characters"]:  # 0 or 1 rows
        # The newest conversation has the current name.
        name = next((document.get("character_name") for document in row["newest"]), None)
        id_ = row["_id"] or DEFAULTS["character_id"]
        most_used = MostUsedCharacter(id_, name, row["count"])
    return Summary(
        user_id,
        Statistics(
            total_conversations=active + archived,
            active_conversations=active,
            archived_conversations=archived,
            deleted_conversations=count_of(found[DELETED]),
            total_messages=_sum(totals["messages"]),
            total_tokens=_sum(totals["tokens"]),
            most_used_character=most_used,
            top_tags=[tag_count(row) for row in scanned["tags"]],
            recent_activity=RecentActivity(
                next((complete(row)["metadata"]["created_at"] for row in found["newest"]), None),
                totals["sent"],
                count_of(found["created_since"]),
                count_of(found["active_since"]),
            ),
        ),
        generated_at=now,
    )


def totals_stages(kept: dict[str, Any]) -> Pipeline:
    """Return stages for totals, characters and tags that read the index once.

    They group by character and tags first, so that $facet has fewer rows.
    """
    return [
        {"$match": kept},
        {
            "$group": {
                "_id": {"character": "$character_id", "tags": "$tag_line"},
                "count": {"$sum": 1},
                "messages": {"$sum": "$metadata.message_count"},
                "tokens": {"$sum": "$metadata.total_tokens"},
                "sent": {"$max": "$metadata.last_message_at"},
                "oldest": {"$min": "$_id"},
                "newest": {"$max": "$_id"},
            }
        },
        {
            "$facet": {
                "totals": [
                    {
                        "$group": {
                            "_id": None,
                            "messages": {"$sum": "$messages"},
                            "tokens": {"$sum": "$tokens"},
                            "sent": {"$max": "$sent"},
                        }
                    }
                ],
                "characters": [
                    {
                        "$group": {
                            "_id": "$_id.character",
                            "count": {"$sum": "$count"},
                            "newest": {"$max": "$newest"},
                        }
                    },
                    {"$sort": {"count": -1, "_id": 1}},
                    {"$limit": 1},
                    {
                        "$lookup": {
                            "from": conversations().name,
                            "localField": "newest",
                            "foreignField": "_id",
                            "pipeline": [{"$project": {"character_name": 1}}],
                            "as": "newest",
                        }
                    },
                ],
                "tags": tag_count_stages("$_id.tags", TOP_TAGS),
            }
        },
    ]


def _sum(total: float) -> int:
    """Return a sum as an integer. MongoDB returns sums that exceed 64 bits as a double."""
    return min(int(total), limits.MAX_COUNT)
