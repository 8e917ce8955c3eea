from typing import Any

from conversation_service.commands import JobResult
from conversations.jobs import retention
from conversations.management.retention import RetentionCommand
from conversations.states import PURGED

HELP = """
Purge the conversations in the trash after their purge_at. A tombstone stays for the change feed.
Conversations under a legal hold stay, and are counted.

It can be run again after an interruption, and several runs at once are safe. Ctrl-C and SIGTERM end
it after the current batch.
"""


class Command(RetentionCommand):
    help = HELP
    example = "purge_trash --dry-run"
    exit_0 = "all due conversations are purged"

    def run(self, *, dry_run: bool, batch_size: int, **options: Any) -> JobResult:
        job = retention.trash_job()
        due, held = job.count(), job.count_held()
        purged, error = 0, None
        if not dry_run:
            purged, error = self.apply(job, batch_size, total=due, what="Purged")
        count = f"{due:,} to purge" if dry_run else f"{purged:,} purged"
        text = f"Trash: {count}, {held:,} kept by a legal hold."
        return {"due": due, PURGED: purged, "held": held}, text, error
