"""The conversations that the load requests, and tokens of their owners."""

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
from pymongo import MongoClient

from benchmarks.servers import ROOT, VAR, Bench

HEAVY_USER = "demo"
HEAVY = 100_000
PER_USER = 50
CALLERS = 500
PER_CALLER = 20
TOKEN_LIFE_S = 24 * 3600


@dataclass(frozen=True)
class Size:
    """So many conversations: 100,000 of them (half of few) are one user's, the others have some 50
    each.
    """

    conversations: int

    @property
    def heavy(self) -> int:
        return min(HEAVY, self.conversations // 2)

    @property
    def users(self) -> int:
        return max(1, (self.conversations - self.heavy) // PER_USER)

    @property
    def database(self) -> str:
        return f"bench_{self.conversations}"


def prepare(bench: Bench, size: Size) -> dict[str, float]:
    """Fill a database unless it is there; return how many seconds each step took.

    Of what former runs added, nothing stays; what a former version left is brought up to date.
    """
    client: MongoClient[dict[str, Any]] = MongoClient(bench.mongodb)
    with client:
        database = client[size.database]
        if mark := database.benchmark.find_one():
            database.conversations.delete_many({"_id": {"$gt": mark["_id"]}})
            _run(bench, size, "migrate")
            _run(bench, size, "setup_indexes", "--drop-extra")
            return dict(mark["took"])
        client.drop_database(size.database)
        counts = [f"--conversations={size.conversations}"]
        counts += [f"--users={size.users}", f"--heavy={size.heavy}"]
        took = {
            step[0]: _run(bench, size, *step)
            for step in (["migrate"], ["setup_indexes"], ["seed_demo", *counts])
        }
        # What new ones will cost one day, over all that is there.
        database.conversations.drop_indexes()
        took["setup_indexes"] = _run(bench, size, "setup_indexes")
        # Its id parts what was seeded from what is created later.
        database.benchmark.insert_one({"took": took})
        return took


def _run(bench: Bench, size: Size, *step: str) -> float:
    began = time.monotonic()
    subprocess.run(  # noqa: S603
        [sys.executable, "manage.py", *step, "--verbosity=0"],
        cwd=ROOT,
        env=bench.environment(size.database),
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return time.monotonic() - began


def callers(bench: Bench, size: Size) -> Path:
    """Write a token and an id for some conversations of each of some light users.

    The load is spread, so that no conversation gets 50 revisions.
    """
    client: MongoClient[dict[str, Any]] = MongoClient(bench.mongodb)
    lines = []
    with client:
        conversations = client[size.database].conversations
        for number in range(min(CALLERS, size.users)):
            user = f"user-{number}"
            wanted = {"user_id": user, "status": "active"}
            found = conversations.find(wanted, ["_id"], sort=[("_id", 1)], limit=PER_CALLER)
            bearer = token(bench, user)
            lines += [f"{bearer} {row['_id']}\n" for row in found]
    path = VAR / f"tokens-{size.conversations}.txt"
    path.write_text("".join(lines))
    return path


def token(bench: Bench, user_id: str) -> str:
    now = int(time.time())
    claims = {"sub": user_id, "user_id": user_id, "token_type": "access"}
    return jwt.encode(claims | {"iat": now, "exp": now + TOKEN_LIFE_S}, bench.jwt_secret, "HS256")
