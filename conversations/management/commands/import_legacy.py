import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import IO, Any

from bson import ObjectId, json_util
from django.core.management.base import CommandError, CommandParser
from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.errors import ConfigurationError, InvalidName, PyMongoError

from conversation_service.commands import (
    Job,
    JobResult,
    Unfinished,
    mongodb_error,
    object_id,
    open_report,
)
from conversation_service.errors import ServiceError
from conversation_service.http.ndjson import batches
from conversation_service.mongodb import failures
from conversation_service.mongodb.connection import Document
from conversation_service.progress import stopped_by_signals, track
from conversations.collection import conversations
from conversations.jobs.legacy import Converted, LegacyIssue
from conversations.jobs.legacy_import import BATCH, take_over

CONNECT_MS = 5_000

HELP = """
Import the conversations of the monolith: flat documents with user_id, character_id, title,
is_archived, message_count, total_tokens, tags, settings, created_at and updated_at.

Nothing is lost, and every change to a value is reported:
  * _id stays; user_id and character_id become text; times without a zone are UTC.
  * updated_at is also the last activity, and for archived conversations the archiving time.
  * A value that this service does not accept is repaired if possible, counted by kind, and written
    to the report with the old value: a title is cut to 200 characters (custom.legacy_title keeps
    512), numbers are brought within today's bounds, missing values get their defaults, and unknown
    fields are left out.
  * A conversation that cannot be imported is written to the report with the reasons: an _id that is
    no ObjectId or belongs to another user here, a user_id or character_id that is missing or not
    accepted, text that is not UTF-8.
  * An existing conversation stays as it is, so the command can be run again. A purged one stays
    purged.

The report (NDJSON) contains texts of users: only the owner of the file can read it.

Ctrl-C and SIGTERM end it after the current batch.
"""


@dataclass
class Totals:
    """The number of documents by outcome, repairs and reasons."""

    read: int = 0
    taken: int = 0
    already_there: int = 0
    not_taken: int = 0
    repaired: int = 0
    repairs: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    last_id: str | None = None

    def add(self, converted: Converted) -> None:
        self.read += 1
        self.taken += converted.document is not None
        self.already_there += converted.already_there
        self.not_taken += bool(converted.reasons)
        self.reasons.update({reason.name for reason in converted.reasons})
        if converted.document:
            self.repaired += bool(converted.repairs)
            self.repairs.update({repair.name for repair in converted.repairs})
        if isinstance(converted.id, ObjectId):
            self.last_id = str(converted.id)

    @property
    def next_step(self) -> str:
        if self.last_id is None:
            return "Run it again with the same options."
        return f"Everything up to {self.last_id} is done: go on with --after {self.last_id}."

    def as_text(self, seconds: float, *, dry_run: bool) -> str:
        lines = [
            "Nothing was written: a dry run." if dry_run else "Done.",
            f"{self.read:>10,} read in {seconds:.1f} s, {self.read / seconds:,.0f}/s",
            f"{self.taken:>10,} imported, {self.repaired:,} of them repaired",
            f"{self.already_there:>10,} already existed",
            f"{self.not_taken:>10,} rejected",
        ]
        for heading, kinds in (("Repairs:", self.repairs), ("Reasons:", self.reasons)):
            lines += [heading] if kinds else []
            lines += [f"{count:>10,} {name}" for name, count in kinds.most_common()]
        return "\n".join(lines)


class Command(Job):
    help = HELP
    example = "import_legacy --from mongodb://old-host/monolith --dry-run"
    exit_0 = "all are imported"
    exit_1 = "some were rejected, or it could not run"
    exit_4 = "interrupted, or MongoDB is unavailable; it prints the option to resume"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--from", dest="uri", required=True, help="the monolith's MongoDB")
        parser.add_argument("--database", help="the database, if the URI has none")
        parser.add_argument("--collection", default="conversations", help="(default conversations)")
        parser.add_argument("--after", type=object_id, help="resume after this _id")
        parser.add_argument(
            "--report",
            type=Path,
            default=Path("import_legacy.ndjson"),
            help="file for repairs and rejections, appended (default import_legacy.ndjson)",
        )
        super().add_arguments(parser)

    def run(self, *, report: Path, dry_run: bool, **options: Any) -> JobResult:
        totals = Totals()
        began = time.monotonic()
        try:
            with open_source(**options) as source, open_report(report) as file:
                finished = self.take_over(source, file, totals, options["after"], dry_run=dry_run)
        except (PyMongoError, ServiceError) as error:
            raise mongodb_error(error, totals.next_step, has_begun=totals.read > 0) from None
        problem: CommandError | None = None
        if not finished:
            problem = Unfinished(f"Stopped. {totals.next_step}")
        elif totals.not_taken:
            problem = CommandError(f"{totals.not_taken:,} were rejected: see {report}.")
        seconds = time.monotonic() - began
        numbers = {**vars(totals), "seconds": round(seconds, 1)}
        return numbers, totals.as_text(seconds, dry_run=dry_run), problem

    def take_over(
        self,
        source: Collection[Document],
        file: IO[bytes],
        totals: Totals,
        after: ObjectId | None,
        *,
        dry_run: bool,
    ) -> bool:
        """Return True if the last document was read."""
        total = source.count_documents({"_id": {"$gt": after}} if after else {})
        rows = chain.from_iterable(take_over(source, after=after, dry_run=dry_run))
        tracked = track(rows, total=total, what="Read", out=self.stderr)
        with stopped_by_signals() as stopping:
            for batch in batches(tracked, BATCH):
                for converted in batch:
                    totals.add(converted)
                    if converted.reasons or (converted.document and converted.repairs):
                        file.write(report_line(converted))
                if stopping:
                    return False
        return True


@contextmanager
def open_source(
    uri: str, database: str | None, collection: str, **options: Any
) -> Iterator[Collection[Document]]:
    try:
        client: MongoClient[Document] = MongoClient(uri, serverSelectionTimeoutMS=CONNECT_MS)
    except (ValueError, ConfigurationError) as error:  # an invalid URI
        raise CommandError(f"--from: {str(error).removesuffix('.')}.") from None
    with client:
        try:
            chosen = client[database] if database else client.get_default_database()
            source = chosen[collection]
        except ConfigurationError:
            raise CommandError(
                "--from names no database. Add it to the URI, as in mongodb://host/monolith, or "
                "use --database."
            ) from None
        except InvalidName as error:
            raise CommandError(f"--database or --collection: {error}.") from None
        try:
            number = source.estimated_document_count()
        except PyMongoError as error:
            reason = failures.reason(error).removesuffix(".")
            raise CommandError(
                f"The MongoDB in --from cannot be used: {reason}. Nothing was imported.",
                returncode=failures.exit_code(reason) if failures.find(error) else 1,
            ) from None
        if number == 0:
            raise CommandError(f"{source.full_name} contains no documents.")
        target = conversations()
        same_server = client.nodes & target.database.client.nodes
        if same_server and source.full_name == target.full_name:
            raise CommandError(f"{source.full_name} is the collection of this service.")
        yield source


def report_line(converted: Converted) -> bytes:
    def described(issues: list[LegacyIssue]) -> list[dict[str, Any]]:
        return [
            {"field": issue.path, "kind": issue.kind}
            | ({} if issue.was is None else {"was": issue.was})
            for issue in issues
        ]

    line = {
        "id": str(converted.id),
        "taken": not converted.reasons,
        "reasons": described(converted.reasons),
        "repairs": described(converted.repairs),
    }
    return json_util.dumps(line, json_options=json_util.RELAXED_JSON_OPTIONS).encode() + b"\n"
