# ruff: noqa: N999, PLC0415
"""gunicorn's configuration: `gunicorn -c config/gunicorn.conf.py config.wsgi`."""

import fcntl
import gc
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from config.env import DEPLOYED, RELEASE, env, with_port
from config.logs import LOGGING
from conversation_service.server.worker import Logger, PatientWorker

SHARED_MEMORY = "/dev/shm"  # noqa: S108
METRICS_PREFIX = "metrics-conversation-service-"


def usable_tmp_dir(folder: str) -> str | None:
    """Return the folder for the workers' heartbeats and metrics; None is the system's folder.

    If /dev/shm, the default, is missing, the system's folder replaces it. The start fails if
    another folder cannot be used.
    """
    if not folder:
        return None
    if Path(folder).is_dir() and os.access(folder, os.W_OK | os.X_OK):
        return folder
    if folder == SHARED_MEMORY:
        return None
    sys.exit(f"WORKER_TMP_DIR is {folder}, which is not a folder that can be written to.")


bind = with_port(env("HOST"))
workers = env("WEB_CONCURRENCY")
worker_class = PatientWorker
worker_connections = 1_000  # per worker, idle ones included
backlog = 2_048
# In staging and production, the start fails without gunicorn_h1c, the fast parser.
http_parser = "fast" if env("ENVIRONMENT") in DEPLOYED else "auto"

sendfile = False  # os.sendfile has no time limit for a slow reader

# Long enough for the longest filter and for a token in a header.
limit_request_line = 8_190  # bytes, gunicorn's maximum
limit_request_fields = 64
limit_request_field_size = 8_190  # bytes

# gunicorn uses no header from a client, so the sender does not matter.
forwarded_allow_ips = "*"
secure_scheme_headers: dict[str, str] = {}
forwarder_headers = ""

# Seconds. `timeout` restarts a worker that hangs. A slow request has other limits:
# conversation_service/server/connection.py for the client, MONGODB_TIMEOUT_MS for MongoDB.
timeout = int(env("REQUEST_TIMEOUT"))
graceful_timeout = 25  # DRAIN_S included. Kubernetes sends SIGTERM after 10 s, kills after 50 s
keepalive = 75  # longer than the proxy's: the service never closes a connection with a new request

# Everything else may be read-only.
worker_tmp_dir = usable_tmp_dir(env("WORKER_TMP_DIR"))
control_socket_disable = True

reload = env("RELOAD")
reload_engine = "poll"  # inotify would block the worker's loop

logconfig_dict = LOGGING
logger_class = Logger

WARM_UP_S = 2.0


def on_starting(arbiter: Any) -> None:
    """Prepare the descriptor limit and the metrics folder, which workers inherit.

    The folder is empty, so counters begin at 0 with each master. prometheus_client reads the
    folder's name from the environment when a worker imports prometheus_client.
    """
    require_valid_configuration()
    raise_descriptor_limit()
    if env("WORKER_TMP_DIR") and not worker_tmp_dir:
        arbiter.log.warning(
            "WORKER_TMP_DIR: %s cannot be written to, using %s",
            SHARED_MEMORY,
            tempfile.gettempdir(),
        )
    arbiter.metrics_folder = ""
    if named := env("PROMETHEUS_MULTIPROC_DIR"):
        empty_metrics_folder(Path(named))
        return
    parent = Path(worker_tmp_dir or tempfile.gettempdir())
    remove_abandoned_metrics(parent)
    arbiter.metrics_folder, arbiter.metrics_lock = make_metrics_folder(parent)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(arbiter.metrics_folder)


def require_valid_configuration() -> None:
    """Stop the start before a socket is open if a variable is wrong, and list all faults.

    The check imports the database drivers, so it runs in a child process.
    """
    check = subprocess.run(
        [sys.executable, "-m", "config.validation"],
        env=os.environ | {"PYTHONSAFEPATH": ""},
        check=False,
    )
    if check.returncode:
        sys.exit(check.returncode)


def raise_descriptor_limit() -> None:
    """Raise the soft limit for open files to the hard limit; 1,024, the usual limit, is too low."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:  # which some systems do not accept for the soft limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def empty_metrics_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob("*.db"):  # the folder may have other files too
            left.unlink()
    except OSError as error:
        sys.exit(f"PROMETHEUS_MULTIPROC_DIR is {folder}, which cannot be used: {error.strerror}.")


def make_metrics_folder(parent: Path) -> tuple[Path, int]:
    """Create a folder that is locked while this master lives. Return it and the descriptor.

    The folder is renamed after it is locked, so that no other master removes it as abandoned.
    """
    unlocked = Path(tempfile.mkdtemp(prefix=f".{METRICS_PREFIX}", dir=parent))
    descriptor = os.open(unlocked, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return unlocked.rename(unlocked.with_name(unlocked.name[1:])), descriptor


def remove_abandoned_metrics(parent: Path) -> None:
    """Remove folders that killed masters left behind."""
    for folder in parent.glob(f"{METRICS_PREFIX}*"):
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:  # owned by another user, or removed meanwhile
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:  # its master is alive
            pass
        finally:
            os.close(descriptor)


def post_fork(arbiter: Any, worker: Any) -> None:
    """Close the worker's copy of the lock, so that the lock ends with the master."""
    if arbiter.metrics_folder:
        os.close(arbiter.metrics_lock)


def on_exit(arbiter: Any) -> None:
    if arbiter.metrics_folder:
        shutil.rmtree(arbiter.metrics_folder, ignore_errors=True)


def child_exit(arbiter: Any, worker: Any) -> None:
    """Remove a dead worker's gauges. Its counters stay, as sums must not decrease."""
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def post_worker_init(worker: Any) -> None:
    """Do the work that the first request would wait for. A missing MongoDB stops no worker."""
    # Imported here: the master has not patched its sockets.
    import pymongo
    from django.conf import settings
    from django.db import connections
    from pymongo import ReadPreference
    from pymongo.errors import PyMongoError

    from conversation_service.http.gunicorn_errors import error_response
    from conversation_service.mongodb.connection import database
    from conversation_service.mongodb.failures import reason
    from conversation_service.mongodb.reachability import require_reply
    from conversation_service.observability.metrics import BUILD_INFO
    from conversations.admin import login

    worker.error_response = error_response
    import_module(settings.ROOT_URLCONF)
    try:
        login.render_once()
    except ValueError as error:
        worker.log.error("The login page of the console cannot be rendered: %s", error)
    BUILD_INFO.labels(RELEASE, env("REVISION")).set(1)
    try:
        with pymongo.timeout(WARM_UP_S):
            default = connections["default"]
            client = default.get_new_connection(default.get_connection_params())
            require_reply(client, within_s=WARM_UP_S, member=ReadPreference.PRIMARY)
            database()  # checks MongoDB's version
    except PyMongoError as error:
        worker.log.error("MongoDB cannot be used yet: %s", reason(error))
    freeze_objects()


def freeze_objects() -> None:
    """Exclude the present objects from the garbage collector, and run it less often.

    Otherwise it would search Django's half a million objects every few requests: a quarter of the
    CPU time, with pauses of 50 ms. Garbage from requests is still found.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
