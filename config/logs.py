"""Logging in every process to stdout, in a command to stderr; no content, secrets or user names.

Do not import Django here: gunicorn's master also logs, before sockets are patched.
"""

from typing import Any

from config.env import DEPLOYED, DEVELOPMENT_SECRET, RELEASE, env

LOG_FORMAT = env("LOG_FORMAT") or ("ecs" if env("ENVIRONMENT") in DEPLOYED else "line")
LOG_LEVEL = env("LOG_LEVEL")

FORMATTERS: dict[str, dict[str, Any]] = {
    "line": {
        "()": "conversation_service.observability.logs.Lines",
        "format": "{asctime} {levelname} {name} [{request_id}] {message}",
        "style": "{",
    },
    "ecs": {
        "()": "conversation_service.observability.logs.EcsObjects",
        "common": {
            "service.name": env("SERVICE_NAME"),
            "service.version": RELEASE,
            "service.environment": env("ENVIRONMENT"),
        },
    },
}

# At DEBUG, libraries log their payloads: PyMongo whole commands and replies, with content, session
# keys and password hashes; gunicorn its settings; urllib3 URLs with ids. So DEBUG is for the
# service's own code, and libraries log from INFO.
OWN = ("config", "conversation_service", "conversations")
LIBRARY_LEVEL = "INFO" if LOG_LEVEL == "DEBUG" else LOG_LEVEL

LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {
        "request": {
            "()": "conversation_service.observability.logs.AddRequest",
            "key": env("SECRET_KEY") or DEVELOPMENT_SECRET,
        },
        "rejected": {"()": "conversation_service.observability.logs.RejectedRequests"},
        "tracebacks": {"()": "conversation_service.observability.logs.OnlyTracebacks"},
    },
    "formatters": FORMATTERS,
    "handlers": {
        "stream": {
            "class": "logging.StreamHandler",
            "stream": "ext://sys.stdout",
            "formatter": LOG_FORMAT,
            "filters": ["rejected", "request"],
        },
    },
    "loggers": {
        **{name: {"level": LOG_LEVEL} for name in OWN},
        # Repeats each response with a status from 400, which the access log has. Only the traceback
        # of an exception is new.
        "django.request": {"level": "ERROR", "filters": ["tracebacks"]},
        # With DEBUG, Django's own handler repeats each line, without the time and the request.
        "django": {"handlers": [], "propagate": True, "level": LIBRARY_LEVEL},
        # Logs only a traceback whenever a background task fails to connect. The service logs the
        # reason once.
        "pymongo.client": {"level": "CRITICAL"},
        # Warns of each response to HEAD, from which gunicorn removes the body.
        "gunicorn.http.wsgi": {"level": "ERROR"},
        # gunicorn adds handlers and, with --log-level, its own level.
        "gunicorn.error": {"handlers": [], "propagate": True, "level": LIBRARY_LEVEL},
    },
    "root": {"handlers": ["stream"], "level": LIBRARY_LEVEL},
}
