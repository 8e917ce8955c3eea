from datetime import UTC
from typing import Any

from django.core.management.base import CommandParser

from conversation_service.commands import JobResult
from conversations.jobs import retention
from conversations.jobs.retention import RetentionJob
from conversations.management.retention import RetentionCommand
from conversations.states import ARCHIVED

HELP = """
Archive active conversations without a message for RETENTION_ARCHIVE_IDLE_DAYS, except pinned ones
and those under a legal hold. The archiving appears in the history; the last activity stays. With 0
days, the default, the command does nothing. The trash has a command of its own, purge_trash.

It can be run again after an interruption, and several runs at once are safe. Ctrl-C and SIGTERM end
it after the current batch.
"""


class Command(RetentionCommand):
    help = HELP
    example = "apply_retention --dry-run --json"
    exit_0 = "all due conversations are archived"

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--preview", dest="dry_run", action="store_true", help="the same as --dry-run"
        )

    def run(self, *, dry_run: bool, batch_size: int, **options: Any) -> JobResult:
        job = retention.idle_job()
        if job is None:
            text = "RETENTION_ARCHIVE_IDLE_DAYS is 0: nothing is archived when idle."
            return {"due": 0, ARCHIVED: 0}, text, None
        if dry_run:
            due = self.print_due(job, batch_size)
            return {"due": due, ARCHIVED: 0}, f"Idle: {due:,} to archive.", None
        due = job.count()
        archived, error = self.apply(job, batch_size, total=due, what="Archived")
        return {"due": due, ARCHIVED: archived}, f"Idle: {archived:,} archived.", error

    def print_due(self, job: RetentionJob, batch_size: int) -> int:
        count = 0
        for row in job.each(batch_size):
            count += 1
            id_, user_id, at = row["_id"], row["user_id"], job.time_of(row).replace(tzinfo=UTC)
            line = {"id": id_, "user_id": user_id, "last_activity": at}
            self.write(line, f"{id_} {user_id} {at:%Y-%m-%d %H:%M}")
        return count
