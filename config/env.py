"""Every variable this service reads from its environment, with type and default.

The only reader of os.environ. `NAME_FILE` holds the path of a file whose content is used as
NAME: that is how Docker and Kubernetes hand over secrets. A `.env` file in the project's root
is read in development; the environment wins over it.
"""

import os
import sys
from pathlib import Path

import environ
from django.core.exceptions import ImproperlyConfigured
from environ.fileaware_mapping import FileAwareMapping

BASE_DIR = Path(__file__).resolve().parent.parent

RELEASE = "0.1.0"

ENVIRONMENTS = ("development", "test", "staging", "production")

# Published in .env.example and the guide: good enough for one machine, refused in production.
KNOWN_DEFAULTS = {
    "dev-secret-key",
    "dev-secret-key-change-in-production",
    "dev-secret-key-change-in-production-0123456789",
}
DEVELOPMENT_SECRET = "dev-secret-key-change-in-production-0123456789"  # noqa: S105


class Variables(FileAwareMapping):  # type: ignore[misc]  # it has no types
    """The environment, and files named by it without the line break that editors end them with."""

    def __getitem__(self, key: str) -> str:
        value: str = super().__getitem__(key)
        return value.rstrip("\r\n") if f"{key}_FILE" in self.env else value


class Env(environ.FileAwareEnv):  # type: ignore[misc]
    ENVIRON = Variables()


env = Env(
    # Who and where
    SERVICE_NAME=(str, "conversation-service"),
    ENVIRONMENT=(str, "development"),
    HOST=(str, "0.0.0.0"),  # noqa: S104
    PORT=(int, 8003),
    REVISION=(str, ""),
    DEBUG=(bool, False),
    RELOAD=(bool, False),
    WEB_CONCURRENCY=(int, 2),
    REQUEST_TIMEOUT=(float, 30.0),
    # How long a client may take to send a request's head, and its body
    CLIENT_HEAD_TIMEOUT_S=(float, 10.0),
    CLIENT_BODY_TIMEOUT_S=(float, 20.0),
    WORKER_TMP_DIR=(str, "/dev/shm" if sys.platform == "linux" else ""),  # noqa: S108
    # What it tells of itself
    LOG_LEVEL=(str, "INFO"),
    LOG_FORMAT=(str, ""),
    ACCESS_LOG=(bool, True),
    PROMETHEUS_MULTIPROC_DIR=(str, ""),
    OTEL_EXPORTER_OTLP_ENDPOINT=(str, ""),
    # `make run` and the tests: where they keep things, and the MongoDB they bring along
    VAR_DIR=(str, str(BASE_DIR / "var")),
    MONGOD_BIN=(str, ""),
    EMBEDDED_MONGODB_PORT=(int, 27_017),
    # Django
    SECRET_KEY=(str, ""),
    SECRET_KEY_FALLBACKS=(list, []),
    ALLOWED_HOSTS=(list, []),
    CSRF_TRUSTED_ORIGINS=(list, []),
    # MongoDB and Redis
    MONGODB_URL=(str, ""),
    MONGODB_DATABASE=(str, "conversation_service"),
    MONGODB_TIMEOUT_MS=(int, 5_000),
    CONNECTION_POOL_MIN=(int, 5),
    CONNECTION_POOL_MAX=(int, 20),
    REDIS_URL=(str, ""),
    # The neighbours
    AUTH_SERVICE_URL=(str, "http://localhost:8001"),
    CHARACTERS_SERVICE_URL=(str, "http://localhost:8002"),
    MESSAGE_SERVICE_URL=(str, "http://localhost:8004"),
    NEIGHBOUR_BUDGET_S=(float, 3.0),
    AUTH_CONNECT_TIMEOUT_S=(float, 0.5),
    AUTH_READ_TIMEOUT_S=(float, 1.0),
    AUTH_RETRIES=(int, 1),
    AUTH_BREAKER_THRESHOLD=(int, 5),
    AUTH_BREAKER_RECOVERY_S=(float, 10.0),
    CHARACTERS_CONNECT_TIMEOUT_S=(float, 0.5),
    CHARACTERS_READ_TIMEOUT_S=(float, 1.5),
    CHARACTERS_RETRIES=(int, 1),
    CHARACTERS_BREAKER_THRESHOLD=(int, 5),
    CHARACTERS_BREAKER_RECOVERY_S=(float, 10.0),
    MESSAGE_CONNECT_TIMEOUT_S=(float, 0.5),
    MESSAGE_READ_TIMEOUT_S=(float, 2.0),
    MESSAGE_RETRIES=(int, 1),
    MESSAGE_BREAKER_THRESHOLD=(int, 5),
    MESSAGE_BREAKER_RECOVERY_S=(float, 10.0),
    # What they are asked
    AUTH_REMOTE_VALIDATION=(bool, False),
    AUTH_VALIDATE_PATH=(str, "/api/v1/auth/validate"),
    AUTH_CACHE_TTL=(int, 60),
    AUTH_FAIL_MODE=(str, "closed"),
    CHARACTER_PATH=(str, "/api/v1/characters/{id}"),
    MESSAGE_STATS_PATH=(str, "/api/v1/conversations/{id}/stats"),
    # Who is calling
    JWT_SECRET_KEY=(str, ""),
    JWT_SECRET_KEY_FALLBACKS=(list, []),
    JWT_ALGORITHM=(str, "HS256"),
    JWT_JWKS_URL=(str, ""),
    JWT_ISSUER=(str, ""),
    JWT_AUDIENCE=(str, ""),
    JWT_USER_ID_CLAIM=(str, "user_id"),
    JWT_LEEWAY_S=(int, 10),
    # Calls per user in a window, of each kind and together; 0 is no limit
    RATE_LIMIT_ENABLED=(bool, True),
    RATE_LIMIT_WINDOW_S=(int, 60),
    RATE_LIMIT_LIST=(int, 60),
    RATE_LIMIT_CREATE=(int, 10),
    RATE_LIMIT_PATCH=(int, 30),
    RATE_LIMIT_DELETE=(int, 20),
    RATE_LIMIT_ALL=(int, 100),
    # The rules of conversations
    MAX_TOKENS_CEILING=(int, 4_096),
    CONTEXT_WINDOW_CEILING=(int, 8_192),
    CHARACTER_CHECK=(str, ""),
    MAX_CONVERSATIONS_PER_USER=(int, 0),
    IF_MATCH_REQUIRED_FOR=(list, []),
    TRASH_DAYS=(int, 30),
    TOMBSTONE_DAYS=(int, 90),
    RETENTION_ARCHIVE_IDLE_DAYS=(int, 0),
    # Waiting for changes: how many may in a process, and of one user
    CHANGES_WAITING=(int, 500),
    CHANGES_WAITING_PER_USER=(int, 5),
    CHANGES_LOOK_S=(float, 1.0),
    CHANGES_HEARTBEAT_S=(float, 15.0),
    CHANGES_STREAM_S=(float, 600.0),
)
environ.Env.read_env(BASE_DIR / ".env")
if not env("PROMETHEUS_MULTIPROC_DIR"):  # an empty name is to prometheus_client the current folder
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)


def one_of(name: str, *allowed: str) -> str:
    """Return a variable that has a few values only, or stop the start."""
    value: str = env(name)
    if value not in allowed:
        raise ImproperlyConfigured(f"{name} is {value!r} and must be one of {', '.join(allowed)}.")
    return value


def settings_module() -> str:
    """Return the settings module that ENVIRONMENT chooses, for DJANGO_SETTINGS_MODULE."""
    return f"config.settings.{one_of('ENVIRONMENT', *ENVIRONMENTS)}"
