import json
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from pymongo.errors import DuplicateKeyError

from conversation_service.commands import end_help
from conversation_service.mongodb.collections import CollectionSchema, declared
from conversation_service.mongodb.drift import VALIDATOR, Finding, State, compare, mend

DONE = {
    State.MISSING: "created",
    State.CHANGED: "changed",
    State.CONFLICT: "replaced",
    State.EXTRA: "dropped",
}


class Command(BaseCommand):
    help = (
        "Give every declared collection its indexes and its validator. Run it after migrate, at "
        "each deployment: what is in place stays untouched, and two runs at once do no harm."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        end_help(
            parser,
            {
                0: "all is in place, or it was a --dry-run",
                1: "something differs, or it could not run",
                2: "a wrong option",
            },
            "manage.py setup_indexes --dry-run",
        )
        mode = parser.add_mutually_exclusive_group()
        mode.add_argument("--check", action="store_true", help="change nothing; exit 1 on drift")
        mode.add_argument("--dry-run", action="store_true", help="change nothing; exit 0")
        parser.add_argument(
            "--replace-conflicting",
            action="store_true",
            help="drop an index that differs from its declaration, and build it anew",
        )
        parser.add_argument(
            "--drop-extra", action="store_true", help="drop the indexes that nobody declares"
        )
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(
        self,
        *,
        check: bool,
        dry_run: bool,
        replace_conflicting: bool,
        drop_extra: bool,
        **options: Any,
    ) -> None:
        changes = set()
        if not check and not dry_run:
            refuse_before_migrations()
            changes = {State.MISSING, State.CHANGED}
            changes |= {State.CONFLICT} if replace_conflicting else set()
            changes |= {State.EXTRA} if drop_extra else set()

        report, unresolved = [], []
        for schema in declared():
            for finding in compare(schema):
                if finding.state in changes:
                    attempt(schema, finding)
                elif finding.state is not State.KEPT:
                    unresolved.append(finding)
                report.append(asdict(finding) | {"result": result(finding, changes)})
        if options["verbosity"]:
            self.show(report, as_json=options["json"])
        if check and unresolved:
            raise CommandError(f"{len(unresolved)} differ from their declaration.")
        if changes:
            refuse_conflicts(unresolved)

    def show(self, report: list[dict[str, Any]], *, as_json: bool) -> None:
        if as_json:
            self.stdout.write(json.dumps(report, indent=2))
            return
        for line in report:
            self.stdout.write("{result:<8}  {collection}  {name}".format(**line))


def refuse_before_migrations() -> None:
    """Migrations create collections, and fail on one that is already there."""
    executor = MigrationExecutor(connection)
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        raise CommandError("There are unapplied migrations: run manage.py migrate first.")


def attempt(schema: CollectionSchema, finding: Finding) -> None:
    try:
        mend(schema, finding)
    except DuplicateKeyError as error:
        raise CommandError(
            f"{schema.name}: {finding.name} cannot be built, as documents already share a key."
        ) from error


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
