"""The servers that a running `make run` has started, for commands in a second terminal.

The launcher writes SERVERS to servers.json in VAR_DIR, and holds a lock on run.lock as long as it
runs. The file stays, so that the next start uses the same ports.
"""

import fcntl
import json
from pathlib import Path
from typing import Any

from config.env import env

# Development uses this address if MONGODB_URL is unset. Nothing listens there: a command must not
# write to any MongoDB that happens to run on this machine.
NOWHERE = "127.0.0.1:1"
SERVERS = ("MONGODB_URL", "REDIS_URL", "HOST", "PORT", "WEBHOOK_ALLOWED_HOSTS")
NOT_RUNNING = (
    "MONGODB_URL is not set, and `make run` does not run in this folder. Start `make run` in "
    "another terminal, or set MONGODB_URL"
)


def var() -> Path:
    return Path(env("VAR_DIR")).resolve()


def last_servers() -> dict[str, Any]:
    """Return SERVERS of the last `make run`, or nothing if they are unknown."""
    try:
        servers = json.loads((var() / "servers.json").read_bytes())
        return {name: servers[name] for name in SERVERS}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def is_running() -> bool:
    try:
        with (var() / "run.lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no such file
        return False
    return False


def running_servers() -> dict[str, Any]:
    """Return those of SERVERS that are not set, if `make run` runs with its own MongoDB."""
    if env("ENVIRONMENT") != "development" or env("MONGODB_URL") or not is_running():
        return {}
    servers = last_servers().items()
    return {name: value for name, value in servers if env(name) == env.scheme[name].default}
