"""Random but reproducible conversations for `manage.py seed_demo`."""

import random
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
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

# Fields that differ between conversations. The others are encoded once for each title and tags.
_OWN = {"_id", "user_id", "character_id", "status", "archived_at", "pinned_at"}
_OWN |= {"metadata", "changed_at"}


@dataclass(frozen=True)
class Demo:
    """A deterministic data set: equal parameters give equal conversations and ids.

    The ids increase in storage order, so that gaps are visible.
    """

    conversations: int
    users: int
    heavy: int
    now: datetime
    # Encoded fields by title and tags.
    shared_fields: dict[tuple[str, ...], bytes] = field(default_factory=dict, compare=False)

    def at(self, moment: datetime) -> Self:
        return type(self)(self.conversations, self.users, self.heavy, moment)

    def made(self, id_: ObjectId) -> bool:
        """Return True if this data set, at any time, has the id."""
        return id_.binary[4:9] == self._mark

    def id_of(self, number: int) -> ObjectId:
        seconds = int(self.now.timestamp())
        return ObjectId(seconds.to_bytes(4) + self._mark + number.to_bytes(3))

    @property
    def ids(self) -> dict[str, Any]:
        """Return a filter for all ids."""
        return self.ids_from(0, self.conversations)

    def ids_from(self, start: int, stop: int) -> dict[str, Any]:
        return {"_id": {"$gte": self.id_of(start), "$lte": self.id_of(stop - 1)}}

    def batch(self, start: int) -> list[RawBSONDocument]:
        """Return BATCH documents. Each batch has its own random generator, for parallel use."""
        dice = random.Random(f"{self.conversations} {start}")  # noqa: S311
        return [self.document(n, dice) for n in range(start, self.end_of(start))]

    def end_of(self, start: int) -> int:
        return min(start + BATCH, self.conversations)

    @cached_property
    def _mark(self) -> bytes:
        numbers = f"{self.conversations} {self.users} {self.heavy}"
        return blake2b(numbers.encode(), digest_size=5).digest()

    def document(self, number: int, dice: random.Random) -> RawBSONDocument:
        # The demo user's conversations are spread evenly; the other users take turns.
        before, after = (n * self.heavy // self.conversations for n in (number, number + 1))
        owner = USER if after > before else f"user-{(number - before) % self.users}"
        chance = dice.random
        begun = self.now - timedelta(seconds=60 + int(chance() * (DAYS * 86_400 - 60)))
        active = begun + (self.now - begun) * chance() ** 2
        title = TITLES[int(chance() * len(TITLES))]
        tags = dice.sample(TAGS, int(chance() * 4))
        archived = chance() < ARCHIVED
        character_id = CHARACTERS[int(chance() * len(CHARACTERS))]
        pinned = chance() < PINNED
        input_tokens, output_tokens = int(chance() * 2_000), int(chance() * 8_000)
        counters = [1 + int(chance() * 119), input_tokens + output_tokens]
        counters += [input_tokens, output_tokens]
        own = bson.encode(
            {
                "_id": self.id_of(number),
                "user_id": owner,
                "character_id": character_id,
                "status": states.ARCHIVED if archived else states.ACTIVE,
                "archived_at": active if archived else None,
                "pinned_at": active if pinned else None,
                "metadata": {
                    **dict(zip(documents.COUNTERS, counters, strict=True)),
                    "first_message_at": begun,
                    "last_message_at": active,
                    "last_activity": active,
                    "created_at": begun,
                    "updated_at": begun,
                },
                "changed_at": begun,
            }
        )
        # 2,600 combinations of a title and tags
        shared = self.shared_fields.get((title, *tags)) or self._encode_shared(title, tags)
        # In BSON, the length is before the fields, and a zero byte after them.
        fields = own[4:-1] + shared[4:]
        return RawBSONDocument((len(fields) + 4).to_bytes(4, "little") + fields)

    def _encode_shared(self, title: str, tags: list[str]) -> bytes:
        """Keep, as BSON, the fields that all conversations with this title and tags share."""
        whole = documents.new(
            user_id=USER, character_id="", title=title, tags=tags, now=clock.now()
        )
        shared = bson.encode({name: whole[name] for name in whole if name not in _OWN})
        self.shared_fields[title, *tags] = shared
        return shared
