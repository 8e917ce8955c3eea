from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from conversation_service.commands import Unfinished, add_dry_run, add_json, as_json, end_help
from conversations.jobs import retention

HELP = """
Purge what has been in the trash for its time: all that is past its purge_at. A tombstone stays
for the change feed. What is under a legal hold stays, and is counted.

Running it again goes on where it was stopped, and two at once do no harm. Ctrl-C and SIGTERM end
it after the batch at hand.
"""


class Command(BaseCommand):
    help = HELP

    def add_arguments(self, parser: CommandParser) -> None:
        end_help(
            parser,
            {
                0: "all that was due is purged",
                1: "it could not run",
                4: "stopped before that",
            },
            "manage.py purge_trash --dry-run",
        )
        add_dry_run(parser)
        parser.add_argument("--batch-size", type=int, default=500, help="of a statement (500)")
        add_json(parser)

    def handle(self, *, dry_run: bool, batch_size: int, json: bool, **options: Any) -> None:
        if batch_size < 1:
            raise CommandError("--batch-size is 1 at least.")
        due = retention.trash()
        total = due.count()
        numbers = {
            "due": total,
            "purged": 0,
            "held": due.count_held(),
            "dry_run": dry_run,
            "finished": True,
        }
        if not dry_run:
            numbers["purged"], numbers["finished"] = retention.carry_out(
                due, batch_size, total=total, what="Purged", out=self.stderr
            )
        self.stdout.write(as_json(numbers) if json else _in_words(numbers))
        if not numbers["finished"]:
            raise Unfinished("Stopped; run it again to go on.")


def _in_words(numbers: dict[str, Any]) -> str:
    done = "to purge" if numbers["dry_run"] else "purged"
    count = numbers["due" if numbers["dry_run"] else "purged"]
    return f"Trash: {count:,} {done}, {numbers['held']:,} kept by a legal hold."
