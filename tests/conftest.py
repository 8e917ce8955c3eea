"""Every test runs against a real MongoDB, with the schema that a deployment has."""

import gc
import io
import logging
from collections.abc import Iterator
from typing import Any, cast

import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connection
from django.utils import translation
from django_mongodb_backend.base import DatabaseWrapper
from pymongo import WriteConcern, monitoring
from pymongo.database import Database
from rest_framework.test import APIClient

from config.logs import OWN
from conversation_service.mongodb.connection import collection, database
from tests import leaks
from tests.factories import client_of

# Written by migrate and read by Django. Tests only add roles.
SEEDED = {
    *("django_migrations", "django_content_type"),
    *("auth_permission", "auth_group", "auth_group_permissions"),
}

READ_WITH_MAJORITY = {"conversations", "event_log", "event_state"}


# Test modules that take longest, also by waiting. A new module needs no entry.
LONGEST = [
    *("test_launcher", "test_in_a_browser", "test_unavailable_database", "test_rolling_upgrade"),
    *("test_connections", "test_connecting", "test_snippets", "test_health", "test_accounts"),
    *("test_failover", "test_settings", "test_change_stream", "test_missing_fields", "test_start"),
    *("test_search", "test_import_legacy", "test_logins", "test_gunicorn", "test_debug"),
    *("test_frozen_database", "test_faulty_upstream", "test_external_ids", "test_export"),
    *("test_metrics", "test_smoke_test", "test_tracing", "test_retention"),
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest modules first: all processes then end at about the same time."""
    position = {name: position for position, name in enumerate(LONGEST)}
    items.sort(key=lambda item: position.get(item.path.stem, len(LONGEST)))


def pytest_collection_finish() -> None:
    """Exempt the tests and all imported modules from garbage collection."""
    gc.collect()
    gc.freeze()


class Recorder(monitoring.CommandListener):
    """Keeps every command; registered here, before there is a client."""

    def __init__(self) -> None:
        self.commands: list[dict[str, Any]] = []

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        self.commands.append(dict(event.command))

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None: ...

    def failed(self, event: monitoring.CommandFailedEvent) -> None: ...


recorder = Recorder()
monitoring.register(recorder)


@pytest.fixture(scope="session")
def django_db_setup(django_test_environment, django_db_blocker) -> Iterator[None]:
    """Create the schema once.

    Replaces pytest-django's own, which uses a test database only for tests that are marked.
    """
    name = connection.settings_dict["NAME"]
    assert name.startswith("test_"), f"{name} is not a test database"
    with django_db_blocker.unblock():
        connection.ensure_connection()
        connection.connection.drop_database(name)
        call_command("migrate", verbosity=0, interactive=False)
        call_command("setup_indexes", verbosity=0)
        yield
        connection.connection.drop_database(name)
        # Otherwise the client logs that it has lost the server, which stops next.
        cast(DatabaseWrapper, connection).close_pool()


@pytest.fixture(scope="session")
def roles_of_migrations(django_db_setup, django_db_blocker) -> list[Any]:
    with django_db_blocker.unblock():
        return collection("auth_group").distinct("_id")


@pytest.fixture(autouse=True)
def mongo(roles_of_migrations, django_db_blocker) -> Iterator[Database]:
    """The database, with only the documents of migrations.

    Emptying takes 2 ms; the flush behind pytest's django_db mark takes 50 to 90, as it also
    creates every permission anew. Tests need no such mark.
    """
    with django_db_blocker.unblock():
        translation.deactivate()  # an earlier request has activated the language of its client
        recorder.commands.clear()
        yield database()
        if any(command.get("insert") == "auth_group" for command in recorder.commands):
            collection("auth_group").delete_many({"_id": {"$nin": roles_of_migrations}})
        names = {name for name in database().list_collection_names() if "system." not in name}
        for name in filled(names - SEEDED):
            # On a majority, as the service reads with majority before it confirms a write.
            concern = WriteConcern("majority" if name in READ_WITH_MAJORITY else 1)
            collection(name).with_options(write_concern=concern).delete_many({})


def filled(names: set[str]) -> list[str]:
    """Return the names of the collections that have documents, in one request."""
    name_if_filled = [
        {
            "$unionWith": {
                "coll": name,
                "pipeline": [{"$limit": 1}, {"$project": {"_id": {"$literal": name}}}],
            }
        }
        for name in names
    ]
    return [row["_id"] for row in database().aggregate([{"$documents": []}, *name_if_filled])]


@pytest.fixture(scope="session")
def debug_log(django_test_environment) -> leaks.Recorder:
    recorder = leaks.Recorder()
    [stream] = [handler for handler in logging.root.handlers if handler.name == "stream"]
    recorder.filters = stream.filters
    logging.root.addHandler(recorder)
    for name in OWN:
        logging.getLogger(name).setLevel(logging.DEBUG)
    return recorder


@pytest.fixture(autouse=True)
def _no_leaks(mongo, debug_log) -> Iterator[None]:
    """Check the log and the errors of each test."""
    debug_log.lines.clear()
    with leaks.requests_sent() as requests:
        yield
    kept = ("conversations", "django_session")
    stored = [one["documents"] for one in recorder.commands if one.get("insert") in kept]
    secrets = [settings.SECRET_KEY, settings.JWT_SECRET_KEY]
    leaks.check_log("\n".join(debug_log.lines), requests, stored + secrets)
    leaks.check_errors(requests)


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """The lines of the log handler of the service."""
    [handler] = [handler for handler in logging.root.handlers if handler.name == "stream"]
    stream_handler = cast(logging.StreamHandler[Any], handler)
    written = io.StringIO()
    former = stream_handler.setStream(written)
    yield written
    stream_handler.setStream(former)


@pytest.fixture
def alice() -> APIClient:
    return client_of("alice")


@pytest.fixture
def bob() -> APIClient:
    return client_of("bob")


@pytest.fixture
def commands(mongo) -> list[dict[str, Any]]:
    """The commands sent to MongoDB since the start of the test."""
    recorder.commands.clear()
    return recorder.commands
