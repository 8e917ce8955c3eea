"""The service with two workers, as `make faults` attacks it."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from pymongo import MongoClient

from conversation_service.development.mongod import mongod
from tests.config.test_gunicorn import Server, serving
from tests.replica_set import create_collections

DATABASE = "faults"
# A request waits for MongoDB up to MONGODB_TIMEOUT_MS, 5 s. The rest is for the machine that runs
# MongoDB, the service and all clients on two cores.
BUDGET_S = 5.0 + 1.5


def service(log: Path, mongodb_url: str, **variables: str) -> AbstractContextManager[Server]:
    defaults: dict[str, Any] = {
        "DJANGO_SETTINGS_MODULE": "config.settings.development",
        "ENVIRONMENT": "development",
        "WEB_CONCURRENCY": "2",
        "MONGODB_URL": mongodb_url,
        "MONGODB_DATABASE": DATABASE,
        "CHARACTER_CHECK": "off",
        "RATE_LIMIT_ENABLED": "false",
        "CHANGES_HEARTBEAT_S": "1",
        "CLIENT_HEAD_TIMEOUT_S": "10",
        "CLIENT_BODY_TIMEOUT_S": "10",
    }
    return serving(log, "config.wsgi:application", **defaults | variables)


@contextmanager
def one_mongodb(folder: Path) -> Iterator[str]:
    """Run a MongoDB with the service's collections, and yield its URL."""
    with mongod(folder / "mongodb") as url, MongoClient[Any](url) as client:
        create_collections(client[DATABASE])
        yield url


def workers_of(server: Server) -> list[int]:
    """Return the process ids of the workers. Linux only."""
    pid = server.process.pid
    return [*map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
