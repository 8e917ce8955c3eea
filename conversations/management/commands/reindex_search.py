from typing import Any

from bson import ObjectId
from django.core.management.base import BaseCommand, CommandParser
from pymongo.errors import PyMongoError

from conversation_service.commands import (
    Unfinished,
    add_after,
    add_dry_run,
    add_json,
    as_json,
    end_help,
)
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


class Command(BaseCommand):
    help = HELP

    def add_arguments(self, parser: CommandParser) -> None:
        end_help(
            parser,
            {
                0: "all conversations are up to date",
                1: "it could not run",
                4: "interrupted before the end, or MongoDB is unavailable",
            },
            "manage.py reindex_search --after 507f1f77bcf86cd799439014",
        )
        add_after(parser)
        add_dry_run(parser)
        add_json(parser)

    def handle(self, *, after: ObjectId, dry_run: bool, json: bool, **options: Any) -> None:
        numbers: dict[str, Any] = {"read": 0, "outdated": 0, "after": after}
        numbers |= {"dry_run": dry_run, "finished": True}
        reason = self.reindex(numbers)
        numbers["finished"] = not reason
        done = "to derive again" if dry_run else "derived again"
        text = f"Conversations: {numbers['read']:,} read, {numbers['outdated']:,} {done}."
        self.stdout.write(as_json(numbers) if json else text)
        if reason:
            raise Unfinished(f"{reason} Go on with --after {numbers['after']}.")

    def reindex(self, numbers: dict[str, Any]) -> str:
        """Return the reason if it ended before the last batch."""
        total = -(-collection.conversations().estimated_document_count() // search_index.BATCH)
        batches = track(
            search_index.batches(numbers["after"]), total=total, what="Batches", out=self.stderr
        )
        with stopped_by_signals() as stopping:
            try:
                for batch in batches:
                    if stopping:
                        return "Stopped."
                    outdated = search_index.reindex(batch, dry_run=numbers["dry_run"])
                    numbers["outdated"] += outdated
                    numbers["read"] += len(batch)
                    numbers["after"] = batch[-1]["_id"]
            except PyMongoError as error:
                return f"MongoDB is unavailable ({failures.name(error)})."
        return ""
