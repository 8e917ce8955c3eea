from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from conversation_service.commands import UNFINISHED, Unfinished, add_once_and_port, end_help
from conversation_service.observability import exporter
from conversation_service.progress import stopped_by_signals
from conversations.events.publisher import Publisher

HELP = """
Publish each change of a conversation in the event log, which GET /internal/v1/events and webhooks
read. The first start begins with the changes after it. Each later start continues, and publishes
what was missed meanwhile.

It runs for ever, and waits while MongoDB is unavailable. Ctrl-C and SIGTERM end it after a batch.
Several processes are safe: one publishes, the others wait.
"""


class Command(BaseCommand):
    help = HELP

    def add_arguments(self, parser: CommandParser) -> None:
        add_once_and_port(parser, once="publish the changes up to now, and end")
        end_help(
            parser,
            {
                0: "ended by a signal, or with --once all changes are published",
                1: "it failed",
                UNFINISHED: "with --once, ended by a signal before all changes are published",
            },
            "manage.py publish_events",
            "manage.py publish_events --once",
        )

    def handle(self, *, once: bool, port: int, **options: Any) -> None:
        with stopped_by_signals() as stopping:
            publisher = Publisher(stopping, once=once)
            with exporter.serving(0 if once else port, lambda: publisher.active_at):
                publisher.run()
        if once and stopping:
            raise Unfinished("Stopped; run it again to go on.")
