import time
from collections.abc import Iterable, Iterator
from typing import Any

from bson import ObjectId
from django.core.management.base import CommandParser

from conversation_service import clock
from conversation_service.commands import (
    Job,
    JobResult,
    Unfinished,
    add_after,
    external_id,
    positive_float,
)
from conversation_service.mongodb.connection import Document
from conversation_service.progress import stopped_by_signals, track
from conversation_service.upstreams import messages
from conversation_service.upstreams.http import UpstreamError
from conversations import collection
from conversations.writes import activity

OUTCOMES = {
    "right": "right",
    "repaired": "repaired",
    "to_repair": "to repair",
    "in_the_future": "in the future",
    "unknown_to_message": "unknown to Message",
}

HELP = """
Compare every conversation with the statistics of the Message service and repair differences: the
totals, the time of the last activity, and the sequence number of the latest activity report if
Message cannot have sent it, as such a number blocks every later report. Statistics with times ahead
of the clock of the database are not stored.

It goes in the order of the ids. Ctrl-C and SIGTERM end it after the current conversation; then, and
when Message is unavailable, it prints the option to resume.
"""


class Command(Job):
    help = HELP
    example = "reconcile_activity --rate 20 --after 507f1f77bcf86cd799439014"
    exit_0 = "all conversations are compared"
    exit_4 = "interrupted before the end, or Message is unavailable"

    def add_arguments(self, parser: CommandParser) -> None:
        add_after(parser)
        add = parser.add_argument
        add("--rate", type=positive_float, default=50, help="requests per second (default 50)")
        add("--user", type=external_id, help="compare only the conversations of this user")
        super().add_arguments(parser)

    def run(
        self, *, after: ObjectId, rate: float, user: str | None, dry_run: bool, **options: Any
    ) -> JobResult:
        numbers: dict[str, Any] = dict.fromkeys(OUTCOMES, 0) | {"after": after}
        rows = rate_limited(activity.rows_to_reconcile(after, user), rate)
        reason = self.compare(rows, numbers, dry_run=dry_run)
        counts = [f"{numbers[name]:,} {label}" for name, label in OUTCOMES.items() if numbers[name]]
        text = f"Conversations: {', '.join(counts) or 'none'}."
        error = Unfinished(f"{reason} Go on with --after {numbers['after']}.") if reason else None
        return numbers, text, error

    def compare(self, rows: Iterator[Document], numbers: dict[str, Any], *, dry_run: bool) -> str:
        """Return the reason if it ended before the last conversation."""
        total = collection.conversations().estimated_document_count()
        with stopped_by_signals() as stopping:
            for row in track(rows, total=total, what="Compared", out=self.stderr):
                if stopping:
                    return "Stopped."
                try:
                    numbers[reconcile(row, dry_run=dry_run)] += 1
                except UpstreamError:
                    return "Message is unavailable."
                numbers["after"] = row["_id"]
        return ""


def rate_limited(rows: Iterable[Document], rate: float) -> Iterator[Document]:
    """Yield at most `rate` rows per second."""
    due = time.monotonic()
    for row in rows:
        time.sleep(max(0.0, due - time.monotonic()))
        due = max(due, time.monotonic() - 1) + 1 / rate
        yield row


def reconcile(row: Document, *, dry_run: bool) -> str:
    stats = messages.stats(str(row["_id"]))
    if stats is None:
        return "unknown_to_message"
    totals = vars(stats).copy()
    sequence = totals.pop("sequence")
    if activity.repair(row, totals, sequence, dry_run=dry_run):
        return "to_repair" if dry_run else "repaired"
    return "in_the_future" if activity.ahead(totals, clock.now()) else "right"
