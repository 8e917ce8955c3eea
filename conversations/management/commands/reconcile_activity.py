import time
from collections.abc import Iterable, Iterator
from typing import Any

from bson import ObjectId
from django.core.management.base import BaseCommand, CommandError, CommandParser

from conversation_service import clock
from conversation_service.commands import (
    Unfinished,
    add_after,
    add_dry_run,
    add_json,
    as_json,
    end_help,
    external_id,
)
from conversation_service.mongodb.connection import Document
from conversation_service.progress import stopped_by_signals, track
from conversation_service.upstreams import messages
from conversation_service.upstreams.http import UpstreamError
from conversations import collection
from conversations.writes import activity, store

OUTCOMES = ("right", "repaired", "to_repair", "in_the_future", "unknown_to_message")

HELP = """
Compare every conversation with what the Message service counts, and repair what differs: totals,
the time of the last activity, and the number of the latest activity report if Message cannot have
reached it, as such a number blocks every later report. Statistics with times ahead of the clock of
the database are not stored.

It goes in the order of the ids. Ctrl-C and SIGTERM end it after the conversation at hand; then, and
when Message does not answer, it says where to go on.
"""


class Command(BaseCommand):
    help = HELP

    def add_arguments(self, parser: CommandParser) -> None:
        end_help(
            parser,
            {
                0: "all were compared",
                1: "it could not run",
                4: "stopped before that, or Message does not answer",
            },
            "manage.py reconcile_activity --rate 20 --after 507f1f77bcf86cd799439014",
        )
        add_after(parser)
        parser.add_argument("--rate", type=float, default=50, help="questions a second (50)")
        parser.add_argument("--user", type=external_id, help="the conversations of this user only")
        add_dry_run(parser)
        add_json(parser)

    def handle(
        self,
        *,
        after: ObjectId,
        rate: float,
        user: str | None,
        dry_run: bool,
        json: bool,
        **options: Any,
    ) -> None:
        if rate <= 0:
            raise CommandError("--rate must be above 0.")
        numbers: dict[str, Any] = dict.fromkeys(OUTCOMES, 0)
        numbers |= {"after": after, "dry_run": dry_run, "finished": True}
        trouble = self._compare(_paced(store.to_reconcile(after, user), rate), numbers)
        numbers["finished"] = not trouble
        self.stdout.write(as_json(numbers) if json else _in_words(numbers))
        if trouble:
            raise Unfinished(f"{trouble} Go on with --after {numbers['after']}.")

    def _compare(self, rows: Iterator[Document], numbers: dict[str, Any]) -> str:
        """Return why it ended before all were compared."""
        total = collection.conversations().estimated_document_count()
        with stopped_by_signals() as stopping:
            for row in track(rows, total=total, what="Compared", out=self.stderr):
                if stopping:
                    return "Stopped."
                try:
                    numbers[_reconcile(row, dry_run=numbers["dry_run"])] += 1
                except UpstreamError:
                    return "Message does not answer."
                numbers["after"] = row["_id"]
        return ""


def _in_words(numbers: dict[str, Any]) -> str:
    told = [f"{numbers[name]:,} {name.replace('_', ' ')}" for name in OUTCOMES if numbers[name]]
    words = ", ".join(told).replace("unknown to message", "unknown to Message")
    return f"Conversations: {words or 'none'}."


def _paced(rows: Iterable[Document], rate: float) -> Iterator[Document]:
    """Let no more than `rate` rows a second pass."""
    due = time.monotonic()
    for row in rows:
        time.sleep(max(0.0, due - time.monotonic()))
        due = max(due, time.monotonic() - 1) + 1 / rate
        yield row


def _reconcile(row: Document, *, dry_run: bool) -> str:
    stats = messages.stats(str(row["_id"]))
    if stats is None:
        return "unknown_to_message"
    totals = vars(stats).copy()
    sequence = totals.pop("sequence")
    if store.repair(row, totals, sequence, dry_run=dry_run):
        return "to_repair" if dry_run else "repaired"
    return "in_the_future" if activity.ahead(totals, clock.now()) else "right"
