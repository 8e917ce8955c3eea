"""The summary: a user's statistics in a single statement."""

from datetime import datetime, timedelta
from typing import Any

from conversations import limits
from conversations.documents import DEFAULTS, complete
from conversations.queries.aggregation import (
    Pipeline,
    count_of,
    count_stages,
    lookup_stage,
    run_parts,
    tag_count,
    tag_count_stages,
)
from conversations.states import ANY_STATE, NOT_TRASHED

TOP_TAGS = 10
WEEK = timedelta(days=7)


def user_summary(user_id: str, *, now: datetime) -> dict[str, Any]:
    """Return a user's statistics, as the API shows them.

    "This week" is the seven days up to `now`. All numbers come from indexes; documents are read
    only for the character's name and for each tag's spelling. Raises the same errors as run().
    """
    kept = {"user_id": user_id, "status": {"$in": NOT_TRASHED}}
    # Pods' clocks differ, and imported times can be far in the future.
    since = {"$gte": now - WEEK, "$lte": now + limits.MAX_AHEAD}
    found = run_parts(
        totals_stages(kept),
        {
            **{state: count_stages(kept | {"status": state}) for state in ANY_STATE},
            "created_since": count_stages(kept | {"metadata.created_at": since}),
            "active_since": count_stages(kept | {"metadata.last_activity": since}),
            "newest": [
                {"$match": kept},
                {"$sort": {"metadata.created_at": -1}},
                {"$limit": 1},
                {"$project": {"metadata.created_at": 1}},
            ],
        },
    )
    counts = {state: count_of(found[state]) for state in ANY_STATE}
    [scanned] = found["scan"]
    [totals] = scanned["totals"] or [{"messages": 0, "tokens": 0, "sent": None}]
    most_used = None
    for row in scanned["characters"]:  # 0 or 1 rows
        most_used = {
            "character_id": row["_id"] or DEFAULTS["character_id"],
            # The newest conversation has the current name.
            "character_name": next((d.get("character_name") for d in row["newest"]), None),
            "conversation_count": row["count"],
        }
    created_at = [complete(row)["metadata"]["created_at"] for row in found["newest"]]
    return {
        "user_id": user_id,
        "statistics": {
            "total_conversations": sum(counts[state] for state in NOT_TRASHED),
            **{f"{state}_conversations": count for state, count in counts.items()},
            "total_messages": _sum(totals["messages"]),
            "total_tokens": _sum(totals["tokens"]),
            "most_used_character": most_used,
            "top_tags": [tag_count(row) for row in scanned["tags"]],
            "recent_activity": {
                "last_conversation_created": created_at[0] if created_at else None,
                "last_message_sent": totals["sent"],
                "conversations_this_week": count_of(found["created_since"]),
                "active_this_week": count_of(found["active_since"]),
            },
        },
        "generated_at": now,
    }


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
                    lookup_stage(kept["user_id"], "newest", {"character_name": 1}),
                ],
                "tags": tag_count_stages(kept["user_id"], "$_id.tags", TOP_TAGS),
            }
        },
    ]


def _sum(total: float) -> int:
    """Return a sum as an integer. MongoDB returns sums that exceed 64 bits as a double."""
    return min(int(total), limits.MAX_COUNT)
