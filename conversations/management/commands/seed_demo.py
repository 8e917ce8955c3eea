import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django.core.management import call_command
from django.core.management.base import CommandError, CommandParser
from pymongo import WriteConcern

from conversation_service import clock
from conversation_service.commands import Job, JobResult, Unfinished
from conversation_service.management.commands.setup_indexes import refuse_before_migrations
from conversation_service.mongodb.connection import database
from conversation_service.progress import stopped_by_signals, track
from conversations.collection import conversations
from conversations.jobs import demo
from conversations.jobs.demo import BATCH, Demo

MAX_CONVERSATIONS = 10_000_000
# From this number on, it is faster to insert without indexes and to build them afterwards.
WITHOUT_INDEXES_FROM = 20_000
THREADS = 3  # MongoDB stores batches while Python makes the next ones
BUILDS = 2  # index builds at once: the service is not in use meanwhile

HELP = f"""
Create demo conversations. The user "{demo.USER}" owns --heavy of them, by default half; --users
others own the rest in equal parts. Equal options give equal data.

It ends with setup_indexes. For {WITHOUT_INDEXES_FROM:,} conversations or more, if there are none
yet, it drops the indexes and the validator first: the service cannot be used until it has finished.

Their times are in the last {demo.DAYS} days. Some are renamed, pinned, archived or in the trash,
with their history; some have an unverified character; one has a legal hold.

With equal options it can be run again after an interruption. If the user "{demo.USER}" has other
conversations, it does nothing; --add adds conversations to existing ones. Ctrl-C and SIGTERM end it
after the current batches.
"""
STOPPED = (
    "Stopped; run it again to go on. Until then indexes and the validator can be missing; "
    "manage.py setup_indexes creates them."
)


class Command(Job):
    help = HELP
    example = "seed_demo --conversations 1000000 --users 20000 --heavy 10000"
    exit_0 = "all are stored"

    def add_arguments(self, parser: CommandParser) -> None:
        add = parser.add_argument
        number = parser.add_mutually_exclusive_group()
        number.add_argument(
            "--conversations", type=int, default=200, help="number of conversations (default 200)"
        )
        number.add_argument(
            "--add", type=int, metavar="N", help="add N conversations to the existing ones"
        )
        add("--users", type=int, default=50, help="number of other users (default 50)")
        add(
            "--webhook",
            nargs=2,
            metavar=("URL", "SECRET"),
            help="send events to this URL, which is not checked",
        )
        add("--heavy", type=int, help=f'conversations of the user "{demo.USER}" (default half)')
        super().add_arguments(parser)

    def run(self, *, dry_run: bool, webhook: list[str] | None, **options: Any) -> JobResult:
        wanted = parse(**options)
        numbers: dict[str, Any] = {"missing": 0, "created": 0}
        numbers |= {"seconds": 0.0, "indexes_seconds": 0.0}
        # In every data set, the first conversation belongs to one of these two users.
        owners = {"user_id": {"$in": [demo.USER, "user-0"]}}
        former = None if wanted.series else conversations().find_one(owners, ["_id"])
        if former is None:
            numbers["missing"] = wanted.conversations
        elif wanted.made(former["_id"]):
            wanted = wanted.at_time_of(former["_id"])
            last = {"_id": wanted.id_of(wanted.conversations - 1)}
            if conversations().find_one(last, ["_id"]) is None:
                numbers["missing"] = wanted.conversations - _count(wanted)
        error = None
        if numbers["missing"] and not dry_run:
            numbers |= self.fill(wanted, anew=former is None)
            error = Unfinished(STOPPED) if numbers["missing"] else None
        if webhook and not dry_run:
            demo.send_events_to(*webhook)
        text = "There is demo data already; nothing changed. To get more: seed_demo --add 100"
        if numbers["created"]:
            rate = numbers["created"] / max(numbers["seconds"], 0.1)
            text = (
                f"Created {numbers['created']:,} conversations in {numbers['seconds']} s,"
                f" {rate:,.0f}/s; {numbers['indexes_seconds']} s of that for the indexes."
            )
        elif numbers["missing"]:
            text = f"{numbers['missing']:,} conversations to create."
        return numbers, text, error

    def fill(self, wanted: Demo, *, anew: bool) -> dict[str, Any]:
        refuse_before_migrations()
        began = time.monotonic()
        is_large = wanted.conversations >= WITHOUT_INDEXES_FROM
        if anew and is_large and not conversations().find_one():
            self.stderr.write("There are no indexes and no validator until all are stored.")
            conversations().drop_indexes()
            database().command("collMod", "conversations", validator={})
        before = 0 if anew else _count(wanted)
        finished = self.insert(wanted, anew=anew)
        stored, inserted = _count(wanted), time.monotonic()
        if finished:
            call_command("setup_indexes", builds=BUILDS, verbosity=0, stderr=self.stderr)
        ended = time.monotonic()
        return {
            "missing": wanted.conversations - stored,
            "created": stored - before,
            "seconds": round(ended - began, 1),
            "indexes_seconds": round(ended - inserted, 1),
        }

    def insert(self, wanted: Demo, *, anew: bool) -> bool:
        """Return True if all are stored. The last batch is stored last: it shows completion."""
        *starts, last = range(0, wanted.conversations, BATCH)
        # A server can lose these writes: another run inserts them again.
        target = conversations().with_options(write_concern=WriteConcern(w=1))

        def insert_batch(start: int) -> None:
            missing = wanted.batch(start)
            if not anew:
                ids = wanted.ids_from(start, wanted.end_of(start))
                stored = {row["_id"] for row in target.find(ids, ["_id"])}
                missing = [row for row in missing if row["_id"] not in stored]
            if missing:
                target.insert_many(missing, ordered=False)

        with ThreadPoolExecutor(THREADS) as pool, stopped_by_signals() as stopping:
            batches = pool.map(insert_batch, starts)
            for _ in track(batches, total=len(starts), what="Thousands", out=self.stderr):
                if stopping:
                    pool.shutdown(cancel_futures=True)
                    return False
        insert_batch(last)
        return True


def parse(
    *, conversations: int, add: int | None, users: int, heavy: int | None, **options: Any
) -> Demo:
    option, conversations = ("conversations", conversations) if add is None else ("add", add)
    if not 1 <= conversations <= MAX_CONVERSATIONS:
        raise CommandError(f"--{option} must be from 1 to {MAX_CONVERSATIONS:,}.")
    if users < 1:
        raise CommandError("--users must be at least 1.")
    heavy = (conversations + 1) // 2 if heavy is None else heavy
    if not 0 <= heavy <= conversations:
        raise CommandError(f"--heavy must be from 0 to --{option}.")
    now = clock.now()
    series = "" if add is None else f" added at {now}"
    # Whole seconds, as in an id.
    return Demo(conversations, users, heavy, now.replace(microsecond=0), series)


def _count(made: Demo) -> int:
    return conversations().count_documents(made.ids)
