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
from conversation_service.mongodb.connection import database
from conversation_service.mongodb.drift import (
    VALIDATOR,
    IndexDrift,
    State,
    building,
    compare,
    failed_index,
    repair,
)
from conversation_service.progress import interrupted_by_signals, watched

DONE = {
    State.MISSING: "created",
    State.CHANGED: "changed",
    State.CONFLICT: "replaced",
    State.EXTRA: "dropped",
}


HELP = """
Create the indexes and the validator of each declared collection. Run it after migrate, at each
deployment. It does not touch existing indexes, and two concurrent runs are safe.

MongoDB builds all missing indexes of a collection in one pass, while the service works. Ctrl-C and
SIGTERM end the command; MongoDB completes the build.
"""


class Command(BaseCommand):
    help = HELP

    def add_arguments(self, parser: CommandParser) -> None:
        end_help(
            parser,
            {
                0: "every index and validator is as declared, or with --dry-run",
                1: "an index or validator differs, or the command failed",
                4: "stopped by a signal",
            },
            "manage.py setup_indexes --dry-run",
        )
        mode = parser.add_mutually_exclusive_group()
        mode.add_argument("--check", action="store_true", help="change nothing; exit 1 on drift")
        add_dry_run(mode)
        parser.add_argument(
            "--replace-conflicting",
            action="store_true",
            help="drop and rebuild each index that differs from its declaration",
        )
        parser.add_argument("--drop-extra", action="store_true", help="drop undeclared indexes")
        parser.add_argument(
            "--builds",
            type=int,
            default=1,
            help="concurrent builds for the missing indexes of a collection; each reads the whole "
            "collection and uses one core of MongoDB (default 1)",
        )
        parser.add_argument(
            "--shard",
            action="store_true",
            help="print the commands that shard the collections, for mongosh; if MONGODB_URL leads "
            "to a mongos, also execute them, after the indexes",
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
            raise CommandError(
                f"{len(unresolved)} indexes or validators differ from their declaration."
            )
        if changes:
            refuse_conflicts(unresolved)
        if options["shard"]:
            self.shard(execute=bool(changes))

    def attempt(self, schema: CollectionSchema, findings: list[IndexDrift], *, builds: int) -> None:
        try:
            with (
                interrupted_by_signals(),
                watched(
                    partial(building, schema.name),
                    what=f"Indexes of {schema.name}",
                    out=self.stderr,
                ),
            ):
                repair(schema, findings, builds=builds)
        except DuplicateKeyError as error:
            raise CommandError(
                f"{schema.name}: {failed_index(error)} cannot be built, as documents have equal "
                "keys. The other indexes of this build were not built either."
            ) from None
        except KeyboardInterrupt:
            raise Unfinished(
                "Stopped. MongoDB completes the running build. Run the command again for the rest."
            ) from None

    def shard(self, *, execute: bool) -> None:
        """Print the commands; execute them on a mongos. A repetition has no effect."""
        admin = database().client.admin
        is_mongos = admin.command("hello").get("msg") == "isdbgrid"
        for schema in declared():
            if schema.shard_key:
                command = {
                    "shardCollection": f"{database().name}.{schema.name}",
                    "key": schema.shard_key,
                }
                self.stdout.write(f"db.adminCommand({commands.as_json(command)})")
                if execute and is_mongos:
                    admin.command(command)
        if not is_mongos:
            self.stderr.write("This server is no mongos: the collections stay unsharded.")

    def show(self, report: list[dict[str, Any]], *, as_json: bool, dry_run: bool) -> None:
        for line in report:
            text = "{result:<8}  {collection}  {name}".format(**line)
            self.stdout.write(commands.as_json(line) if as_json else text)
        if as_json:
            total = Counter(str(line["result"]) for line in report)
            self.stdout.write(commands.as_json({**total, "dry_run": dry_run}))


def refuse_before_migrations() -> None:
    """Migrations create collections, and fail if a collection exists."""
    executor = MigrationExecutor(connection)
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        raise CommandError("There are unapplied migrations: run manage.py migrate first.")


def result(finding: IndexDrift, changes: set[State]) -> str:
    if finding.state not in changes:
        return finding.state
    if finding.name == VALIDATOR and finding.state is State.MISSING:
        return "set"
    return DONE[finding.state]


def refuse_conflicts(unresolved: list[IndexDrift]) -> None:
    conflicts = [finding for finding in unresolved if finding.state is State.CONFLICT]
    if conflicts:
        listed = "\n".join(
            f"- {found.collection}: the stored index {found.stored_as} differs from the "
            f"declaration of {found.name}"
            for found in conflicts
        )
        raise CommandError(
            f"These stored indexes conflict with declared indexes:\n{listed}\n"
            "Correct the declaration, or rebuild them with --replace-conflicting. Until then, "
            "queries cannot use the declared indexes."
        )
