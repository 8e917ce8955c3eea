"""This deployment's state, as this process sees it: for `manage.py diagnose`.

Each part is gathered even if another one fails, and none takes more than a few seconds.
"""

import platform
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC
from functools import partial
from http import HTTPStatus
from importlib.metadata import version
from time import time
from typing import Any

import pymongo
from django.conf import settings
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from prometheus_client.parser import text_string_to_metric_families
from pymongo.errors import PyMongoError

from config.env import RELEASE, SECRETS, env, own_address, with_port
from conversation_service import health, redis
from conversation_service.http import jwks
from conversation_service.mongodb import failures
from conversation_service.mongodb.collections import declared
from conversation_service.mongodb.connection import database
from conversation_service.mongodb.drift import State, compare
from conversation_service.upstreams import http

PATIENCE = 2.0  # multiplies the health probes' time limits
MONGODB_S = 3.0  # for each part that needs MongoDB
SERVICE_S = 2.0
MAX_BYTES = 4_000_000
MAX_SKEW_S = 2.0  # tokens and the trash depend on the clocks
PACKAGES = ("Django", "django-mongodb-backend", "pymongo", "redis", "gunicorn", "gevent")
# Counters that an operator looks at after a failure: by name, the label to show.
COUNTERS = {
    "authentication_failures": "reason",
    "circuit_breaker_state": "upstream",
    "mongodb_heartbeat_failures": "",
    "redis_unanswered": "",
}
SERVER_ERROR = "5"  # the first digit of a status

Found = dict[str, Any]


def diagnose() -> Found:
    """Return everything, and the faults as sentences in `wrong`."""
    dependencies = health.dependencies(patience=PATIENCE)
    if public := [name for name in settings.JWT_ALGORITHM if not name.startswith("HS")]:
        url = settings.JWT_JWKS_URL
        dependencies["jwt_keys"] = health.Dependency(url, partial(fetch_token_keys, url, public))
    outcomes = health.run_probes(dependencies, within_s=health.REPORT_S * PATIENCE)
    # The first time includes the client's start; the second is the latency.
    healthy = {n: dependencies[n] for n, each in outcomes.items() if each.status == "healthy"}
    if healthy:
        outcomes |= health.run_probes(healthy, within_s=health.REPORT_S * PATIENCE)
    shown = {
        name: {"address": dependencies[name].address if dependencies[name].url else None}
        | vars(outcome)
        for name, outcome in outcomes.items()
    }
    mongodb = indexes = None
    if outcomes["mongodb"].status == "healthy":
        mongodb = _guarded(mongodb_server)
        indexes = _guarded(index_drift)
    found = {
        "versions": versions(),
        "dependencies": shown,
        "mongodb": mongodb,
        "redis": redis_server() if outcomes["redis"].status == "healthy" else None,
        "indexes": indexes,
        "service": service(),
        "settings": effective_settings(),
    }
    return {"wrong": [*faults(found)], **found}


def fetch_token_keys(url: str, algorithms: list[str]) -> None:
    """Fetch the token issuer's keys. Raises UpstreamError or ProbeFailed."""
    try:
        jwks.fetch_keys(url, algorithms)
    except ValueError as error:
        raise health.ProbeFailed(str(error)) from None


def faults(found: Found) -> Iterator[str]:
    for name, dependency in found["dependencies"].items():
        if dependency["status"] == "unhealthy":
            yield f"{name} at {dependency['address']} is unhealthy: {dependency['reason']}"
    for part in ("mongodb", "indexes"):
        if reason := (found[part] or {}).get("unknown"):
            yield f"The state of {part} cannot be read: {reason}"
    skew_s = (found["mongodb"] or {}).get("clock_skew_s", 0.0)
    if abs(skew_s) > MAX_SKEW_S:
        yield f"The clock of MongoDB differs by {skew_s:+.1f} s. Synchronize both clocks (NTP)."
    indexes = found["indexes"] or {}
    if indexes.get("migrations"):
        yield f"{len(indexes['migrations'])} migrations are not applied: manage.py migrate"
    if indexes.get("differing"):
        number = len(indexes["differing"])
        yield f"{number} indexes or validators differ: manage.py setup_indexes --dry-run shows them"
    if fault := found["service"]["fault"]:
        yield f"The service at {found['service']['url']}: {fault}"


def versions() -> Found:
    return {
        "service": RELEASE,
        "revision": env("REVISION") or None,
        "environment": settings.ENVIRONMENT,
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }


def mongodb_server() -> Found:
    client = database().client
    sent = time()
    hello = client.admin.command("hello")
    received = time()
    server_s = hello["localTime"].replace(tzinfo=UTC).timestamp()
    return {
        "version": client.server_info()["version"],
        "replica_set": hello.get("setName"),
        "members": hello.get("hosts", []),
        # localTime has milliseconds, and the reply took some: the middle of both times is nearest.
        "clock_skew_s": round(server_s - (sent + received) / 2, 3),
    }


def index_drift() -> Found:
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    findings = [finding for schema in declared() for finding in compare(schema)]
    return {
        "states": Counter(str(finding.state) for finding in findings),
        "differing": [
            {"collection": found.collection, "name": found.name, "state": str(found.state)}
            for found in findings
            if found.state is not State.KEPT
        ],
        "migrations": [f"{migration.app_label}.{migration.name}" for migration, _ in plan],
    }


def redis_server() -> Found | None:
    try:
        with redis.connect(settings.REDIS_URL, timeout_s=health.REDIS_S * PATIENCE) as client:
            info: Any = client.info("server")
    except redis.FAILURES:  # an account can lack the permission for INFO
        return None
    name = "Valkey" if "valkey_version" in info else "Redis"
    return {"name": name, "version": info.get("valkey_version") or info["redis_version"]}


def service() -> Found:
    """Return what the service on this machine reports about itself since its start.

    `fault` is None if the service is ready, or if none runs here.
    """
    url = f"http://{with_port(own_address())}"
    found: Found = {"url": url, "runs": False, "fault": None, "server_errors": {}, "counters": {}}
    try:
        ready = http.get(f"{url}/health/ready", timeout_s=SERVICE_S, limit=MAX_BYTES)
        found["runs"] = True
        if ready.status != HTTPStatus.OK:
            found["fault"] = f"not ready, /health/ready returns {ready.status}"
        metrics = http.get(f"{url}/metrics", timeout_s=SERVICE_S, limit=MAX_BYTES)
        found |= since_start(metrics.body.decode())
    except http.UpstreamError as error:
        if found["runs"] or "refused" not in str(error).lower():
            found["fault"] = f"no usable response: {error}"
    except (ValueError, LookupError):  # not this service's metrics
        found["fault"] = found["fault"] or "another program uses this port, as /metrics shows"
    return found


def since_start(metrics: str) -> Found:
    errors: dict[str, float] = {}
    counters: dict[str, float] = {}
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            labels = sample.labels
            if sample.name == "http_requests_total" and labels["status"][0] == SERVER_ERROR:
                name = f"{labels['status']} {labels['method']} {labels['route']}"
                errors[name] = errors.get(name, 0) + sample.value
            elif family.name in COUNTERS and sample.value and not sample.name.endswith("_created"):
                label = labels.get(COUNTERS[family.name], "")
                counters[f"{family.name} {label}".strip()] = sample.value
    return {"server_errors": errors, "counters": counters}


def effective_settings() -> list[Found]:
    """Return each variable with its value in effect and its source. Secrets are masked."""
    rows = []
    for name, variable in env.scheme.items():
        value = getattr(settings, name, env(name))
        if name.startswith("RATE_LIMIT_"):
            value = settings.RATE_LIMITS.get(name.removeprefix("RATE_LIMIT_").lower(), value)
        source = env.source(name)
        shown = masked(name, value)
        is_default = source == "default" and value == variable.default
        rows.append({"name": name, "value": shown, "source": source, "is_default": is_default})
    return rows


def masked(name: str, value: Any) -> Any:
    if name in SECRETS:
        values = [text for text in (value if isinstance(value, list) else [value]) if text]
        return ", ".join(f"set, {len(text.encode())} bytes" for text in values)
    if not name.endswith(("_URL", "_ENDPOINT")) or not value:
        return value
    scheme, _, rest = str(value).partition("://")
    account = "***@" if "@" in rest else ""
    options = "?…" if "?" in rest else ""
    return f"{scheme}://{account}{health.address(value)}{options}"


def _guarded(part: Any) -> Found:
    """Return a part, or the reason why it cannot be read."""
    try:
        with pymongo.timeout(MONGODB_S):
            found: Mapping[str, Any] = part()
        return dict(found)
    except (PyMongoError, DatabaseError) as error:
        return {"unknown": failures.reason(failures.find(error) or error)}
