import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import IO, Any

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
Take over the conversations of the monolith: flat documents with user_id, character_id, title,
is_archived, message_count, total_tokens, tags, settings, created_at and updated_at.

Nothing is lost and nothing silently altered:
  * _id is kept; user_id and character_id become text; times without a zone are UTC.
  * updated_at is also the last activity, and for archived ones the time of archiving.
  * What does not fit is repaired if it can be, counted by kind, and written to the report with
    what it was: a title is cut to 200 characters (custom.legacy_title keeps 512), numbers are
    brought within today's bounds, what is missing gets its default, and unknown fields are left
    out.
  * What cannot be taken is written to the report with the reasons: an _id that is no ObjectId or
    is another user's here, a user_id or character_id that is missing or cannot be kept as it is,
    text that is not UTF-8.
  * What is here already stays as it is, so running again is harmless. A purged one stays purged.

The report (NDJSON) holds what people wrote: only its owner may read it.

Ctrl-C and SIGTERM end it after the batch at hand.
"""


@dataclass
class Totals:
    """What became of the documents that were read."""

    read: int = 0
    taken: int = 0
    already_there: int = 0
    not_taken: int = 0
    repaired: int = 0
    repairs: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    last_id: str | None = None

    def add(self, one: Converted) -> None:
        self.read += 1
        self.taken += one.document is not None
        self.already_there += one.already_there
        self.not_taken += bool(one.reasons)
        self.reasons.update({reason.name for reason in one.reasons})
        if one.document:
            self.repaired += bool(one.repairs)
            self.repairs.update({repair.name for repair in one.repairs})
        if isinstance(one.id, ObjectId):
            self.last_id = str(one.id)


class Command(BaseCommand):
    help = HELP

    def add_arguments(self, parser: CommandParser) -> None:
        end_help(
            parser,
            {
                0: "all were taken",
                1: "some were not taken, or it could not run",
                4: "stopped before the end, or MongoDB broke down; it says where to go on",
            },
            "manage.py import_legacy --from mongodb://old-host/monolith --dry-run",
        )
        parser.add_argument("--from", dest="uri", required=True, help="the monolith's MongoDB")
        parser.add_argument("--database", help="its database, if the URI names none")
        parser.add_argument("--collection", default="conversations", help="(conversations)")
        parser.add_argument("--after", type=object_id, help="go on behind this _id")
        add_dry_run(parser)
        add_json(parser)
        parser.add_argument(
            "--report",
            type=Path,
            default=Path("import_legacy.ndjson"),
            help="file that what was repaired or not taken is added to (import_legacy.ndjson)",
        )

    def handle(self, **options: Any) -> None:
        totals = Totals()
        began = time.monotonic()
        try:
            finished = self._take_over(totals, **options)
        except (PyMongoError, ServiceError) as error:
            trouble = f"MongoDB: {_named(error)}. {_go_on(totals)}"
            if totals.read:
                raise Unfinished(trouble) from None
            unavailable = isinstance(error, DatabaseUnavailable) or failures.find(error)
            raise CommandError(trouble, returncode=NO_MONGODB if unavailable else 1) from None
        seconds = time.monotonic() - began
        self._print(totals, seconds, finished=finished, **options)
        if not finished:
            raise Unfinished(f"Stopped. {_go_on(totals)}")
        if totals.not_taken:
            raise CommandError(f"{totals.not_taken:,} were not taken: see {options['report']}.")

    def _take_over(  # noqa: PLR0913
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
        """Return whether the end was reached."""
        with ExitStack() as stack:
            source = stack.enter_context(_opened(uri, database, collection))
            file = stack.enter_context(_private(report))
            stopping = stack.enter_context(stopped_by_signals())
            remaining = {"_id": {"$gt": after}} if after else {}
            rows = track(
                chain.from_iterable(take_over(source, after=after, dry_run=dry_run)),
                total=source.count_documents(remaining),
                what="Read",
                out=self.stderr,
            )
            for batch in batches(rows, BATCH):
                for one in batch:
                    totals.add(one)
                    if one.reasons or (one.document and one.repairs):
                        file.write(_reported(one))
                if stopping:
                    return False
        return True

    def _print(self, totals: Totals, seconds: float, **options: Any) -> None:
        if options["json"]:
            result = {**vars(totals), "seconds": round(seconds, 1)}
            result |= {"dry_run": options["dry_run"], "finished": options["finished"]}
            self.stdout.write(as_json(result))
            return
        self.stdout.write("Nothing was written: a dry run." if options["dry_run"] else "Done.")
        rate = totals.read / seconds
        self.stdout.write(f"{totals.read:>10,} read in {seconds:.1f} s, {rate:,.0f}/s")
        self.stdout.write(f"{totals.taken:>10,} taken, {totals.repaired:,} of them repaired")
        self.stdout.write(f"{totals.already_there:>10,} were here already")
        self.stdout.write(f"{totals.not_taken:>10,} not taken")
        for heading, kinds in (("Repairs", totals.repairs), ("Reasons", totals.reasons)):
            if kinds:
                self.stdout.write(f"{heading}:")
            for name, count in kinds.most_common():
                self.stdout.write(f"{count:>10,} {name}")


def _named(error: PyMongoError | ServiceError) -> str:
    """Return the reason without documents and without the password of a URL."""
    if isinstance(error, PyMongoError):
        return failures.reason(error).removesuffix(".")
    return type(error).__name__


def _go_on(totals: Totals) -> str:
    if totals.last_id is None:
        return "Run it again as it was."
    return f"Everything up to {totals.last_id} is done: go on with --after {totals.last_id}."


@contextmanager
def _opened(uri: str, database: str | None, name: str) -> Iterator[Collection[Document]]:
    with _client(uri) as client:
        source = (client[database] if database else client.get_default_database())[name]
        if source.estimated_document_count() == 0:
            raise CommandError(f"{source.full_name} holds no documents.")
        target = collection.conversations()
        same_server = client.nodes & target.database.client.nodes
        if same_server and source.full_name == target.full_name:
            raise CommandError(f"{source.full_name} is where they would be taken to.")
        yield source


def _client(uri: str) -> MongoClient[Document]:
    try:
        return MongoClient(uri, serverSelectionTimeoutMS=CONNECT_MS)
    except ValueError as error:  # what PyMongo raises for some URIs
        raise CommandError(f"--from: {error}") from None


def _private(report: Path) -> IO[bytes]:
    """Open the report to add to it; nobody else may read it."""
    try:
        report.touch(mode=0o600)
        return report.open("ab")
    except OSError as error:
        raise CommandError(f"--report: {error}") from None


def _reported(one: Converted) -> bytes:
    def described(findings: list[LegacyIssue]) -> list[dict[str, Any]]:
        return [
            {"field": f.path, "kind": f.kind} | ({} if f.was is None else {"was": f.was})
            for f in findings
        ]

    line = {
        "id": str(one.id),
        "taken": not one.reasons,
        "reasons": described(one.reasons),
        "repairs": described(one.repairs),
    }
    return json_util.dumps(line, json_options=json_util.RELAXED_JSON_OPTIONS).encode() + b"\n"
