from datetime import UTC
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from conversation_service.commands import Unfinished, add_dry_run, add_json, as_json, end_help
from conversations.jobs import retention
from conversations.jobs.retention import RetentionJob
from conversations.states import ARCHIVED

HELP = """
Archive active conversations without a message for RETENTION_ARCHIVE_IDLE_DAYS, except pinned ones
and those under a legal hold. The archiving appears in the history; the last activity stays. With 0
days, the default, the command does nothing. The trash has a command of its own, purge_trash.

It can be run again after an interruption, and several runs at once are safe. Ctrl-C and SIGTERM end
it after the current batch.
"""


class Command(BaseCommand):
    help = HELP

    def add_arguments(self, parser: CommandParser) -> None:
        end_help(
            parser,
            {
                0: "all due conversations are archived",
                1: "it could not run",
                4: "interrupted before the end",
            },
            "manage.py apply_retention --dry-run --json",
        )
        add_dry_run(parser, "--preview")
        parser.add_argument(
            "--batch-size", type=int, default=500, help="conversations per batch (default 500)"
        )
        add_json(parser)

    def handle(self, *, dry_run: bool, batch_size: int, json: bool, **options: Any) -> None:
        if batch_size < 1:
            raise CommandError("--batch-size must be at least 1.")
        job = retention.idle_job()
        numbers = {"due": 0, ARCHIVED: 0, "dry_run": dry_run, "finished": True}
        if job:
            numbers["due"] = job.count()
            if dry_run:
                numbers["due"] = self.print_due(job, batch_size, json=json)
            else:
                numbers[ARCHIVED], numbers["finished"] = retention.run(
                    job, batch_size, total=numbers["due"], what="Archived", out=self.stderr
                )
        elif not json:
            self.stdout.write("RETENTION_ARCHIVE_IDLE_DAYS is 0: nothing is archived when idle.")
        count = f"{numbers['due']:,} to archive" if dry_run else f"{numbers['archived']:,} archived"
        self.stdout.write(as_json(numbers) if json else f"Idle: {count}.")
        if not numbers["finished"]:
            raise Unfinished("Stopped; run it again to go on.")

    def print_due(self, job: RetentionJob, batch_size: int, *, json: bool) -> int:
        count = 0
        for row in job.each(batch_size):
            count += 1
            id_, user_id, at = row["_id"], row["user_id"], job.time_of(row).replace(tzinfo=UTC)
            line = {"id": id_, "user_id": user_id, "last_activity": at}
            text = f"{id_} {user_id} {at:%Y-%m-%d %H:%M}"
            self.stdout.write(as_json(line) if json else text)
        return count
