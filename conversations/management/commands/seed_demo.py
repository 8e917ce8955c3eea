import random
from datetime import datetime, timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from conversation_service import clock
from conversation_service.commands import end_help
from conversation_service.mongodb.connection import Document
from conversations import documents, store

DEMO_USER = "demo"
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


class Command(BaseCommand):
    help = (
        "Fill the database with conversations to look at: half of them belong to the user "
        f'"{DEMO_USER}". The same number gives the same data.'
    )

    def add_arguments(self, parser: CommandParser) -> None:
        end_help(
            parser,
            {
                0: "the data is there",
                1: "it could not run",
                2: "a wrong option",
            },
            "manage.py seed_demo --conversations 10000",
        )
        parser.add_argument("--conversations", type=int, default=200, help="how many (200)")

    def handle(self, *, conversations: int, **options: Any) -> None:
        if conversations < 1:
            raise CommandError("--conversations must be at least 1.")
        if store.conversations().find_one({"user_id": DEMO_USER}):
            self.stdout.write("There is demo data already; nothing changed.")
            return

        dice = random.Random(conversations)  # noqa: S311
        now = clock.now()
        for start in range(0, conversations, BATCH):
            numbers = range(start, min(start + BATCH, conversations))
            store.conversations().insert_many(
                [_conversation(number, dice, now) for number in numbers], ordered=False
            )
        self.stdout.write(self.style.SUCCESS(f"Created {conversations} conversations."))


def _conversation(number: int, dice: random.Random, now: datetime) -> Document:
    begun = now - timedelta(seconds=dice.randrange(60, DAYS * 86_400))
    active = begun + (now - begun) * dice.random() ** 2
    document = documents.new(
        user_id=DEMO_USER if number % 2 == 0 else f"user-{dice.randrange(50)}",
        character_id=dice.choice(CHARACTERS),
        title=dice.choice(TITLES),
        tags=dice.sample(TAGS, dice.randrange(4)),
        now=begun.replace(microsecond=begun.microsecond // 1000 * 1000),
    )
    _let_them_talk(document, dice, active)
    if dice.random() < PINNED:
        document["pinned_at"] = active
    if dice.random() < ARCHIVED:
        document |= {"status": "archived", "archived_at": active}
    return document


def _let_them_talk(document: Document, dice: random.Random, active: datetime) -> None:
    asked, answered = dice.randrange(2_000), dice.randrange(8_000)
    document["metadata"] |= {
        "message_count": dice.randrange(1, 120),
        "total_tokens": asked + answered,
        "total_input_tokens": asked,
        "total_output_tokens": answered,
        "first_message_at": document["metadata"]["created_at"],
        "last_message_at": active,
        "last_activity": active,
    }
