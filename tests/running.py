"""Commands in their own processes, which can be interrupted."""

import os
import subprocess
import sys
from pathlib import Path

from pymongo.database import Database

ROOT = Path(__file__).resolve().parents[1]


def started(mongo: Database, command: str, *options: str, **variables: str) -> subprocess.Popen:
    """Start a command on the database of the tests."""
    environment = os.environ | {  # noqa: TID251
        "RETENTION_ARCHIVE_IDLE_DAYS": "30",
        "ENVIRONMENT": "test",
        "MONGODB_DATABASE": mongo.name.removeprefix("test_"),
        **variables,
    }
    return subprocess.Popen(
        [sys.executable, "manage.py", command, *options],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
