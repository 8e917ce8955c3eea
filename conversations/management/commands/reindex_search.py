from typing import Any

from bson import ObjectId
from django.core.management.base import CommandParser
from pymongo.errors import PyMongoError

from conversation_service.commands import Job, JobResult, Unfinished, add_after
from conversation_service.mongodb import failures
from conversation_service.progress import stopped_by_signals, track
from conversations import collection
from conversations.writes import search_index

HELP = """
Derive the values by which titles and tags are searched, sorted and compared, after their rules have
changed or another program has written to the database. Versions and times stay as they are.

It goes in the order of the ids. Ctrl-C and SIGTERM end it after the current batch; then, and when
MongoDB is unavailable, it prints the option to resume. Until it has finished, search and tags can
miss conversations that were written by the former rules.
"""


class Command(Job):
    help = HELP
    example = "reindex_search --after 507f1f77bcf86cd799439014"
    exit_0 = "all conversations are up to date"
    exit_4 = "interrupted before the end, or MongoDB is unavailable"

    def add_arguments(self, parser: CommandParser) -> None:
        add_after(parser)
        super().add_arguments(parser)

    def run(self, *, after: ObjectId, dry_run: bool, **options: Any) -> JobResult:
        numbers: dict[str, Any] = {"read": 0, "outdated": 0, "after": after}
        reason = self.reindex(numbers, dry_run=dry_run)
        done = "to derive again" if dry_run else "derived again"
        text = f"Conversations: {numbers['read']:,} read, {numbers['outdated']:,} {done}."
        error = Unfinished(f"{reason} Go on with --after {numbers['after']}.") if reason else None
        return numbers, text, error

    def reindex(self, numbers: dict[str, Any], *, dry_run: bool) -> str:
        """Return the reason if it ended before the last batch."""
        total = -(-collection.conversations().estimated_document_count() // search_index.BATCH)
        batches = search_index.batches(numbers["after"])
        with stopped_by_signals() as stopping:
            try:
                for batch in track(batches, total=total, what="Batches", out=self.stderr):
                    if stopping:
                        return "Stopped."
                    numbers["outdated"] += search_index.reindex(batch, dry_run=dry_run)
                    numbers["read"] += len(batch)
                    numbers["after"] = batch[-1]["_id"]
            except PyMongoError as error:
                return f"MongoDB is unavailable ({failures.name(error)})."
        return ""
