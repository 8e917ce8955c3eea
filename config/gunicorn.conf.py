# ruff: noqa: N999, PLC0415
"""How gunicorn serves the API: `gunicorn -c config/gunicorn.conf.py config.wsgi`."""

from importlib import import_module
from typing import Any

from config.env import env
from config.worker import PatientWorker

bind = f"{env('HOST')}:{env('PORT')}"
workers = env("WEB_CONCURRENCY")
worker_class = PatientWorker
worker_connections = 1_000  # per worker, idle ones included
backlog = 2_048
http_parser = "fast"  # fails without gunicorn_h1c, rather than being slow in silence

# Long enough for the longest filter and for a token in a header.
limit_request_line = 8_190  # bytes, the most that gunicorn takes
limit_request_fields = 64
limit_request_field_size = 8_190  # bytes

# Seconds. `timeout` guards against a worker that hangs, not against a slow request, which has
# limits of its own: config/connection.py towards the client, MONGODB_TIMEOUT_MS towards MongoDB.
timeout = int(env("REQUEST_TIMEOUT"))
graceful_timeout = 25  # Kubernetes kills after 30
keepalive = 75  # longer than a proxy keeps its end, so that it is never us who hang up on a request

# Everything else may be read-only.
worker_tmp_dir = env("WORKER_TMP_DIR") or None
control_socket_disable = True

reload = env("RELOAD")
reload_engine = "poll"  # inotify would block the loop of the worker

errorlog = "-"
accesslog = "-" if env("ACCESS_LOG") else None
access_log_format = '%(h)s "%(r)s" %(s)s %(b)s bytes %(M)s ms'
loglevel = env("LOG_LEVEL").lower()

WARM_UP_S = 2.0


def post_worker_init(worker: Any) -> None:
    """Do what the first request would wait for. Without MongoDB the worker still starts."""
    # Not before: the master has not patched its sockets.
    import pymongo
    from django.conf import settings
    from pymongo.errors import PyMongoError

    from conversation_service.mongodb.connection import database

    import_module(settings.ROOT_URLCONF)
    try:
        with pymongo.timeout(WARM_UP_S):
            database().command("ping")
    except PyMongoError as error:
        worker.log.error("MongoDB does not answer yet: %s", type(error).__name__)
