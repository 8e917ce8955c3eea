"""Conversations to look at, made by chance but always the same, as fast as MongoDB takes them."""

import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property, lru_cache
from hashlib import blake2b
from typing import Any, Self

import bson
from bson import ObjectId
from bson.raw_bson import RawBSONDocument

from conversation_service import clock
from conversations import documents, states

USER = "demo"
BATCH = 1_000
DAYS = 90
PINNED, ARCHIVED = 0.1, 0.2  # shares

CHARACTERS = ["luna", "captain-nemo", "ada", "sherlock", "don-quijote", "scheherazade"]
TITLES = [
    "Noche con Luna",
    "Twenty thousand leagues",
    "Ideas for the garden",
    "El molino y los gigantes",
    "A case of identity",
    "Café y filosofía",
    "Learning to count in Basque",
    "The night train to Lisbon",
    "¿Qué cocino hoy?",
    "Bedtime story 1,002",
]
TAGS = ["casual", "role play", "learning", "café", "work", "ideas", "viajes"]

# What no two conversations share; all else is encoded once for each title with its tags.
_OWN = {"_id", "user_id", "character_id", "status", "archived_at", "pinned_at"}
_OWN |= {"metadata", "changed_at"}


@dataclass(frozen=True)
class Demo:
    """So many conversations: which ones, follows from the numbers and the time alone.

    Their ids, too, in the order in which they are stored: what is missing shows by them.
    """

    conversations: int
    users: int
    heavy: int
    now: datetime

    def at(self, moment: datetime) -> Self:
        return type(self)(self.conversations, self.users, self.heavy, moment)

    def made(self, id_: ObjectId) -> bool:
        """Tell whether the id is that of a conversation of these numbers, made at any time."""
        return id_.binary[4:9] == self._mark

    def id_of(self, number: int) -> ObjectId:
        seconds = int(self.now.timestamp())
        return ObjectId(seconds.to_bytes(4) + self._mark + number.to_bytes(3))

    @property
    def ids(self) -> dict[str, Any]:
        """Return the condition for all of them."""
        return self.ids_from(0, self.conversations)

    def ids_from(self, start: int, stop: int) -> dict[str, Any]:
        return {"_id": {"$gte": self.id_of(start), "$lte": self.id_of(stop - 1)}}

    def batch(self, start: int) -> list[RawBSONDocument]:
        """Return BATCH of them. Each batch has dice of its own: none waits for another."""
        dice = random.Random(f"{self.conversations} {start}")  # noqa: S311
        numbers = range(start, self.end_of(start))
        return [self._conversation(number, dice) for number in numbers]

    def end_of(self, start: int) -> int:
        return min(start + BATCH, self.conversations)

    @cached_property
    def _mark(self) -> bytes:
        numbers = f"{self.conversations} {self.users} {self.heavy}"
        return blake2b(numbers.encode(), digest_size=5).digest()

    def _owner(self, number: int) -> str:
        """Spread the demo user's evenly over all; the others take turns."""
        before, after = (n * self.heavy // self.conversations for n in (number, number + 1))
        return USER if after > before else f"user-{(number - before) % self.users}"

    def _conversation(self, number: int, dice: random.Random) -> RawBSONDocument:
        chance = dice.random
        begun = self.now - timedelta(seconds=60 + int(chance() * (DAYS * 86_400 - 60)))
        active = begun + (self.now - begun) * chance() ** 2
        title = TITLES[int(chance() * len(TITLES))]
        tags = dice.sample(TAGS, int(chance() * 4))
        archived = chance() < ARCHIVED
        own = {
            "_id": self.id_of(number),
            "user_id": self._owner(number),
            "character_id": CHARACTERS[int(chance() * len(CHARACTERS))],
            "status": states.ARCHIVED if archived else states.ACTIVE,
            "archived_at": active if archived else None,
            "pinned_at": active if chance() < PINNED else None,
            "metadata": _talk(chance, begun, active),
            "changed_at": begun,
        }
        return _joined(bson.encode(own), _shared(title, tuple(tags)))


@lru_cache(maxsize=4_096)  # more than there are
def _shared(title: str, tags: tuple[str, ...]) -> bytes:
    """Return what conversations with this title and these tags have in common."""
    whole = documents.new(user_id=USER, character_id="", title=title, tags=tags, now=clock.now())
    return bson.encode({name: whole[name] for name in whole if name not in _OWN})


def _joined(one: bytes, other: bytes) -> RawBSONDocument:
    """Join two documents: in BSON a length stands before the fields, and a zero behind."""
    fields = one[4:-1] + other[4:]
    return RawBSONDocument((len(fields) + 4).to_bytes(4, "little") + fields)


def _talk(chance: Any, begun: datetime, active: datetime) -> dict[str, Any]:
    asked, answered = int(chance() * 2_000), int(chance() * 8_000)
    return {
        "message_count": 1 + int(chance() * 119),
        "total_tokens": asked + answered,
        "total_input_tokens": asked,
        "total_output_tokens": answered,
        "first_message_at": begun,
        "last_message_at": active,
        "last_activity": active,
        "created_at": begun,
        "updated_at": begun,
    }
