import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from bson import ObjectId
from django.core.management.base import BaseCommand, CommandError, CommandParser
from pymongo import WriteConcern

from conversation_service import clock
from conversation_service.commands import end_help
from conversation_service.mongodb.connection import Document
from conversations import documents, store

DEMO_USER = "demo"
MOST = 10_000_000
BATCH = 1_000
# MongoDB stores some batches while the next ones are thought up.
AT_ONCE = 3
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


class Command(BaseCommand):
    help = (
        f'Fill the database with conversations to look at. --heavy of them belong to "{DEMO_USER}",'
        " by default half; the others to --users in equal parts. The same numbers give the same "
        "data."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        end_help(
            parser,
            {
                0: "the data is there",
                1: "it could not run",
                2: "a wrong option",
            },
            "manage.py seed_demo --conversations 1000000 --users 20000 --heavy 10000",
        )
        parser.add_argument("--conversations", type=int, default=200, help="how many (200)")
        parser.add_argument("--users", type=int, default=50, help="how many others (50)")
        parser.add_argument("--heavy", type=int, help=f'how many are of "{DEMO_USER}" (half)')

    def handle(self, *, conversations: int, users: int, heavy: int | None, **options: Any) -> None:
        if not 1 <= conversations <= MOST:
            raise CommandError(f"--conversations must be at least 1 and at most {MOST:,}.")
        if users < 1:
            raise CommandError("--users must be at least 1.")
        heavy = (conversations + 1) // 2 if heavy is None else heavy
        if not 0 <= heavy <= conversations:
            raise CommandError("--heavy must be from 0 to --conversations.")
        if store.conversations().find_one({"user_id": DEMO_USER}):
            self.stdout.write("There is demo data already; nothing changed.")
            return

        demo = Demo(conversations, users, heavy, clock.now())
        # What is lost with its server can be made again.
        target = store.conversations().with_options(write_concern=WriteConcern(w=1))

        def insert(start: int) -> None:
            target.insert_many(demo.batch(start), ordered=False)

        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(insert, range(0, conversations, BATCH)))
        self.stdout.write(self.style.SUCCESS(f"Created {conversations} conversations."))


@dataclass(frozen=True)
class Demo:
    """So many conversations: which ones, follows from the numbers and the time alone."""

    conversations: int
    users: int
    heavy: int
    now: datetime

    def batch(self, start: int) -> list[Document]:
        """Return BATCH of them. Each batch has dice of its own: none waits for another."""
        dice = random.Random(f"{self.conversations} {start}")  # noqa: S311
        numbers = range(start, min(start + BATCH, self.conversations))
        return [self._conversation(number, dice) for number in numbers]

    def _owner(self, number: int) -> str:
        """Spread the demo user's evenly over all; the others take turns."""
        before, after = (n * self.heavy // self.conversations for n in (number, number + 1))
        return DEMO_USER if after > before else f"user-{(number - before) % self.users}"

    def _conversation(self, number: int, dice: random.Random) -> Document:
        begun = self.now - timedelta(seconds=dice.randrange(60, DAYS * 86_400))
        active = begun + (self.now - begun) * dice.random() ** 2
        tags = dice.sample(TAGS, dice.randrange(4))
        document = _begun(dice.choice(TITLES), tuple(tags)) | {
            "_id": ObjectId(),
            "user_id": self._owner(number),
            "character_id": dice.choice(CHARACTERS),
            "metadata": _talk(dice, begun, active),
            "changed_at": begun,
        }
        if dice.random() < PINNED:
            document["pinned_at"] = active
        if dice.random() < ARCHIVED:
            document |= {"status": "archived", "archived_at": active}
        return document


@lru_cache(maxsize=4_096)  # more than there are
def _begun(title: str, tags: tuple[str, ...]) -> Document:
    """Return a conversation to complete: finding the words of its texts is what takes time."""
    return documents.new(
        user_id=DEMO_USER, character_id="", title=title, tags=tags, now=clock.now()
    )


def _talk(dice: random.Random, begun: datetime, active: datetime) -> Document:
    asked, answered = dice.randrange(2_000), dice.randrange(8_000)
    return {
        "message_count": dice.randrange(1, 120),
        "total_tokens": asked + answered,
        "total_input_tokens": asked,
        "total_output_tokens": answered,
        "first_message_at": begun,
        "last_message_at": active,
        "last_activity": active,
        "created_at": begun,
        "updated_at": begun,
    }
