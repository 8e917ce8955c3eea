"""The numbers of a user."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from conversation_service.mongodb.connection import Document
from conversations import limits
from conversations.documents import DEFAULTS, complete
from conversations.queries.statement import (
    Pipeline,
    TagCount,
    ask,
    by_tag,
    count,
    counted,
    tag_count,
)
from conversations.states import ACTIVE, ARCHIVED, DELETED, NOT_TRASHED
from conversations.writes.activity import MAX_AHEAD

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


def of(user_id: str, *, now: datetime) -> Summary:
    """Return a user's numbers. Only `deleted_conversations` speaks of what is in the trash.

    "This week" is the seven days up to `now`. No conversation is read but one for the name of
    the character and one for the spelling of each tag. Raises what ask() raises.
    """
    kept = {"user_id": user_id, "status": {"$in": NOT_TRASHED}}
    # Pods' clocks differ; imported times may lie far in the future.
    since = {"$gte": now - WEEK, "$lte": now + MAX_AHEAD}
    found = ask(
        _scan(user_id),
        active=count(kept | {"status": ACTIVE}),
        archived=count(kept | {"status": ARCHIVED}),
        deleted=count(kept | {"status": DELETED}),
        created_since=count(kept | {"metadata.created_at": since}),
        active_since=count(kept | {"metadata.last_activity": since}),
        newest=[
            {"$match": kept},
            {"$sort": {"metadata.created_at": -1}},
            {"$limit": 1},
            {"$project": {"metadata.created_at": 1}},
        ],
    )
    active, archived = counted(found[ACTIVE]), counted(found[ARCHIVED])
    [scanned] = found["scan"]
    [totals] = scanned["totals"] or [{"messages": 0, "tokens": 0, "sent": None}]
    return Summary(
        user_id,
        Statistics(
            total_conversations=active + archived,
            active_conversations=active,
            archived_conversations=archived,
            deleted_conversations=counted(found[DELETED]),
            total_messages=_sum(totals["messages"]),
            total_tokens=_sum(totals["tokens"]),
            most_used_character=next(map(_character, scanned["characters"]), None),
            top_tags=[tag_count(row) for row in scanned["tags"]],
            recent_activity=RecentActivity(
                next((complete(row)["metadata"]["created_at"] for row in found["newest"]), None),
                totals["sent"],
                counted(found["created_since"]),
                counted(found["active_since"]),
            ),
        ),
        generated_at=now,
    )


def _scan(user_id: str) -> Pipeline:
    """Read the index once; what has the same character and tags is a single row from then on."""
    return [
        {"$match": {"user_id": user_id, "status": {"$in": NOT_TRASHED}}},
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
                            "from": "conversations",
                            "localField": "newest",
                            "foreignField": "_id",
                            "pipeline": [{"$project": {"character_name": 1}}],
                            "as": "newest",
                        }
                    },
                ],
                "tags": by_tag("$_id.tags", TOP_TAGS),
            }
        },
    ]


def _character(row: Document) -> MostUsedCharacter:
    """Return the character by the name that its newest conversation has for it."""
    name = next((document.get("character_name") for document in row["newest"]), None)
    return MostUsedCharacter(row["_id"] or DEFAULTS["character_id"], name, row["count"])


def _sum(total: float) -> int:
    """Return a sum of counters, which MongoDB returns as a double if it exceeds 64 bits."""
    return min(int(total), limits.MAX_COUNT)
