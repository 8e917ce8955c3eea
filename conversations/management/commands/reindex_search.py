import sys
from collections import Counter
from typing import Any

from bson import ObjectId
from django.core.management.base import BaseCommand, CommandError, CommandParser
from pymongo.errors import PyMongoError

from conversation_service.commands import end_help
from conversation_service.progress import track
from conversations import store

INCOMPLETE = 2


class Command(BaseCommand):
    help = (
        "Compute anew what titles and tags are searched, sorted and compared by, after the rules "
        "for it have changed. Versions and times stay as they are. Goes in the order of the ids; "
        "when it is interrupted, or MongoDB does not answer, it says where "
        "to continue. Until it is through, search and tags may miss conversations that were "
        "written by the former rules."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        end_help(
            parser,
            {
                0: "all is current",
                1: "it could not run",
                2: "stopped before that, or a wrong option",
            },
            "manage.py reindex_search --after 507f1f77bcf86cd799439014",
        )
        parser.add_argument("--after", default="0" * 24, help="continue behind this id")
        parser.add_argument("--dry-run", action="store_true", help="compare, change nothing")

    def handle(self, *, after: str, dry_run: bool, **options: Any) -> None:
        if not ObjectId.is_valid(after):
            raise CommandError("--after takes the id of a conversation.")
        found: Counter[str] = Counter()
        total = -(-store.conversations().estimated_document_count() // store.REINDEXED_AT_ONCE)
        batches = track(
            store.to_reindex(ObjectId(after)), total=total, what="Batches", out=self.stderr
        )
        try:
            for batch in batches:
                found["outdated"] += store.reindex(batch, dry_run=dry_run)
                found["read"] += len(batch)
                after = str(batch[-1]["_id"])
        except (PyMongoError, KeyboardInterrupt) as stop:
            self._report(found, dry_run=dry_run)
            self.stderr.write(f"Stopped ({type(stop).__name__}); continue with --after {after}.")
            sys.exit(INCOMPLETE)
        self._report(found, dry_run=dry_run)

    def _report(self, found: Counter[str], *, dry_run: bool) -> None:
        done = "to compute anew" if dry_run else "computed anew"
        self.stdout.write(f"Conversations: {found['read']} read, {found['outdated']} {done}.")
