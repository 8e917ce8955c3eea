import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from bson import ObjectId, json_util
from django.core.management.base import BaseCommand, CommandError, CommandParser
from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.errors import PyMongoError

from conversation_service.commands import (
    NO_MONGODB,
    Unfinished,
    add_dry_run,
    add_json,
    as_json,
    end_help,
    object_id,
)
from conversation_service.errors import DatabaseUnavailable, ServiceError
from conversation_service.http.ndjson import batches
from conversation_service.mongodb import failures
from conversation_service.mongodb.connection import Document
from conversation_service.progress import stopped_by_signals, track
from conversations import collection
from conversations.jobs.legacy import Converted, LegacyIssue
from conversations.jobs.legacy_import import BATCH, take_over

CONNECT_MS = 10_000

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


class Command(BaseCommand):
    help = HELP

    def add_arguments(self, parser: CommandParser) -> None:
        end_help(
            parser,
            {
                0: "all are imported",
                1: "some were rejected, or it could not run",
                4: "interrupted, or MongoDB is unavailable; it prints the option to resume",
            },
            "manage.py import_legacy --from mongodb://old-host/monolith --dry-run",
        )
        parser.add_argument("--from", dest="uri", required=True, help="the monolith's MongoDB")
        parser.add_argument("--database", help="the database, if the URI has none")
        parser.add_argument("--collection", default="conversations", help="(default conversations)")
        parser.add_argument("--after", type=object_id, help="resume after this _id")
        add_dry_run(parser)
        add_json(parser)
        parser.add_argument(
            "--report",
            type=Path,
            default=Path("import_legacy.ndjson"),
            help="file for repairs and rejections, appended (default import_legacy.ndjson)",
        )

    def handle(self, **options: Any) -> None:
        totals = Totals()
        began = time.monotonic()
        try:
            finished = self.take_over(totals, **options)
        except (PyMongoError, ServiceError) as error:
            # The reason contains neither documents nor the password in a URL.
            is_mongodb = isinstance(error, PyMongoError)
            reason = (
                failures.reason(error).removesuffix(".") if is_mongodb else type(error).__name__
            )
            text = f"MongoDB: {reason}. {totals.next_step}"
            if totals.read:
                raise Unfinished(text) from None
            unavailable = isinstance(error, DatabaseUnavailable) or failures.find(error)
            raise CommandError(text, returncode=NO_MONGODB if unavailable else 1) from None
        seconds = time.monotonic() - began
        if options["json"]:
            result = {**vars(totals), "seconds": round(seconds, 1)}
            result |= {"dry_run": options["dry_run"], "finished": finished}
            self.stdout.write(as_json(result))
        else:
            self.print_totals(totals, seconds, dry_run=options["dry_run"])
        if not finished:
            raise Unfinished(f"Stopped. {totals.next_step}")
        if totals.not_taken:
            raise CommandError(f"{totals.not_taken:,} were rejected: see {options['report']}.")

    def take_over(  # noqa: PLR0913
        self,
        totals: Totals,
        *,
        uri: str,
        database: str | None,
        collection: str,
        after: ObjectId | None,
        dry_run: bool,
        report: Path,
        **options: Any,
    ) -> bool:
        """Return True if the last document was read."""
        with ExitStack() as stack:
            source = stack.enter_context(open_source(uri, database, collection))
            try:
                report.touch(mode=0o600)
                file = stack.enter_context(report.open("ab"))
            except OSError as error:
                raise CommandError(f"--report: {error}") from None
            stopping = stack.enter_context(stopped_by_signals())
            remaining = {"_id": {"$gt": after}} if after else {}
            rows = track(
                chain.from_iterable(take_over(source, after=after, dry_run=dry_run)),
                total=source.count_documents(remaining),
                what="Read",
                out=self.stderr,
            )
            for batch in batches(rows, BATCH):
                for converted in batch:
                    totals.add(converted)
                    if converted.reasons or (converted.document and converted.repairs):
                        file.write(report_line(converted))
                if stopping:
                    return False
        return True

    def print_totals(self, totals: Totals, seconds: float, *, dry_run: bool) -> None:
        self.stdout.write("Nothing was written: a dry run." if dry_run else "Done.")
        rate = totals.read / seconds
        self.stdout.write(f"{totals.read:>10,} read in {seconds:.1f} s, {rate:,.0f}/s")
        self.stdout.write(f"{totals.taken:>10,} imported, {totals.repaired:,} of them repaired")
        self.stdout.write(f"{totals.already_there:>10,} already existed")
        self.stdout.write(f"{totals.not_taken:>10,} rejected")
        for heading, kinds in (("Repairs", totals.repairs), ("Reasons", totals.reasons)):
            if kinds:
                self.stdout.write(f"{heading}:")
            for name, count in kinds.most_common():
                self.stdout.write(f"{count:>10,} {name}")


@contextmanager
def open_source(uri: str, database: str | None, name: str) -> Iterator[Collection[Document]]:
    try:
        client: MongoClient[Document] = MongoClient(uri, serverSelectionTimeoutMS=CONNECT_MS)
    except ValueError as error:  # PyMongo raises this for some invalid URIs
        raise CommandError(f"--from: {error}") from None
    with client:
        source = (client[database] if database else client.get_default_database())[name]
        if source.estimated_document_count() == 0:
            raise CommandError(f"{source.full_name} contains no documents.")
        target = collection.conversations()
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
