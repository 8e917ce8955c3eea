import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bson import ObjectId
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from pymongo import WriteConcern

from conversation_service import clock
from conversation_service.commands import Unfinished, add_dry_run, add_json, as_json, end_help
from conversation_service.management.commands.setup_indexes import refuse_before_migrations
from conversation_service.mongodb.connection import database
from conversation_service.progress import stopped_by_signals, track
from conversations import collection
from conversations.jobs import demo
from conversations.jobs.demo import BATCH, Demo

MOST = 10_000_000
# So many go in faster without indexes, which are then built over all of them.
MANY = 20_000
# MongoDB stores some batches while the next ones are thought up.
AT_ONCE = 3
# Nobody uses the service meanwhile, so its indexes may keep two cores of MongoDB busy.
BUILDS = 2

HELP = f"""
Fill the database with conversations to look at. --heavy of them belong to "{demo.USER}", by default
half; the others to --users in equal parts. The same numbers, the same data.

It ends with setup_indexes. If there are no conversations yet, and {MANY:,} or more are wanted,
indexes and validator are set aside first: until then the service cannot be used.

Running it again with the same numbers goes on where it was stopped; over other conversations of
"{demo.USER}" nothing is done. Ctrl-C and SIGTERM end it after the batches at hand.
"""


class Command(BaseCommand):
    help = HELP

    def add_arguments(self, parser: CommandParser) -> None:
        end_help(
            parser,
            {0: "the data is there", 1: "it could not run", 4: "stopped before that"},
            "manage.py seed_demo --conversations 1000000 --users 20000 --heavy 10000",
        )
        parser.add_argument("--conversations", type=int, default=200, help="how many (200)")
        parser.add_argument("--users", type=int, default=50, help="how many others (50)")
        parser.add_argument("--heavy", type=int, help=f'how many are of "{demo.USER}" (half)')
        add_dry_run(parser)
        add_json(parser)

    def handle(self, *, dry_run: bool, json: bool, **options: Any) -> None:
        wanted = _wanted(**options)
        numbers: dict[str, Any] = {"missing": 0, "created": 0, "seconds": 0.0}
        numbers |= {"indexes_seconds": 0.0, "dry_run": dry_run, "finished": True}
        former = _former_id()
        if former is None:
            numbers["missing"] = wanted.conversations
        elif wanted.made(former):
            wanted = wanted.at(former.generation_time)
            numbers["missing"] = 0 if _is_whole(wanted) else wanted.conversations - _count(wanted)
        if numbers["missing"] and not dry_run:
            numbers |= self._fill(wanted, anew=former is None)
        self.stdout.write(as_json(numbers) if json else _in_words(numbers))
        if not numbers["finished"]:
            raise Unfinished(
                "Stopped; run it again to go on. Until then indexes and the validator may be "
                "missing, which manage.py setup_indexes sees to."
            )

    def _fill(self, wanted: Demo, *, anew: bool) -> dict[str, Any]:
        refuse_before_migrations()
        began = time.monotonic()
        if anew and wanted.conversations >= MANY and not collection.conversations().find_one():
            self._set_aside()
        before = 0 if anew else _count(wanted)
        finished = self._insert(wanted, anew=anew)
        stored, inserted = _count(wanted), time.monotonic()
        if finished:
            call_command("setup_indexes", builds=BUILDS, verbosity=0, stderr=self.stderr)
        ended = time.monotonic()
        return {
            "missing": wanted.conversations - stored,
            "created": stored - before,
            "seconds": round(ended - began, 1),
            "indexes_seconds": round(ended - inserted, 1),
            "finished": finished,
        }

    def _set_aside(self) -> None:
        self.stderr.write("There are no indexes and no validator until all are stored.")
        collection.conversations().drop_indexes()
        database().command("collMod", "conversations", validator={})

    def _insert(self, wanted: Demo, *, anew: bool) -> bool:
        """Return whether all are stored. The last batch waits for all others: it stands for all."""
        *starts, last = range(0, wanted.conversations, BATCH)

        def insert(start: int) -> None:
            _insert_batch(wanted, start, anew=anew)

        with ThreadPoolExecutor(AT_ONCE) as pool, stopped_by_signals() as stopping:
            stored = pool.map(insert, starts)
            for _ in track(stored, total=len(starts), what="Thousands", out=self.stderr):
                if stopping:
                    pool.shutdown(cancel_futures=True)
                    return False
        insert(last)
        return True


def _wanted(*, conversations: int, users: int, heavy: int | None, **options: Any) -> Demo:
    if not 1 <= conversations <= MOST:
        raise CommandError(f"--conversations must be at least 1 and at most {MOST:,}.")
    if users < 1:
        raise CommandError("--users must be at least 1.")
    heavy = (conversations + 1) // 2 if heavy is None else heavy
    if not 0 <= heavy <= conversations:
        raise CommandError("--heavy must be from 0 to --conversations.")
    # Whole seconds, as an id can say.
    return Demo(conversations, users, heavy, clock.now().replace(microsecond=0))


def _former_id() -> ObjectId | None:
    """Return the id of a conversation of those who own demo data, if there is one."""
    # The first one is of one of the two.
    owners = {"user_id": {"$in": [demo.USER, "user-0"]}}
    found = collection.conversations().find_one(owners, ["_id"])
    return found["_id"] if found else None


def _is_whole(made: Demo) -> bool:
    return (
        collection.conversations().find_one({"_id": made.id_of(made.conversations - 1)}) is not None
    )


def _count(made: Demo) -> int:
    return collection.conversations().count_documents(made.ids)


def _insert_batch(wanted: Demo, start: int, *, anew: bool) -> None:
    # What is lost with its server can be made again.
    target = collection.conversations().with_options(write_concern=WriteConcern(w=1))
    missing = wanted.batch(start)
    if not anew:
        ids = wanted.ids_from(start, wanted.end_of(start))
        there = {row["_id"] for row in target.find(ids, ["_id"])}
        missing = [row for row in missing if row["_id"] not in there]
    if missing:
        target.insert_many(missing, ordered=False)


def _in_words(numbers: dict[str, Any]) -> str:
    if not numbers["created"]:
        return (
            f"{numbers['missing']:,} conversations to create."
            if numbers["missing"]
            else "There is demo data already; nothing changed."
        )
    rate = numbers["created"] / max(numbers["seconds"], 0.1)
    return (
        f"Created {numbers['created']:,} conversations in {numbers['seconds']} s, {rate:,.0f}/s;"
        f" {numbers['indexes_seconds']} s of that for the indexes."
    )
