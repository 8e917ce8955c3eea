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
from conversations.writes import store

HELP = """
Compute anew what titles and tags are searched, sorted and compared by, after the rules for it have
changed, or where somebody has written past the service. Versions and times stay as they are.

It goes in the order of the ids. Ctrl-C and SIGTERM end it after the batch at hand; then, and when
MongoDB breaks down, it says where to go on. Until it is through, search and tags may miss
conversations that were written by the former rules.
"""


class Command(BaseCommand):
    help = HELP

    def add_arguments(self, parser: CommandParser) -> None:
        end_help(
            parser,
            {
                0: "all is current",
                1: "it could not run",
                4: "stopped before that, or MongoDB broke down",
            },
            "manage.py reindex_search --after 507f1f77bcf86cd799439014",
        )
        add_after(parser)
        add_dry_run(parser)
        add_json(parser)

    def handle(self, *, after: ObjectId, dry_run: bool, json: bool, **options: Any) -> None:
        numbers: dict[str, Any] = {"read": 0, "outdated": 0, "after": after}
        numbers |= {"dry_run": dry_run, "finished": True}
        trouble = self._reindex(numbers)
        numbers["finished"] = not trouble
        self.stdout.write(as_json(numbers) if json else _in_words(numbers))
        if trouble:
            raise Unfinished(f"{trouble} Go on with --after {numbers['after']}.")

    def _reindex(self, numbers: dict[str, Any]) -> str:
        """Return why it ended before all were read."""
        total = -(-collection.conversations().estimated_document_count() // store.REINDEXED_AT_ONCE)
        batches = track(
            store.to_reindex(numbers["after"]), total=total, what="Batches", out=self.stderr
        )
        with stopped_by_signals() as stopping:
            try:
                for batch in batches:
                    if stopping:
                        return "Stopped."
                    numbers["outdated"] += store.reindex(batch, dry_run=numbers["dry_run"])
                    numbers["read"] += len(batch)
                    numbers["after"] = batch[-1]["_id"]
            except PyMongoError as error:
                return f"MongoDB broke down ({failures.name(error)})."
        return ""


def _in_words(numbers: dict[str, Any]) -> str:
    done = "to compute anew" if numbers["dry_run"] else "computed anew"
    return f"Conversations: {numbers['read']:,} read, {numbers['outdated']:,} {done}."
