"""The overview: a client's sidebar in a single statement."""

from datetime import datetime
from typing import Any

from conversations.collection import conversations
from conversations.documents import DEFAULTS, PUBLIC, resource
from conversations.queries import feed_cursor
from conversations.queries.aggregation import (
    Pipeline,
    count_of,
    count_stages,
    lookup_stage,
    run_parts,
    tag_count,
)
from conversations.queries.tags import all_tags
from conversations.states import ACTIVE, ANY_STATE, PURGED

PINNED = 20
CHARACTERS = 50
TAGS = 50


def user_overview(user_id: str, *, now: datetime) -> dict[str, Any]:
    """Return a sidebar's data, and the feed cursor that continues from them, as the API shows them.

    `now` must be a time before this call. Pins and characters include active conversations, tags
    also archived ones. Reads the documents that it returns and a document for each tag's spelling;
    all counts come from indexes. Raises the same errors as run().
    """
    active = {"user_id": user_id, "status": ACTIVE}
    found = run_parts(
        all_tags(user_id, TAGS),
        {
            "pinned": [
                {"$match": active | {"pinned_at": {"$type": "date"}}},
                {"$sort": {"pinned_at": -1, "_id": -1}},
                {"$limit": PINNED},
                {"$project": PUBLIC},
            ],
            "characters": latest_by_character_stages(active),
            **{state: count_stages(active | {"status": state}) for state in ANY_STATE},
        },
    )
    return {
        "pinned": [resource(row) for row in found["pinned"]],
        "characters": [
            {
                "character_id": row["_id"] or DEFAULTS["character_id"],
                "conversation_count": row["counted"]["count"],
                "latest": resource(row["latest"]),
            }
            for row in found["characters"]
            # A conversation that was purged during the statement is a tombstone.
            if row["latest"]["status"] != PURGED
        ],
        "tags": [tag_count(row) for row in found["scan"]],
        "counts": {state: count_of(found[state]) for state in ANY_STATE},
        "sync_cursor": feed_cursor.cursor_since(user_id, now),
        "generated_at": now,
    }


def latest_by_character_stages(active: dict[str, Any]) -> Pipeline:
    """Return stages for each character's latest conversation and count, the latest first.

    In the index order of user_characters, $group with $first reads a single key for each character.
    """
    return [
        {"$match": active},
        {"$sort": {"character_id": 1, "metadata.last_activity": -1, "_id": -1}},
        {
            "$group": {
                "_id": "$character_id",
                "at": {"$first": "$metadata.last_activity"},
                "latest": {"$first": "$_id"},
            }
        },
        {"$sort": {"at": -1, "latest": -1}},
        {"$limit": CHARACTERS},
        lookup_stage(active["user_id"], "latest", PUBLIC),
        {
            "$lookup": {
                "from": conversations().name,
                "localField": "_id",
                "foreignField": "character_id",
                "pipeline": count_stages(active),
                "as": "counted",
            }
        },
        {"$unwind": "$latest"},
        {"$unwind": "$counted"},
    ]
