"""Shared by the commands backup and restore."""

from collections.abc import Callable
from pathlib import Path

from django.core.management.base import CommandError, CommandParser
from pymongo.errors import PyMongoError

from conversation_service.backups.backup import GO_ON
from conversation_service.commands import Job, Unfinished, mongodb_error
from conversation_service.progress import stopped_by_signals, watched


class ArchiveCommand(Job):
    directory_help: str
    yes_help: str

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("directory", type=Path, metavar="DIRECTORY", help=self.directory_help)
        parser.add_argument("--yes", action="store_true", help=self.yes_help)
        super().add_arguments(parser)

    def attempt(
        self, work: Callable[[list[int], Callable[[int], None]], None], *, total: int, what: str
    ) -> tuple[int, CommandError | None]:
        """Run a step that can be repeated, with its progress.

        `work` gets the list of received signals, and a function for the number of documents that
        are done. Return this number, and the error to end with.
        """
        done = [0]

        def advance(count: int) -> None:
            done[0] += count

        error: CommandError | None = None
        try:
            with (
                stopped_by_signals() as stopping,
                watched(lambda: (done[0], total), what=what, out=self.stderr),
            ):
                work(stopping, advance)
        except Unfinished as unfinished:
            error = unfinished
        except PyMongoError as failure:
            error = mongodb_error(failure, GO_ON, has_begun=True)
        except OSError as failure:
            error = Unfinished(f"{failure.filename}: {failure.strerror}. {GO_ON}")
        return done[0], error
