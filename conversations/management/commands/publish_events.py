import time
from contextlib import ExitStack
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from config.env import env
from conversation_service.commands import end_help
from conversation_service.observability import exporter
from conversation_service.progress import stopped_by_signals
from conversations.events.publisher import Publisher

STUCK_S = 120.0  # without a step

HELP = """
Publish each change of a conversation in the event log, which GET /internal/v1/events and webhooks
read. The first start begins with the changes after it. Each later start continues, and publishes
what was missed meanwhile.

It runs until Ctrl-C or SIGTERM, and waits while MongoDB is unavailable. Several processes are safe:
one publishes, the others wait.
"""


class Command(BaseCommand):
    help = HELP

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--once", action="store_true", help="publish the changes up to now, and end"
        )
        parser.add_argument(
            "--port",
            type=int,
            default=settings.EVENTS_PORT,
            help="port for /metrics and /healthz; 0: none (default EVENTS_PORT); none with --once",
        )
        end_help(
            parser,
            {0: "ended by a signal, or with --once all changes are published", 1: "it failed"},
            "manage.py publish_events",
            "manage.py publish_events --once",
        )

    def handle(self, *, once: bool, port: int, **options: Any) -> None:
        with stopped_by_signals() as stopping:
            publisher = Publisher(stopping, once=once)

            def is_healthy() -> bool:
                return time.monotonic() - publisher.active_at < STUCK_S

            with ExitStack() as stack:
                serving = exporter.serving(env("HOST"), 0 if once else port, is_healthy)
                try:
                    stack.enter_context(serving)
                except OSError as error:
                    raise CommandError(
                        f"Port {port} cannot be used, {error.strerror}. Choose another with --port."
                    ) from None
                publisher.run()
