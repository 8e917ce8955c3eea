"""The servers that are compared, each a child process on a free port of this machine."""

import os
import secrets
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from conversation_service.development import process
from conversation_service.development.mongod import mongod
from conversation_service.development.process import CannotStart
from conversation_service.development.valkey import valkey

ROOT = Path(__file__).resolve().parent.parent
VAR = ROOT / "var" / "bench"
CACHE_GB = 2.0  # of MongoDB: that of one machine for everything
START_S = 60.0
STOP_S = 30.0

# As in production, without rate limits and log lines per request.
BARE = {"RATE_LIMIT_ENABLED": "false", "ACCESS_LOG": "false"}
# As in production. The limits are counted all the same.
SHIPPED = {
    "RATE_LIMIT_ENABLED": "true",
    "ACCESS_LOG": "true",
    **{
        f"RATE_LIMIT_{policy}": "1000000" for policy in ("LIST", "CREATE", "PATCH", "DELETE", "ALL")
    },
}


@dataclass(frozen=True)
class Server:
    name: str
    url: str
    pid: int


@dataclass(frozen=True)
class Bench:
    """The databases and upstreams that all servers share, and the secret of their tokens."""

    started: ExitStack
    mongodb: str
    redis: str
    jwt_secret: str = field(default_factory=lambda: secrets.token_urlsafe(48))
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(48))
    characters_port: int = field(default_factory=process.free_port)

    @classmethod
    def start(cls, started: ExitStack, data: Path) -> "Bench":
        data.mkdir(parents=True, exist_ok=True)
        bench = cls(
            started,
            mongodb=started.enter_context(mongod(data / "mongodb", cache_gb=CACHE_GB)),
            redis=started.enter_context(valkey(data / "valkey")),
        )
        bench._start_upstreams()
        return bench

    def _start_upstreams(self) -> None:
        ports = (process.free_port(), self.characters_port, process.free_port())
        upstreams = process.start(
            [
                *(sys.executable, "manage.py", "run_neighbours"),
                f"--ports={','.join(map(str, ports))}",
            ],
            output=_log("upstreams"),
            folder=ROOT,
            environment=os.environ
            | {"ENVIRONMENT": "development", "JWT_SECRET_KEY": self.jwt_secret},
        )
        self.started.callback(process.stop, upstreams, timeout_s=STOP_S)

    def environment(self, database: str, **changes: str) -> Mapping[str, str]:
        """Return what this service is configured by, and the others find their database by."""
        return os.environ | {
            "ENVIRONMENT": "production",
            "DJANGO_SETTINGS_MODULE": "config.settings.production",
            "ALLOWED_HOSTS": "127.0.0.1",
            "SECRET_KEY": self.secret,
            "JWT_SECRET_KEY": self.jwt_secret,
            "MONGODB_URL": self.mongodb,
            "MONGODB_DATABASE": database,
            "REDIS_URL": self.redis,
            "CHARACTERS_SERVICE_URL": f"http://127.0.0.1:{self.characters_port}",
            "HOST": "127.0.0.1",
            "WEB_CONCURRENCY": "1",
            **changes,
        }

    def service(
        self,
        database: str,
        *,
        name: str = "bare",
        checkout: Path = ROOT,
        workers: int = 1,
        switches: Mapping[str, str] = BARE,
    ) -> Server:
        port = process.free_port()
        return self._serve(
            name,
            [*GUNICORN, "-c", "config/gunicorn.conf.py", "config.wsgi:application"],
            port,
            checkout,
            self.environment(database, PORT=str(port), WEB_CONCURRENCY=str(workers), **switches),
        )

    def peer(self, database: str) -> Server:
        port = process.free_port()
        uvicorn = [
            *(sys.executable, "-m", "uvicorn", "benchmarks.peer.app:app", f"--port={port}"),
            *("--loop=uvloop", "--http=httptools", "--no-access-log", "--log-level=warning"),
        ]
        return self._serve("peer", uvicorn, port, ROOT, self.environment(database))

    def floor(self, database: str) -> Server:
        port = process.free_port()
        gunicorn = [
            *(*GUNICORN, "-c", "benchmarks/floor/gunicorn.conf.py", f"--bind=127.0.0.1:{port}"),
            "benchmarks.floor.app:application",
        ]
        return self._serve("floor", gunicorn, port, ROOT, self.environment(database))

    def _serve(
        self,
        name: str,
        command: list[str],
        port: int,
        checkout: Path,
        environment: Mapping[str, str],
    ) -> Server:
        log = _log(f"{name}-{port}")
        server = process.start(command, output=log, folder=checkout, environment=environment)
        self.started.callback(process.stop, server, timeout_s=STOP_S)
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + START_S
        while not process.responds(f"{url}/health/live", timeout_s=5):
            if server.poll() is not None or time.monotonic() > deadline:
                raise CannotStart(f"{name} did not start; its last words are in {log}.")
            time.sleep(0.1)
        return Server(name, url, server.pid)


GUNICORN = (sys.executable, "-m", "gunicorn")


def _log(name: str) -> Path:
    VAR.mkdir(parents=True, exist_ok=True)
    return VAR / f"{name}.log"


@contextmanager
def bench(data: Path) -> Iterator[Bench]:
    """Start what the servers share, and stop it all at the end, last started first."""
    with ExitStack() as started:
        yield Bench.start(started, data)
