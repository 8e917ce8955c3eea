import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from bson import ObjectId
from django.core.management.base import BaseCommand, CommandError, CommandParser

from conversation_service.clients import messages
from conversation_service.clients.http import NoAnswer
from conversation_service.commands import end_help
from conversation_service.mongodb.connection import Document
from conversation_service.progress import track
from conversations import store

INCOMPLETE = 2


class Command(BaseCommand):
    help = (
        "Compare the totals of every conversation with what the Message service counts, and "
        "repair those that differ. Goes in the order of the ids; when it is interrupted, or "
        "Message does not answer, it says where to continue."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        end_help(
            parser,
            {
                0: "all were compared",
                1: "it could not run",
                2: "stopped before that, or a wrong option",
            },
            "manage.py reconcile_activity --rate 20 --after 507f1f77bcf86cd799439014",
        )
        parser.add_argument("--after", default="0" * 24, help="continue behind this id")
        parser.add_argument("--rate", type=float, default=50, help="questions a second (50)")
        parser.add_argument("--user", default="", help="the conversations of this user only")
        parser.add_argument("--dry-run", action="store_true", help="compare, change nothing")

    def handle(self, *, after: str, rate: float, user: str, dry_run: bool, **options: Any) -> None:
        if not ObjectId.is_valid(after):
            raise CommandError("--after takes the id of a conversation.")
        if rate <= 0:
            raise CommandError("--rate must be above 0.")
        found: Counter[str] = Counter()
        rows = track(
            store.to_reconcile(ObjectId(after), user),
            total=store.conversations().estimated_document_count(),
            what="Compared",
            out=self.stderr,
        )
        try:
            for row in _paced(rows, rate):
                found[_reconcile(row, dry_run=dry_run)] += 1
                after = str(row["_id"])
        except (NoAnswer, KeyboardInterrupt) as stop:
            self._report(found)
            self.stderr.write(f"Stopped ({stop!r}); continue with --after {after}.")
            sys.exit(INCOMPLETE)
        self._report(found)

    def _report(self, found: Counter[str]) -> None:
        outcomes = ("right", "repaired", "to repair", "unknown to Message")
        told = ", ".join(f"{found[name]} {name}" for name in outcomes if found[name])
        self.stdout.write(f"Conversations: {told or 'none'}.")


def _paced(rows: Iterator[Document], rate: float) -> Iterator[Document]:
    """Let no more than `rate` rows a second pass."""
    due = time.monotonic()
    for row in rows:
        time.sleep(max(0.0, due - time.monotonic()))
        due = max(due, time.monotonic() - 1) + 1 / rate
        yield row


def _reconcile(row: Document, *, dry_run: bool) -> str:
    stats = messages.stats(str(row["_id"]))
    if stats is None:
        return "unknown to Message"
    if not store.repair(row, vars(stats), dry_run=dry_run):
        return "right"
    return "to repair" if dry_run else "repaired"
