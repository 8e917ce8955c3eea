# ruff: noqa: N999, PLC0415
"""How gunicorn serves the API: `gunicorn -c config/gunicorn.conf.py config.wsgi`."""

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
    """Return the folder of the workers' heartbeats and metrics; None means the system's own.

    /dev/shm is the default because it is fast, so the system's folder replaces it where it is
    missing. Any other folder was named on purpose: if it cannot be used, the start ends.
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
# Where people depend on it: fail without gunicorn_h1c, rather than be slow in silence.
http_parser = "fast" if env("ENVIRONMENT") in DEPLOYED else "auto"

sendfile = False  # os.sendfile has no time limit for a slow reader of a static file

# Long enough for the longest filter and for a token in a header.
limit_request_line = 8_190  # bytes, the most that gunicorn takes
limit_request_fields = 64
limit_request_field_size = 8_190  # bytes

# No header of a client means anything to gunicorn: so it need not look up who sent it.
forwarded_allow_ips = "*"
secure_scheme_headers: dict[str, str] = {}
forwarder_headers = ""

# Seconds. `timeout` guards against a worker that hangs, not against a slow request, which has
# limits of its own: conversation_service/server/connection.py towards the client,
# MONGODB_TIMEOUT_MS towards MongoDB.
timeout = int(env("REQUEST_TIMEOUT"))
graceful_timeout = 25  # Kubernetes kills after 50, 10 of which pass before we are told to stop
keepalive = 75  # longer than a proxy keeps its end, so that it is never us who hang up on a request

# Everything else may be read-only.
worker_tmp_dir = usable_tmp_dir(env("WORKER_TMP_DIR"))
control_socket_disable = True

reload = env("RELOAD")
reload_engine = "poll"  # inotify would block the loop of the worker

logconfig_dict = LOGGING
logger_class = Logger

WARM_UP_S = 2.0


def on_starting(arbiter: Any) -> None:
    """Prepare what workers inherit: room for descriptors, and the folder of their metrics.

    The folder is empty, as numbers begin at 0 with this master. prometheus_client reads its name
    from the environment, when a worker first imports it.
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
    check = subprocess.run([sys.executable, "-m", "config.validation"], check=False)
    if check.returncode:
        sys.exit(check.returncode)


def raise_descriptor_limit() -> None:
    """Raise the soft limit of open files to the hard limit; the usual 1,024 are too few."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:  # which some systems do not accept for the soft limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def empty_metrics_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob("*.db"):  # nothing else: whose folder it is, we cannot know
            left.unlink()
    except OSError as error:
        sys.exit(f"PROMETHEUS_MULTIPROC_DIR is {folder}, which cannot be used: {error.strerror}.")


def make_metrics_folder(parent: Path) -> tuple[Path, int]:
    """Make a folder that is locked while this master lives. Return it and the descriptor.

    It gets its final name after it is locked, so that no other master removes it as abandoned.
    """
    unlocked = Path(tempfile.mkdtemp(prefix=f".{METRICS_PREFIX}", dir=parent))
    descriptor = os.open(unlocked, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return unlocked.rename(unlocked.with_name(unlocked.name[1:])), descriptor


def remove_abandoned_metrics(parent: Path) -> None:
    """Remove the folders of masters that were killed before they could remove them."""
    for folder in parent.glob(f"{METRICS_PREFIX}*"):
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:  # another user's, or removed meanwhile
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:  # its master lives
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
    """Forget a dead worker's gauges; its counters stay, or sums would go down."""
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def post_worker_init(worker: Any) -> None:
    """Do what the first request would wait for. Without MongoDB the worker still starts."""
    # Not before: the master has not patched its sockets.
    import pymongo
    from django.conf import settings
    from pymongo.errors import PyMongoError

    from conversation_service.http.gunicorn_errors import error_response
    from conversation_service.mongodb.connection import database
    from conversation_service.mongodb.failures import reason
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
            database().command("ping")
    except PyMongoError as error:
        worker.log.error("MongoDB does not answer yet: %s", reason(error))
    spare_the_collector()


def spare_the_collector() -> None:
    """Let the garbage collector leave alone what stays, and look less often at what does not.

    It looked at half a million objects of Django's every few requests: a quarter of all CPU, and
    pauses of 50 ms. What requests leave behind it still finds.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
