"""A pytest plugin that starts a MongoDB and a Valkey for each process that runs tests.

It is loaded with `-p` and not from conftest.py: pytest-django reads the settings, and the settings
read the environment, before any conftest. With `--numprocesses` each worker starts servers of its
own, and the process that only distributes the tests starts none. MONGODB_URL and REDIS_URL choose
other servers. `python -m tests.servers COMMAND` runs any other command with the two.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from config.env import env
from conversation_service.development.mongod import mongod
from conversation_service.development.process import CannotStart
from conversation_service.development.valkey import valkey

MEMORY = Path("/dev/shm")  # noqa: S108
ROOM = 4 * 1024**3  # bytes; the servers of a process take 0.3 GB


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config):
    options = early_config.known_args_namespace
    distributes = options.numprocesses and "PYTEST_XDIST_WORKER" not in os.environ  # noqa: TID251
    if not distributes:
        servers = ExitStack()
        early_config.add_cleanup(servers.close)
        start(servers)
    return (yield)


def start(servers: ExitStack) -> None:
    folder = servers.enter_context(own_folder())
    try:
        if not env("MONGODB_URL"):
            # For the fail points of tests/failpoints.py.
            parameters = ["enableTestCommands=1"]
            server = mongod(folder / "mongodb", binary=env("MONGOD_BIN"), parameters=parameters)
            os.environ["MONGODB_URL"] = servers.enter_context(server)  # noqa: TID251
        if not env("REDIS_URL"):
            os.environ["REDIS_URL"] = servers.enter_context(valkey(folder / "valkey"))  # noqa: TID251
    except CannotStart as error:
        raise pytest.UsageError(str(error)) from None


def root() -> Path:
    """Return the folder of all servers: in memory if there is room.

    On a disk, half of the time of a confirmed write is a wait for the disk.
    """
    if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM:
        return MEMORY / f"conversation-service-test-{os.getuid()}"
    return Path(__file__).resolve().parent.parent / "var" / "test"


@contextmanager
def own_folder() -> Iterator[Path]:
    """Give this run a folder of its own, and remove those of runs that were killed."""
    folders = root()
    folders.mkdir(parents=True, exist_ok=True)
    for folder in folders.iterdir():
        remove_if_dead(folder)
    folder = folders / str(os.getpid())
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield folder
        shutil.rmtree(folder)


def remove_if_dead(folder: Path) -> None:
    try:
        with (folder / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
    except OSError:  # in use, or being made or removed by another run
        return


if __name__ == "__main__":
    with ExitStack() as servers:
        start(servers)
        sys.exit(subprocess.call(sys.argv[1:]))
