"""All variables of the service: name, type, range, default and description.

Only this module reads os.environ. Django's settings, docs/configuration.md and .env.example are
made from its tables and from config/upstreams.py. `NAME_FILE` can contain the path to a file with
the value, for Docker and Kubernetes secrets. A `.env` file in the project's root is read
too; the environment takes precedence.

A faulty variable has its default until config/validation.py reports all faults in a list, before
any setting is used.

gunicorn's master loads this module: do not import Django's database, PyMongo or redis here.
"""

import difflib
import importlib.util
import io
import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import environ

from config.upstreams import UPSTREAMS
from config.variables import (
    HIGHEST_PORT,
    Variable,
    boolean,
    ceilings,
    choice,
    choices,
    host,
    hosts,
    http_url,
    integer,
    number,
    origins,
    ports,
    redis_url,
    text,
    url,
    words,
)

BASE_DIR = Path(__file__).resolve().parent.parent

RELEASE = "0.1.0"

ENVIRONMENTS = ("development", "test", "staging", "production")
DEPLOYED = {"staging", "production"}

# Published in .env.example and the guide: for development, rejected in production.
DEVELOPMENT_SECRET = "dev-secret-key-change-in-production-0123456789"  # noqa: S105
KNOWN_DEFAULTS = {"dev-secret-key", "dev-secret-key-change-in-production", DEVELOPMENT_SECRET}

SECRETS = ("SECRET_KEY", "SECRET_KEY_FALLBACKS", "JWT_SECRET_KEY", "JWT_SECRET_KEY_FALLBACKS")

MAX_DAYS = 36_500  # 100 years
DAY_S = 86_400
MAX_COUNT = 2_147_483_647  # a signed 32-bit integer

TRIMMED = {"pattern": r"|(?s:\S(.*\S)?)", "rule": "must not begin or end with a blank."}

# The headings and the order in docs/configuration.md and .env.example.
SECTIONS: dict[str, dict[str, Variable]] = {
    "Process": {
        "SERVICE_NAME": text(
            "conversation-service",
            "Name in logs, traces, /health and the header Server",
            pattern=r"[!-~]([ -~]{0,98}[!-~])?",
            rule="must be 1 to 100 visible ASCII characters.",
        ),
        "ENVIRONMENT": choice(
            "development", ENVIRONMENTS, "Chooses the settings: config/settings/NAME.py"
        ),
        "HOST": host(
            "0.0.0.0",  # noqa: S104
            "Address to listen on; `::` for IPv6 and IPv4. Unset, `make run` uses 127.0.0.1",
        ),
        "PORT": integer(8003, 1, HIGHEST_PORT, "Port to listen on"),
        "REVISION": text("", "Commit that was built, for /metrics"),
        "DEBUG": boolean(
            False,
            "Django's error pages. On by default in development; staging and production reject it",
            example="true",
        ),
        "RELOAD": boolean(False, "Restart the workers when a source file changes"),
        "WEB_CONCURRENCY": integer(2, 1, 256, "Worker processes"),
        "REQUEST_TIMEOUT": number(
            30.0, 1, 3_600, "Seconds without a heartbeat after which a worker is restarted"
        ),
        "CLIENT_HEAD_TIMEOUT_S": number(
            10.0, 0.01, 3_600, "Seconds in which a client must send the head of a request"
        ),
        "CLIENT_BODY_TIMEOUT_S": number(
            20.0, 0.01, 3_600, "Seconds in which a client must send the body of a request"
        ),
        "WORKER_TMP_DIR": text(
            "/dev/shm" if sys.platform == "linux" else "",  # noqa: S108
            "Folder of the workers' heartbeat: in memory, so that a slow disk restarts no worker",
            example="/dev/shm",  # noqa: S108
        ),
    },
    "Logs, metrics, traces": {
        "LOG_LEVEL": choice(
            "INFO",
            ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"),
            "Lowest level that is logged. DEBUG applies to the service's own code; libraries log "
            "from INFO, as at DEBUG they log documents and session keys",
        ),
        "LOG_FORMAT": choice(
            "",
            ("line", "ecs"),
            "`line`: text. `ecs`: one JSON object per line in the Elastic Common Schema. "
            "Empty: `ecs` in staging and production, else `line`",
        ),
        "ACCESS_LOG": boolean(True, "Log one line per request, health checks left out"),
        "LOG_COMMANDS": boolean(
            False,
            "With LOG_FORMAT `ecs`, commands of manage.py print JSON objects, too: for "
            "jobs in a cluster",
        ),
        "PROMETHEUS_MULTIPROC_DIR": text(
            "",
            "Folder in which the workers share their metrics. Empty: a new one in WORKER_TMP_DIR, "
            "removed at the end",
        ),
        "OTEL_EXPORTER_OTLP_ENDPOINT": http_url(
            "",
            "Collector of traces, such as http://collector:4318. Empty: no traces. Spans are sent "
            "as protobuf over HTTP. OpenTelemetry's variables for resource, sampler, batches and "
            "headers and OTEL_SDK_DISABLED apply; OTEL_TRACES_EXPORTER, OTEL_PYTHON_… and "
            "protocols do not",
        ),
    },
    "`make run` and `make test`": {
        "VAR_DIR": text(
            str(BASE_DIR / "var"),
            "Folder for the data of the servers that they start",
            pattern=r"(?s).*\S.*",
            rule="must not be empty.",
            example="var",
        ),
        "MONGOD_BIN": text("", "Path of a mongod to use instead of the one that pip installed"),
        "EMBEDDED_MONGODB_PORT": integer(
            27_017,
            0,
            HIGHEST_PORT,
            "Port of the MongoDB that they start; if it is 0 or in use, any free port. `make run` "
            "uses the port of its last start if the default is not changed",
        ),
    },
    "Django": {
        "SECRET_KEY": text(
            "",
            "Signs sessions and cursors; at least 32 bytes in staging and production",
            example=DEVELOPMENT_SECRET,
        ),
        "SECRET_KEY_FALLBACKS": words(
            "Former and future values of SECRET_KEY: their signatures are accepted"
        ),
        "ALLOWED_HOSTS": words(
            "Host names of the console; the API accepts every host name",
            pattern=r"\*|\.?[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?\.?|\[[0-9A-Fa-f:.]+\]",
            rule="must be host names without scheme, port and path, such as console.example.org.",
            example="*",
        ),
        "CSRF_TRUSTED_ORIGINS": origins(
            "Origins that may send the console's forms, such as https://console.example.org, or "
            "https://*.example.org for all subdomains",
            ("https", "http"),
            wildcards=True,
        ),
        "CORS_ALLOWED_ORIGINS": origins(
            "Origins of web pages that may call the API from a browser, such as "
            "https://app.example.org; no cookies. Development also allows every port of localhost "
            "and 127.0.0.1",
        ),
    },
    "MongoDB and Redis": {
        "MONGODB_URL": url(
            "A replica set: mongodb:// or mongodb+srv://, user name and password percent-encoded. "
            "Empty: `make run` and `make test` start a MongoDB 6.0"
        ),
        "MONGODB_DATABASE": text(
            "conversation_service",
            "Name of the database; if MONGODB_URL names one too, it must be the same",
            pattern=r"[A-Za-z0-9_-]{1,58}",  # 63 bytes with the prefix test_
            rule="must be 1 to 58 letters, digits, _ or -.",
        ),
        "MONGODB_TIMEOUT_MS": integer(
            5_000,
            1,
            600_000,
            "Milliseconds for the operations of one request together; for each operation in bulk "
            "actions, imports and long polls; commands of manage.py have no limit",
        ),
        "CONNECTION_POOL_MIN": integer(
            5, 0, 10_000, "Connections to MongoDB that each worker keeps open"
        ),
        "CONNECTION_POOL_MAX": integer(
            20, 1, 10_000, "Connections to MongoDB that each worker may have"
        ),
        "REDIS_URL": redis_url(
            "Redis or Valkey: redis://, rediss:// (TLS), valkey://, valkeys:// or unix://, user "
            "name and password percent-encoded. Empty: none; `make run` and `make test` start a "
            "Valkey"
        ),
    },
    "Upstreams": {
        "NEIGHBOUR_BUDGET_S": number(
            3.0, 0.01, 60, "Seconds that one request may spend on all upstreams together"
        ),
        **{
            name: variable
            for upstream in UPSTREAMS.values()
            for name, variable in upstream.variables().items()
        },
    },
    "Authentication": {
        "JWT_SECRET_KEY": text(
            "",
            "Shared with Auth, for HS…; at least 32 bytes in staging and production",
            example=DEVELOPMENT_SECRET,
        ),
        "JWT_SECRET_KEY_FALLBACKS": words(
            "Former and future values of JWT_SECRET_KEY: their signatures are accepted"
        ),
        "JWT_ALGORITHM": choices(
            ["HS256"],
            (
                *("HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
                *("ES256", "ES384", "ES512", "EdDSA"),
            ),
            "Accepted algorithms, such as `HS256,ES256` during a change; HS… needs "
            "JWT_SECRET_KEY, the others need JWT_JWKS_URL",
        ),
        "JWT_JWKS_URL": http_url("", "Where Auth publishes its public keys", query=True),
        "JWT_ISSUER": text("", "Required `iss` of a token; empty: any", **TRIMMED),
        "JWT_AUDIENCE": text("", "Required `aud` of a token; empty: any", **TRIMMED),
        "JWT_USER_ID_CLAIM": text(
            "user_id",
            "Claim with the user's id, a string of 1 to 255 visible ASCII characters; `sub` if a "
            "token does not have it",
            pattern=r"\S+",
            rule="must be the name of a claim, without blanks.",
        ),
        "JWT_LEEWAY_S": integer(
            10, 0, 3_600, "Seconds by which the clocks of Auth and this service may differ"
        ),
    },
    "Rate limits": {
        "RATE_LIMIT_ENABLED": boolean(True, "Apply the rate limits"),
        "RATE_LIMIT_WINDOW_S": integer(60, 1, DAY_S, "Seconds in which requests are counted"),
        "RATE_LIMIT_LIST": integer(
            60, 0, MAX_COUNT, "Lists without `search` per user; 0: no limit"
        ),
        "RATE_LIMIT_SEARCH": integer(60, 0, MAX_COUNT, "Lists with `search` per user; 0: no limit"),
        "RATE_LIMIT_CREATE": integer(
            10, 0, MAX_COUNT, "Creations per user; 0: no limit; development: 100", example="100"
        ),
        "RATE_LIMIT_PATCH": integer(30, 0, MAX_COUNT, "Updates per user; 0: no limit"),
        "RATE_LIMIT_DELETE": integer(20, 0, MAX_COUNT, "Deletions per user; 0: no limit"),
        "RATE_LIMIT_ALL": integer(100, 0, MAX_COUNT, "Requests of all kinds per user; 0: no limit"),
    },
    "Rules of conversations": {
        "MAX_TOKENS_CEILING": integer(
            4_096,
            1,
            MAX_COUNT,
            "Highest `max_tokens` that users can set, without an entry in MODEL_CEILINGS",
        ),
        "CONTEXT_WINDOW_CEILING": integer(
            8_192,
            1,
            MAX_COUNT,
            "Highest `context_window` that users can set, without an entry in MODEL_CEILINGS",
        ),
        "MODEL_CEILINGS": ceilings(
            ("max_tokens", "context_window"),
            MAX_COUNT,
            "Highest `max_tokens` and `context_window` by model, such as "
            "`gpt-4o:max_tokens=16384,context_window=128000;llama-*:max_tokens=8192`. The exact "
            "name applies before the longest start with `*`",
        ),
        "CHARACTER_CHECK": choice(
            "",
            ("strict", "lenient", "off"),
            "Check that the character of a new conversation exists. While Characters does not "
            "respond, `strict` rejects the request (503) and `lenient` creates the conversation "
            "unverified; `off` never checks. Empty: `lenient` in development, `strict` elsewhere",
        ),
        "MAX_CONVERSATIONS_PER_USER": integer(
            0, 0, MAX_COUNT, "Conversations that a user may have outside the trash; 0: no limit"
        ),
        "IF_MATCH_REQUIRED_FOR": words(
            "Names of the clients that must send If-Match with an update; `*` for all",
            pattern=r"[!-~]+",
            rule="must be names of visible ASCII characters.",
        ),
        "TRASH_DAYS": integer(30, 1, MAX_DAYS, "Days that a conversation stays in the trash"),
        "TOMBSTONE_DAYS": integer(
            90, 1, MAX_DAYS, "Days that the change feed lists a purged conversation"
        ),
        "RETENTION_ARCHIVE_IDLE_DAYS": integer(
            0,
            0,
            MAX_DAYS,
            "Days without a message after which `manage.py apply_retention` archives an active "
            "conversation that is not pinned; 0: never",
        ),
    },
    "Following changes": {
        "CHANGES_WAITING": integer(
            500, 1, 100_000, "Requests and streams that may wait for changes in each worker"
        ),
        "CHANGES_WAITING_PER_USER": integer(
            5, 1, 100_000, "Requests and streams of one user that may wait in each worker"
        ),
        "CHANGES_LOOK_S": number(1.0, 0.05, 60, "Seconds between two queries for changes"),
        "CHANGES_HEARTBEAT_S": number(
            15.0, 0.05, 3_600, "Seconds of silence after which a stream sends a comment"
        ),
        "CHANGES_STREAM_S": number(
            600.0, 0.05, DAY_S, "Seconds after which a stream ends, and the client connects again"
        ),
    },
    "Events": {
        "EVENTS_KEEP_DAYS": integer(
            30,
            1,
            3_650,
            "Days that the event log keeps an event; `manage.py setup_indexes` applies a change",
        ),
        "EVENTS_ACTIVITY": boolean(
            False, "Publish also `conversation.activity`: new totals from the Message service"
        ),
        "EVENTS_PORT": integer(
            9_103,
            0,
            HIGHEST_PORT,
            "Port of `/metrics` and `/healthz` of `manage.py publish_events` and "
            "`manage.py deliver_webhooks`; 0: none",
        ),
    },
    "Webhooks": {
        "WEBHOOK_ALLOWED_PORTS": ports([443], "Ports that the URL of a webhook can have"),
        "WEBHOOK_ALLOWED_HOSTS": hosts(
            "Hosts that the URL of a webhook can have although they are not public, such as "
            "`127.0.0.1` in development: also with http and any port",
        ),
    },
}

# Other programs use these or similar names, such as LOGLEVEL, MONGO_URL and SECRET_KEYS.
COMMON_NAMES = {
    *("SERVICE_NAME", "ENVIRONMENT", "HOST", "PORT", "REVISION", "DEBUG", "RELOAD", "VAR_DIR"),
    *("WEB_CONCURRENCY", "REQUEST_TIMEOUT", "LOG_LEVEL", "LOG_FORMAT", "ACCESS_LOG", "MONGOD_BIN"),
    *("PROMETHEUS_MULTIPROC_DIR", "OTEL_EXPORTER_OTLP_ENDPOINT"),
    *("SECRET_KEY", "MONGODB_URL", "MONGODB_DATABASE", "REDIS_URL"),
}
SIMILAR = 0.9  # difflib's ratio: a wrong letter in ten, or a missing letter in six
LONG_ENOUGH = 8  # letters in a common name: swapped letters are then no accident
LONG = 11  # letters in a common name: a missing letter is then no accident
_ASSIGNMENT = re.compile(r"(?:export )?[A-Za-z_0-9]+=.*")


class Env:
    """Reads variables in their types. A `$` is an ordinary character."""

    def __init__(self, dotenv: Path, **scheme: Variable) -> None:
        self.scheme = scheme
        self.environ: Mapping[str, str] = os.environ
        self.overrides: dict[str, Any] = {}  # values that this process sets itself
        self.dotenv_faults: dict[str, str] = {}
        self.dotenv_names: set[str] = set()  # the variables that a `.env` has set
        self._read_dotenv(dotenv)

    def __call__(self, name: str, default: Any = None) -> Any:
        """Return a variable's value, or its default if the variable is unset or faulty."""
        if name in self.overrides:
            return self.overrides[name]
        try:
            return self._read(name)
        except (KeyError, OSError, ValueError):
            return self.scheme[name].default if default is None else default

    def _read(self, name: str) -> Any:
        if file := self.environ.get(f"{name}_FILE"):
            value = Path(file).read_text(encoding="utf-8").rstrip("\r\n")
        else:
            value = self.environ[name]
        value.encode()  # raises UnicodeError if the environment has bytes that are not UTF-8
        return self.scheme[name].read(value)

    def source(self, name: str) -> str:
        """Return where a variable's value comes from."""
        if name in self.overrides:
            return "this command"
        for each in (f"{name}_FILE", name):
            if each in self.dotenv_names:
                return ".env"
            if each in self.environ:
                return "environment" if each == name else f"file {self.environ[each]}"
        return "default"

    def faults(self) -> dict[str, str]:
        """Return the faults in single variables: by name, a sentence that begins with the name."""
        faults = dict(self.dotenv_faults)
        for name in self.scheme:
            try:
                self._read(name)
            except KeyError:  # unset
                continue
            except OSError as error:
                reason = error.strerror
                faults[name] = f"{name}_FILE names a file that cannot be read: {reason}."
            except UnicodeError:
                faults[name] = f"{name} must be UTF-8 text."
            except ValueError as error:
                faults[name] = f"{name} {error}"
        for name in sorted(self.environ):
            if similar := self._misspelt(name):
                faults[name] = f"{name} is not a variable of this service; {similar} is similar."
        return faults

    def _read_dotenv(self, file: Path) -> None:
        """Add a `.env`, which may be missing, to the environment.

        Every line must be a comment or an assignment.
        """
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except FileNotFoundError:
            return
        except (OSError, UnicodeError):
            self.dotenv_faults[file.name] = f"{file.name} cannot be read as UTF-8 text."
            return
        assignments = []
        for position, line in enumerate(lines, 1):
            if _ASSIGNMENT.match(line):
                assignments.append(line)
            elif line.strip() and not line.lstrip().startswith("#"):
                self.dotenv_faults[f"{file.name}:{position}"] = (
                    f"{file.name}, line {position}, must be NAME=value without blanks around the =."
                )
        before = {*os.environ}
        # Without the other lines: django-environ logs them, and they may contain a secret.
        environ.Env.read_env(io.StringIO("\n".join(assignments)))
        self.dotenv_names = {*os.environ} - before

    def _misspelt(self, name: str) -> str | None:
        """Return the right name if a variable is probably misspelt.

        A false alarm would stop the start, so other programs' names must pass. A name that is
        similar to a common name is reported only if both have the same letters or, for a long
        common name such as ENVIRONMENT, if it lacks one letter.
        """
        if name.removesuffix("_FILE") in self.scheme:
            return None
        plain = name.upper().replace("-", "_")
        for common in COMMON_NAMES:
            if len(common) >= LONG_ENOUGH and sorted(plain) == sorted(common):
                return common if plain != common else None
            if len(common) >= LONG and _lacks_one_letter(plain, common):
                return common
        own = [known for known in self.scheme if known not in COMMON_NAMES]
        own += [f"{known}_FILE" for known in own]
        return next(iter(difflib.get_close_matches(plain, own, n=1, cutoff=SIMILAR)), None)


def _lacks_one_letter(name: str, full: str) -> bool:
    return any(
        letter != "_" and name == full[:position] + full[position + 1 :]
        for position, letter in enumerate(full)
    )


env = Env(
    BASE_DIR / ".env",
    **{name: variable for section in SECTIONS.values() for name, variable in section.items()},
)
if not env("PROMETHEUS_MULTIPROC_DIR"):  # prometheus_client takes "" for the current folder
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)


def choose_settings() -> None:
    """Set DJANGO_SETTINGS_MODULE by ENVIRONMENT, unless it names a module that exists here.

    A shell can have the variable of another project.
    """
    chosen = f"config.settings.{env('ENVIRONMENT')}"
    named = os.environ.get("DJANGO_SETTINGS_MODULE", "")
    with suppress(ImportError, ValueError):
        if named and importlib.util.find_spec(named):
            return
    if named:
        sys.stderr.write(f"DJANGO_SETTINGS_MODULE is {named}, not found here: {chosen} is used.\n")
    os.environ["DJANGO_SETTINGS_MODULE"] = chosen


def with_port(address: str) -> str:
    """Return an address with PORT, an IPv6 address in brackets."""
    return f"[{address}]:{env('PORT')}" if ":" in address else f"{address}:{env('PORT')}"


def own_address() -> str:
    """Return the address at which this machine reaches the service itself."""
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
    address: str = env("HOST")
    return everywhere.get(address, address)
