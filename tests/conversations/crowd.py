"""Random conversations of two users in every state, equal for equal seeds."""

from datetime import datetime, timedelta
from random import Random
from typing import Any

from conversations import documents, words

SPELLINGS = ["Río", "RÍO", "río", "sea", "Sea", "ﬁn", "fin", "日本", "night owl", "x-y_z.1"]
STATUSES = ["active", "active", "archived", "deleted", "purged"]


def crowd(seed: int, *, now: datetime, each: int | None = None) -> list[dict[str, Any]]:
    """Return the number of conversations for alice and for bob each, with many equal times."""
    chance = Random(seed)  # noqa: S311
    rows = [_row(chance, user, now) for _ in range(each or chance.randint(1, 60)) for user in USERS]
    return chance.sample(rows, len(rows))


USERS = ("alice", "bob")


def _row(chance: Random, user_id: str, now: datetime) -> dict[str, Any]:
    document = documents.new(
        user_id=user_id, character_id=chance.choice("abcde"), now=now, tags=_tags(chance)
    )
    document |= {
        "status": chance.choice(STATUSES),
        "pinned_at": chance.choice([None, None, _moment(chance, now)]),
        "character_name": chance.choice([None, "Luna"]),
    }
    document["metadata"] |= {
        "message_count": chance.randrange(100),
        "total_tokens": chance.randrange(2**40),
        "created_at": _moment(chance, now),
        "last_activity": _moment(chance, now),
        "last_message_at": chance.choice([None, _moment(chance, now)]),
    }
    if document["status"] == "purged":
        kept = {name: document[name] for name in ("_id", "user_id", "status", "changed_at")}
        return kept | {"expires_at": now + timedelta(days=90)}
    return document


def _moment(chance: Random, now: datetime) -> datetime:
    """Return a day of the last two weeks; one value is exactly a week ago."""
    return now - timedelta(days=chance.randrange(14))


def _tags(chance: Random) -> list[str]:
    by_key = {words.tag_key(tag): tag for tag in chance.sample(SPELLINGS, chance.randrange(5))}
    return list(by_key.values())
