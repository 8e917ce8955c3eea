"""Prepares a database for development only: see create_staff."""

import io
from typing import Any, cast

import django
from django.apps import apps
from django.core.management import CommandError, call_command
from django.db import connection
from django_mongodb_backend.base import DatabaseWrapper
from pymongo.errors import PyMongoError

from conversation_service.development.process import CannotStart
from conversation_service.development.stand_ins.receiver import SECRET
from conversation_service.mongodb import failures
from conversation_service.mongodb.connection import database


def prepare(*, webhook: str | None = None) -> str:
    """Bring the database up to date and return a token for the owner of the demo data.

    Events are sent to the receiver at `webhook`, if any. May be repeated. Raises CannotStart
    without a usable MongoDB.
    """
    django.setup()
    try:
        require_mongodb()
        call_command("migrate", verbosity=0, interactive=False)
        call_command("setup_indexes", verbosity=0)
        call_command("seed_demo", webhook=webhook and [webhook, SECRET], verbosity=0)
        # From now on changes are published, also those before the publisher runs.
        call_command("publish_events", once=True)
        create_staff()
        return token_of_demo_user()
    finally:
        # The launcher outlives MongoDB, and a client without a server logs errors.
        cast(DatabaseWrapper, connection).close_pool()


def require_mongodb() -> None:
    try:
        server = database().command("hello")
    except PyMongoError as error:
        raise CannotStart(
            f"The MongoDB in MONGODB_URL cannot be used: {failures.reason(error)}. Start it, or "
            "unset MONGODB_URL: then one starts here."
        ) from None
    if "setName" not in server and server.get("msg") != "isdbgrid":
        raise CannotStart(
            "The MongoDB in MONGODB_URL is not a replica set; without one, MongoDB rejects "
            "retryable writes. Start it with --replSet rs0 and run rs.initiate(), or unset "
            "MONGODB_URL: then one starts here."
        )


def create_staff() -> None:
    """Create the account admin with the password admin, and its entry in the action log."""
    # These models need the app registry.
    from django.contrib.admin.models import CHANGE, LogEntry  # noqa: PLC0415
    from django.contrib.auth.models import User  # noqa: PLC0415

    if User.objects.filter(username="admin").exists():
        return
    admin = User.objects.create_superuser(username="admin", password="admin")  # noqa: S106
    model: Any = apps.get_model("conversations", "Conversation")
    for held in model.objects.filter(hold__by=admin.username)[:1]:
        message = f"Legal hold placed: {held.hold.reason}"
        LogEntry.objects.log_actions(admin.pk, [held], CHANGE, change_message=message)


def token_of_demo_user() -> str:
    token = io.StringIO()
    try:
        call_command("issue_token", "demo", stdout=token)
    except CommandError:  # with JWT_ALGORITHM=RS256, only Auth can sign
        return "..."
    return token.getvalue().strip()
