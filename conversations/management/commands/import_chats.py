import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any

from django.core.management.base import CommandError, CommandParser
from pymongo.errors import PyMongoError

from conversation_service.commands import (
    Job,
    JobResult,
    Unfinished,
    external_id,
    mongodb_error,
    open_report,
)
from conversation_service.errors import ServiceError
from conversation_service.http.rendering import dumps
from conversation_service.progress import stopped_by_signals, track
from conversations.exceptions import ConversationPurged
from conversations.jobs import importing
from conversations.jobs.chat_exports import PROGRAMS, ExportedChat, ExportError, read_export
from conversations.jobs.importing import ImportResult
from conversations.states import PURGED

HELP = """
Import a user's conversations from an export of ChatGPT, Open WebUI or LibreChat.

FILE is JSON in UTF-8, the same packed by gzip, or a zip archive:
  * chatgpt: the archive of "Export data", or conversations.json from it.
  * open-webui: the export of all chats or of one chat.
  * librechat: the JSON export of a conversation, several of them in an array or one per line, or
    mongoexport of the collection "conversations".

Titles, times, tags, the states archived and pinned, and settings are imported: the model, the
reasoning effort, temperature and so on, and other parameters as `extra`. `custom` keeps the source,
the id, the folder and the project. Messages belong to the Message service and are not imported.

Each value that is adjusted or has no place here, such as a system prompt, is counted by its name.
The report (NDJSON) has a line for each conversation with such a value, and for each that is
rejected, purged or repeated. -v 2 prints these lines.

A conversation is identified by the user, the source and its id there: an existing one stays as it
is, so the command can be run again. A purged one stays purged.

Ctrl-C and SIGTERM end it after the current batch.
"""

NAMES_SHOWN = 50


@dataclass
class Totals:
    """The number of conversations by outcome, and by name of a value or reason."""

    read: int = 0
    created: int = 0
    unchanged: int = 0
    purged: int = 0
    repeated: int = 0
    other_users: int = 0
    rejected: int = 0
    adjusted: int = 0
    adjustments: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    rejections: Counter[str] = field(default_factory=Counter)

    def as_text(self, seconds: float, *, dry_run: bool) -> str:
        lines = [
            "Nothing was written: a dry run." if dry_run else "Done.",
            f"{self.read:>10,} read in {seconds:.1f} s",
            f"{self.created:>10,} imported, {self.adjusted:,} of them adjusted",
            f"{self.unchanged:>10,} already existed",
            f"{self.purged:>10,} were purged here, and stay purged",
            f"{self.repeated:>10,} repeated in the file",
            f"{self.other_users:>10,} of other users in the export",
            f"{self.rejected:>10,} rejected",
        ]
        counts = {
            "Adjusted:": self.adjustments,
            "Not taken over:": self.left_out,
            "Rejected:": self.rejections,
        }
        for heading, numbers in counts.items():
            lines += [heading] if numbers else []
            lines += [f"{count:>10,} {name}" for name, count in numbers.most_common(NAMES_SHOWN)]
            if len(numbers) > NAMES_SHOWN:
                lines.append(f"{len(numbers) - NAMES_SHOWN:>10,} further names: see the report")
        return "\n".join(lines)


class Command(Job):
    help = HELP
    example = "import_chats --from chatgpt export.zip --user u-1 --character luna --dry-run"
    exit_0 = "all are imported"
    exit_1 = "some were rejected, the file is damaged, or it could not run"
    exit_4 = "interrupted, or MongoDB is unavailable; run it again"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path, metavar="FILE", help="the export")
        parser.add_argument("--from", dest="source", required=True, choices=PROGRAMS)
        parser.add_argument("--user", type=external_id, required=True, help="the owner here")
        parser.add_argument(
            "--character",
            type=external_id,
            default="unknown",
            help="the character of all conversations (default unknown)",
        )
        parser.add_argument(
            "--source-user",
            help="import only this user's conversations, by the id in the export (default: the "
            "user of the first conversation; those of other users are rejected)",
        )
        parser.add_argument(
            "--report",
            type=Path,
            default=Path("import_chats.ndjson"),
            help="file for adjustments and rejections, appended (default import_chats.ndjson)",
        )
        super().add_arguments(parser)

    def run(self, *, report: Path, dry_run: bool, **options: Any) -> JobResult:
        began = time.monotonic()
        totals = Totals()
        with open_report(report) as file, stopped_by_signals() as stopping:
            show = self.write if options["verbosity"] > 1 else None
            chats = ChatImport(totals, file, stopping, options, show)
            try:
                chats.run(dry_run=dry_run, out=self.stderr)
            except (PyMongoError, ServiceError) as error:
                has_begun = bool(totals.created or totals.unchanged)
                raise mongodb_error(error, "Run it again.", has_begun=has_begun) from None
        problem: CommandError | None = None
        if chats.damage:
            problem = CommandError(f"FILE: {chats.damage}")
        elif stopping:
            problem = Unfinished("Stopped. Run it again with the same options.")
        elif totals.rejected:
            problem = CommandError(f"{totals.rejected:,} were rejected: see {report}.")
        elif not totals.read:
            problem = CommandError("FILE: The file contains no conversations.")
        seconds = time.monotonic() - began
        numbers = {**vars(totals), "seconds": round(seconds, 1)}
        return numbers, totals.as_text(seconds, dry_run=dry_run), problem


@dataclass
class ChatImport:
    """One run. `damage` says what is wrong with the file, if it could not be read to its end."""

    totals: Totals
    report: IO[bytes]
    stopping: list[int]
    options: Mapping[str, Any]
    show: Callable[[Mapping[str, Any], str], None] | None  # for the lines of the report
    damage: str = ""
    owner: str | None = None
    pending: dict[int, ExportedChat] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)  # by external id

    def run(self, *, dry_run: bool, out: Any) -> None:
        batches = importing.batches(self.options["user"], self.options["character"], self.lines())
        for batch in track(batches, total=None, what="Batches", out=out):
            for result in batch.results(dry_run=dry_run):
                self.add(result)

    def lines(self) -> Iterator[bytes]:
        """Yield a line for each conversation; an empty one if it is not imported."""
        try:
            for chat in read_export(self.options["source"], self.options["file"]):
                if self.stopping:
                    return
                self.totals.read += 1
                # Unlike dumps(), it writes unpaired surrogates, which the import replaces.
                yield json.dumps(chat.line).encode() if self.is_importable(chat) else b""
        except (ExportError, OSError) as error:
            self.damage = str(error)

    def is_importable(self, chat: ExportedChat) -> bool:
        if chat.reason:
            self.reject(chat)
            return False
        wanted = self.options["source_user"]
        if wanted is not None and chat.owner != wanted:
            self.totals.other_users += 1
            return False
        self.owner = self.owner or chat.owner
        if chat.owner and chat.owner != self.owner:
            chat.reason = "The conversation belongs to another user. Use --source-user."
            self.reject(chat)
            return False
        first = self.numbers.setdefault(chat.line["external_id"], chat.number)
        if first != chat.number:
            self.totals.repeated += 1
            self.write(chat, "repeated", reason=f"It has the id of conversation {first}.")
            return False
        self.pending[chat.number] = chat
        return True

    def add(self, result: ImportResult) -> None:
        chat = self.pending.pop(result.line)
        if result.status == HTTPStatus.OK:
            self.totals.unchanged += 1
        elif result.status == HTTPStatus.CREATED:
            self.totals.created += 1
            adjusted = list(dict.fromkeys([*chat.adjusted, *result.adjusted]))
            self.totals.adjusted += bool(adjusted)
            self.totals.adjustments.update(adjusted)
            self.totals.left_out.update(chat.left_out)
            if adjusted or chat.left_out:
                names = {"adjusted": adjusted, "left_out": chat.left_out}
                self.write(chat, "created", id=result.id, **names)
        elif result.code == ConversationPurged.code:
            self.totals.purged += 1
            self.write(chat, PURGED, reason=str(result.message))
        else:
            chat.reason = str(result.message)
            self.reject(chat, code=result.code, errors=result.errors)

    def reject(self, chat: ExportedChat, **details: Any) -> None:
        self.totals.rejected += 1
        self.totals.rejections[chat.reason] += 1
        self.write(chat, "rejected", reason=chat.reason, **details)

    def write(self, chat: ExportedChat, outcome: str, **details: Any) -> None:
        row = {"number": chat.number, "source_id": chat.source_id, "outcome": outcome, **details}
        self.report.write(dumps(row) + b"\n")
        if self.show:
            values = (f"{name} {value}" for name, value in details.items() if value)
            self.show(row, f"{chat.number:>10,} {chat.source_id}: {outcome}, {', '.join(values)}")
