from collections import Counter
from dataclasses import asdict
from functools import partial
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from pymongo.errors import DuplicateKeyError

from conversation_service import commands
from conversation_service.commands import Unfinished, add_dry_run, add_json, end_help
from conversation_service.mongodb.collections import CollectionSchema, declared
from conversation_service.mongodb.drift import (
    VALIDATOR,
    Finding,
    State,
    building,
    compare,
    mend,
    refused,
)
from conversation_service.progress import interrupted_by_signals, watched

DONE = {
    State.MISSING: "created",
    State.CHANGED: "changed",
    State.CONFLICT: "replaced",
    State.EXTRA: "dropped",
}


HELP = """
Give every declared collection its indexes and its validator. Run it after migrate, at each
deployment: what is in place stays untouched, and two runs at once do no harm.

All indexes that a collection lacks are built in one reading of it, while the service goes on.
Ctrl-C and SIGTERM end the waiting; MongoDB goes on building.
"""


class Command(BaseCommand):
    help = HELP

    def add_arguments(self, parser: CommandParser) -> None:
        end_help(
            parser,
            {
                0: "all is in place, or it was a --dry-run",
                1: "something differs, or it could not run",
                4: "stopped before that",
            },
            "manage.py setup_indexes --dry-run",
        )
        mode = parser.add_mutually_exclusive_group()
        mode.add_argument("--check", action="store_true", help="change nothing; exit 1 on drift")
        add_dry_run(mode)
        parser.add_argument(
            "--replace-conflicting",
            action="store_true",
            help="drop an index that differs from its declaration, and build it anew",
        )
        parser.add_argument(
            "--drop-extra", action="store_true", help="drop the indexes that nobody declares"
        )
        parser.add_argument(
            "--builds",
            type=int,
            default=1,
            help="share the missing indexes of a collection out to so many builds, each of which "
            "reads it and keeps a core of MongoDB busy (1)",
        )
        add_json(parser)

    def handle(
        self,
        *,
        check: bool,
        dry_run: bool,
        replace_conflicting: bool,
        drop_extra: bool,
        builds: int,
        **options: Any,
    ) -> None:
        if builds < 1:
            raise CommandError("--builds must be at least 1.")
        changes = set()
        if not check and not dry_run:
            refuse_before_migrations()
            changes = {State.MISSING, State.CHANGED}
            changes |= {State.CONFLICT} if replace_conflicting else set()
            changes |= {State.EXTRA} if drop_extra else set()

        report, unresolved = [], []
        for schema in declared():
            findings = compare(schema)
            wrong = [finding for finding in findings if finding.state in changes]
            self.attempt(schema, wrong, builds=builds)
            unresolved += [
                finding
                for finding in findings
                if finding.state not in changes and finding.state is not State.KEPT
            ]
            report += [asdict(found) | {"result": result(found, changes)} for found in findings]
        if options["verbosity"]:
            self.show(report, as_json=options["json"], dry_run=dry_run or check)
        if check and unresolved:
            raise CommandError(f"{len(unresolved)} differ from their declaration.")
        if changes:
            refuse_conflicts(unresolved)

    def attempt(self, schema: CollectionSchema, findings: list[Finding], *, builds: int) -> None:
        try:
            with (
                interrupted_by_signals(),
                watched(
                    partial(building, schema.name),
                    what=f"Indexes of {schema.name}",
                    out=self.stderr,
                ),
            ):
                mend(schema, findings, builds=builds)
        except DuplicateKeyError as error:
            raise CommandError(
                f"{schema.name}: {refused(error)} cannot be built, as documents already share a "
                "key. Nor were the others that were to be built with it."
            ) from None
        except KeyboardInterrupt:
            raise Unfinished(
                "Stopped; what MongoDB has begun to build, it builds. Run it again to see to the "
                "rest."
            ) from None

    def show(self, report: list[dict[str, Any]], *, as_json: bool, dry_run: bool) -> None:
        for line in report:
            text = "{result:<8}  {collection}  {name}".format(**line)
            self.stdout.write(commands.as_json(line) if as_json else text)
        if as_json:
            total = Counter(str(line["result"]) for line in report)
            self.stdout.write(commands.as_json({**total, "dry_run": dry_run}))


def refuse_before_migrations() -> None:
    """Migrations create collections, and fail on one that is already there."""
    executor = MigrationExecutor(connection)
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        raise CommandError("There are unapplied migrations: run manage.py migrate first.")


def result(finding: Finding, changes: set[State]) -> str:
    if finding.state not in changes:
        return finding.state
    if finding.name == VALIDATOR and finding.state is State.MISSING:
        return "set"
    return DONE[finding.state]


def refuse_conflicts(unresolved: list[Finding]) -> None:
    conflicts = [finding for finding in unresolved if finding.state is State.CONFLICT]
    if conflicts:
        listed = "\n".join(
            f"- {found.collection}: {found.name} is declared otherwise than {found.stored_as}, "
            "which is stored"
            for found in conflicts
        )
        raise CommandError(
            f"These indexes are in the way of declared ones:\n{listed}\n"
            "Correct the declaration, or rebuild them with --replace-conflicting; until that is "
            "done, queries go without them."
        )
