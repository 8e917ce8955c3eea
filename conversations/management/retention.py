"""Shared by the commands that apply a retention job."""

from django.core.management.base import CommandParser

from conversation_service.commands import Job, Unfinished, positive_int
from conversation_service.http.ndjson import batches
from conversation_service.progress import stopped_by_signals, track
from conversations.jobs.retention import RetentionJob


class RetentionCommand(Job):
    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--batch-size",
            type=positive_int,
            default=500,
            help="conversations per batch (default 500)",
        )
        super().add_arguments(parser)

    def apply(
        self, job: RetentionJob, batch_size: int, *, total: int, what: str
    ) -> tuple[int, Unfinished | None]:
        """Apply a job in batches. Return the number of written conversations.

        Returns an error if Ctrl-C or SIGTERM came before the last batch.
        """
        rows = track(job.each(batch_size), total=total, what=what, out=self.stderr)
        written = 0
        with stopped_by_signals() as stopping:
            for batch in batches(rows, batch_size):
                written += job.apply_to(batch)
                if stopping:
                    return written, Unfinished("Stopped; run it again to go on.")
        return written, None
