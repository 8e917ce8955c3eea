"""A whole sidebar in one answer."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from conversations.documents import DEFAULTS, PUBLIC, resource
from conversations.queries import feed_cursor as cursor
from conversations.queries import tags
from conversations.queries.statement import Pipeline, TagCount, ask, count, counted, tag_count
from conversations.states import ACTIVE, ANY_STATE, ARCHIVED, DELETED, PURGED

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


def of(user_id: str, *, now: datetime) -> Overview:
    """Return what a client shows at first, and from where the change feed continues it.

    `now` must be from before this call. Pins and characters are of active conversations; tags
    count the archived ones too. No conversation is read but those that are shown and one for
    the spelling of each tag. Raises what ask() raises.
    """
    active = {"user_id": user_id, "status": ACTIVE}
    found = ask(
        tags.every(user_id, TAGS),
        pinned=[
            {"$match": active | {"pinned_at": {"$type": "date"}}},
            {"$sort": {"pinned_at": -1, "_id": -1}},
            {"$limit": PINNED},
            {"$project": PUBLIC},
        ],
        characters=_characters(user_id),
        active=count(active),
        archived=count(active | {"status": ARCHIVED}),
        deleted=count(active | {"status": DELETED}),
    )
    # A conversation that is purged at this very moment is a tombstone.
    latest = [row for row in found["characters"] if row["latest"]["status"] != PURGED]
    return Overview(
        pinned=[resource(row) for row in found["pinned"]],
        characters=[
            CharacterOverview(
                row["_id"] or DEFAULTS["character_id"],
                row["counted"]["count"],
                resource(row["latest"]),
            )
            for row in latest
        ],
        tags=[tag_count(row) for row in found["scan"]],
        counts=Counts(*(counted(found[status]) for status in ANY_STATE)),
        sync_cursor=cursor.since(user_id, now),
        generated_at=now,
    )


def _characters(user_id: str) -> Pipeline:
    """Return each character's latest conversation and how many there are, the latest first.

    In the order of the index user_characters, $group with $first reads one key a character.
    """
    mine = {"user_id": user_id, "status": ACTIVE}
    return [
        {"$match": mine},
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
                "from": "conversations",
                "localField": "latest",
                "foreignField": "_id",
                "pipeline": [{"$project": PUBLIC}],
                "as": "latest",
            }
        },
        {
            "$lookup": {
                "from": "conversations",
                "localField": "_id",
                "foreignField": "character_id",
                "pipeline": count(mine),
                "as": "counted",
            }
        },
        {"$unwind": "$latest"},
        {"$unwind": "$counted"},
    ]
