from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from conversation_service.commands import Unfinished, add_dry_run, add_json, as_json, end_help
from conversations.jobs import retention
from conversations.states import PURGED

HELP = """
Purge the conversations in the trash after their purge_at. A tombstone stays for the change feed.
Conversations under a legal hold stay, and are counted.

It can be run again after an interruption, and several runs at once are safe. Ctrl-C and SIGTERM end
it after the current batch.
"""


class Command(BaseCommand):
    help = HELP

    def add_arguments(self, parser: CommandParser) -> None:
        end_help(
            parser,
            {
                0: "all due conversations are purged",
                1: "it could not run",
                4: "interrupted before the end",
            },
            "manage.py purge_trash --dry-run",
        )
        add_dry_run(parser)
        parser.add_argument(
            "--batch-size", type=int, default=500, help="conversations per batch (default 500)"
        )
        add_json(parser)

    def handle(self, *, dry_run: bool, batch_size: int, json: bool, **options: Any) -> None:
        if batch_size < 1:
            raise CommandError("--batch-size must be at least 1.")
        job = retention.trash_job()
        total = job.count()
        numbers = {
            "due": total,
            PURGED: 0,
            "held": job.count_held(),
            "dry_run": dry_run,
            "finished": True,
        }
        if not dry_run:
            numbers[PURGED], numbers["finished"] = retention.run(
                job, batch_size, total=total, what="Purged", out=self.stderr
            )
        done = "to purge" if dry_run else PURGED
        count = numbers["due" if dry_run else PURGED]
        text = f"Trash: {count:,} {done}, {numbers['held']:,} kept by a legal hold."
        self.stdout.write(as_json(numbers) if json else text)
        if not numbers["finished"]:
            raise Unfinished("Stopped; run it again to go on.")
