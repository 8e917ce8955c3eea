"""The overview: a client's sidebar in a single statement."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from conversations.collection import conversations
from conversations.documents import DEFAULTS, PUBLIC, resource
from conversations.queries import feed_cursor
from conversations.queries.aggregation import (
    Pipeline,
    TagCount,
    count_of,
    count_stages,
    run_parts,
    tag_count,
)
from conversations.queries.tags import all_tags
from conversations.states import ACTIVE, ARCHIVED, DELETED, PURGED

PINNED = 20
CHARACTERS = 50
TAGS = 50


@dataclass(frozen=True)
class CharacterOverview:
    character_id: str
    conversation_count: int
    latest: dict[str, Any]


@dataclass(frozen=True)
class Counts:
    active: int
    archived: int
    deleted: int


@dataclass(frozen=True)
class Overview:
    pinned: list[dict[str, Any]]
    characters: list[CharacterOverview]
    tags: list[TagCount]
    counts: Counts
    sync_cursor: str
    generated_at: datetime


def user_overview(user_id: str, *, now: datetime) -> Overview:
    """Return a sidebar's data, and the feed cursor that continues from them.

    `now` must be a time before this call. Pins and characters include active conversations, tags
    also archived ones. Reads the documents that it returns and a document for each tag's spelling;
    all counts come from indexes. Raises the errors that run_parts()
    raises.
    """
    active = {"user_id": user_id, "status": ACTIVE}
    found = run_parts(
        all_tags(user_id, TAGS),
        pinned=[
            {"$match": active | {"pinned_at": {"$type": "date"}}},
            {"$sort": {"pinned_at": -1, "_id": -1}},
            {"$limit": PINNED},
            {"$project": PUBLIC},
        ],
        characters=latest_by_character_stages(active),
        active=count_stages(active),
        archived=count_stages(active | {"status": ARCHIVED}),
        deleted=count_stages(active | {"status": DELETED}),
    )
    return Overview(
        pinned=[resource(row) for row in found["pinned"]],
        characters=[
            CharacterOverview(
                row["_id"] or DEFAULTS["character_id"],
                row["counted"]["count"],
                resource(row["latest"]),
            )
            for row in found["characters"]
            # A conversation that was purged during the statement is a tombstone.
            if row["latest"]["status"] != PURGED
        ],
        tags=[tag_count(row) for row in found["scan"]],
        counts=Counts(
            active=count_of(found[ACTIVE]),
            archived=count_of(found[ARCHIVED]),
            deleted=count_of(found[DELETED]),
        ),
        sync_cursor=feed_cursor.cursor_since(user_id, now),
        generated_at=now,
    )


def latest_by_character_stages(active: dict[str, Any]) -> Pipeline:
    """Return stages for each character's latest conversation and count, the latest first.

    In the index order of user_characters, $group with $first reads a single key for each character.
    """
    name = conversations().name
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
        {
            "$lookup": {
                "from": name,
                "localField": "latest",
                "foreignField": "_id",
                "pipeline": [{"$project": PUBLIC}],
                "as": "latest",
            }
        },
        {
            "$lookup": {
                "from": name,
                "localField": "_id",
                "foreignField": "character_id",
                "pipeline": count_stages(active),
                "as": "counted",
            }
        },
        {"$unwind": "$latest"},
        {"$unwind": "$counted"},
    ]
