"""Random but reproducible conversations for `manage.py seed_demo`."""

import random
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property
from hashlib import blake2b
from typing import Any, Self

from bson import ObjectId
from django.conf import settings

from conversation_service.mongodb.connection import Document
from conversations import documents, states
from conversations.webhooks import endpoints

USER = "demo"
BATCH = 1_000
DAYS = 90
# Shares of all conversations.
RENAMED, PINNED, ARCHIVED, TRASHED, UNVERIFIED = 0.15, 0.1, 0.2, 0.05, 0.08
HELD_FROM = 10  # conversations of a data set with a legal hold
SPREAD = 0.618  # spreads the times of consecutive numbers evenly within their interval

CHARACTERS = {
    "luna": "Luna",
    "captain-nemo": "Captain Nemo",
    "ada": "Ada Lovelace",
    "sherlock": "Sherlock Holmes",
    "don-quijote": "Don Quijote",
    "scheherazade": "Scheherazade",
}
_CHARACTERS = [*CHARACTERS.items()]
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

WEBHOOK_BY = "demo data"
HOLD = {"by": "admin", "reason": "Case 2026-17: keep until the court has decided"}

# By path: the values before and after.
Changes = dict[str, tuple[Any, Any]]


@dataclass(frozen=True)
class Demo:
    """A deterministic data set: equal parameters give equal conversations and ids.

    The ids have the second of the conversation's creation. They increase in storage order, so that
    gaps are visible. Sets with the same numbers differ by their `series`.
    """

    conversations: int
    users: int
    heavy: int
    now: datetime
    series: str = ""
    # By title and tags. To derive the fields again would take most of the time.
    shared_fields: dict[tuple[str, ...], Document] = field(default_factory=dict, compare=False)

    def made(self, id_: ObjectId) -> bool:
        """Return True if this data set, at any time, has the id."""
        return id_.binary[4:9] == self._mark

    def at_time_of(self, id_: ObjectId) -> Self:
        """Return this data set at the time when it made the id."""
        age = timedelta(seconds=self._age_s(int.from_bytes(id_.binary[9:])))
        return replace(self, now=id_.generation_time + age)

    def id_of(self, number: int) -> ObjectId:
        seconds = self._now_s - self._age_s(number)
        return ObjectId(seconds.to_bytes(4) + self._mark + number.to_bytes(3))

    @cached_property
    def _now_s(self) -> int:
        return int(self.now.timestamp())

    def _age_s(self, number: int) -> int:
        """Return the age of a conversation: later numbers are younger, most are young."""
        older = (number + number * SPREAD % 1) / self.conversations
        return 60 + int((DAYS * 86_400 - 60) * (1 - older) ** 1.5)

    @property
    def ids(self) -> dict[str, Any]:
        """Return a filter for all ids, without those of other conversations in the same weeks."""
        mark = {"$substrBytes": [{"$toString": "$_id"}, 8, 10]}
        every = self.ids_from(0, self.conversations)
        return {**every, "$expr": {"$eq": [mark, self._mark.hex()]}}

    def ids_from(self, start: int, stop: int) -> dict[str, Any]:
        """Return a filter for a range of ids; other conversations can have ids within."""
        return {"_id": {"$gte": self.id_of(start), "$lte": self.id_of(stop - 1)}}

    def batch(self, start: int) -> list[Document]:
        """Return BATCH documents. Each batch has its own random generator, for parallel use."""
        dice = random.Random(f"{self.conversations} {start}{self.series}")  # noqa: S311
        return [self.document(n, dice) for n in range(start, self.end_of(start))]

    def end_of(self, start: int) -> int:
        return min(start + BATCH, self.conversations)

    @cached_property
    def _mark(self) -> bytes:
        # 2 is the number of this format: data of release 0.1.0 has other ids, and is not continued.
        numbers = f"2 {self.conversations} {self.users} {self.heavy}{self.series}"
        return blake2b(numbers.encode(), digest_size=5).digest()

    def document(self, number: int, dice: random.Random) -> Document:
        # The demo user's conversations are spread evenly; the other users take turns.
        before, after = (n * self.heavy // self.conversations for n in (number, number + 1))
        owner = USER if after > before else f"user-{(number - before) % self.users}"
        chance = dice.random
        begun = self.now - timedelta(seconds=self._age_s(number))
        active = begun + (self.now - begun) * chance() ** 2
        title = TITLES[int(chance() * len(TITLES))]
        tags = dice.sample(TAGS, int(chance() * 4))
        character_id, character_name = _CHARACTERS[int(chance() * len(_CHARACTERS))]
        verified = chance() >= UNVERIFIED
        changed = self._changed(title, begun, active, dice)
        revisions = history(changed, begun, request_id=f"demo-{number}") if changed else []
        latest: dict[str, Any] = {}
        for _, changes in changed:
            latest |= {path: after for path, (_, after) in changes.items()}
        updated = changed[-1][0] if changed else begun
        input_tokens, output_tokens = int(chance() * 2_000), int(chance() * 8_000)
        counters = [1 + int(chance() * 119), input_tokens + output_tokens]
        counters += [input_tokens, output_tokens]
        fields = {
            "_id": self.id_of(number),
            "user_id": owner,
            "character_id": character_id,
            "character_name": character_name if verified else None,
            "character_status": "verified" if verified else "unverified",
            "status": latest.get("status", states.ACTIVE),
            "archived_at": latest.get("archived_at"),
            "pinned_at": latest.get("pinned_at"),
            "metadata": {
                **dict(zip(documents.COUNTERS, counters, strict=True)),
                "first_message_at": begun,
                "last_message_at": active,
                "last_activity": active,
                "created_at": begun,
                "updated_at": updated,
            },
            "version": 1 + len(revisions),
            "revisions": revisions,
            "changed_at": updated,
        }
        if "deleted_at" in latest:
            fields |= {
                "previous_status": changed[-1][1]["status"][0],
                "deleted_at": latest["deleted_at"],
                "purge_at": latest["purge_at"],
            }
        is_held = number == self.conversations // 3 and self.conversations >= HELD_FROM
        if is_held and not self.series:
            fields["hold"] = {**HOLD, "at": updated}
        return self._shared_fields(title, tags) | fields

    def _changed(
        self, title: str, begun: datetime, active: datetime, dice: random.Random
    ) -> list[tuple[datetime, Changes]]:
        """Return what changed since the creation, in the order of the times."""
        chance = dice.random
        found: list[tuple[datetime, Changes]] = []
        if chance() < RENAMED:
            former = TITLES[TITLES.index(title) - 1]
            found.append((begun + (active - begun) / 2, {"title": (former, title)}))
        if chance() < PINNED:
            found.append((active, {"pinned_at": (None, active)}))
        status = states.ACTIVE
        if chance() < ARCHIVED:
            at = active + (self.now - active) * 0.3
            change = {"status": (status, states.ARCHIVED), "archived_at": (None, at)}
            found.append((at, change))
            status = states.ARCHIVED
        if chance() < TRASHED:
            in_trash = timedelta(days=settings.TRASH_DAYS)
            at = max(active + (self.now - active) * 0.6, self.now - in_trash * 0.8)
            change = {"status": (status, states.DELETED), "deleted_at": (None, at)}
            found.append((at, {**change, "purge_at": (None, at + in_trash)}))
        return found

    def _shared_fields(self, title: str, tags: list[str]) -> Document:
        """Return a conversation with this title and tags, of which there are 2,600 combinations."""
        key = (title, *tags)
        if key not in self.shared_fields:
            self.shared_fields[key] = documents.new(
                user_id=USER, character_id="", title=title, tags=tags, now=self.now
            )
        return self.shared_fields[key]


def history(
    changed: list[tuple[datetime, Changes]], begun: datetime, *, request_id: str
) -> list[dict[str, Any]]:
    """Return the history as the API stores it."""
    revisions = []
    previous_at = begun
    for version, (at, changes) in enumerate(changed, 2):
        revision = {"version": version, "at": at, "previous_at": previous_at}
        revision |= {"client": "demo", "request_id": request_id}
        pairs = changes.items()
        revision["changes"] = [{"path": p, "before": b, "after": a} for p, (b, a) in pairs]
        revisions.append(revision)
        previous_at = at
    return revisions


def send_events_to(url: str, secret: str) -> None:
    """Create the webhook endpoint of the demo data, or set its URL.

    The URL is not checked, as it is on this machine.
    """
    for endpoint in endpoints.list_all():
        if endpoint["created_by"] == WEBHOOK_BY:
            endpoints.change(endpoint["_id"], {"url": url})
            return
    values = {"url": url, "secret": secret, "description": "Prints each event"}
    endpoints.create(values, created_by=WEBHOOK_BY)
