"""A MongoDB server as a replica set with one member, which retryable writes require."""

import re
import subprocess
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
    server = process.start(command, name="MongoDB", output=log)
    try:
        wait_for_primary(server, port, log)
        yield f"mongodb://127.0.0.1:{port}/?replicaSet={REPLICA_SET}"
    finally:
        process.stop(server, timeout_s=STOP_S)


def find() -> str:
    """Return the path of mongod. Raises CannotStart."""
    remedy = f"MONGOD_BIN can name a mongod elsewhere. {WAYS_OUT}"
    return process.find("mongod", "fiftyone", "db/bin/mongod", otherwise=remedy)


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
    client: MongoClient[dict[str, Any]] = MongoClient(
        "127.0.0.1",
        port,
        directConnection=True,
        serverSelectionTimeoutMS=250,
        connectTimeoutMS=1_000,
    )

    def is_primary() -> bool:
        with suppress(PyMongoError):  # it starts, or elects a primary
            state = client.admin.command("hello")
            if "setName" not in state:
                make_only_member(client, f"127.0.0.1:{port}")
            return bool(state.get("isWritablePrimary"))
        return False

    with client:
        try:
            process.wait_until(
                is_primary,
                server,
                name="MongoDB",
                timeout_s=START_S,
                otherwise=f"See {log}. {WAYS_OUT}",
            )
        except CannotStart:
            if missing := MISSING_LIBRARY.search(log.read_text(errors="replace")):
                raise CannotStart(
                    f"MongoDB cannot run on this system: {missing['name']} is not installed. "
                    "MongoDB's wheel needs OpenSSL 3 and libcurl: `apt-get install libssl3 "
                    f"libcurl4` on Debian. {WAYS_OUT}"
                ) from None
            raise


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
