from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from conversation_service.commands import UNFINISHED, Unfinished, add_once_and_port, end_help
from conversation_service.observability import exporter
from conversation_service.progress import stopped_by_signals
from conversations.webhooks.deliverer import Deliverer

HELP = """
Deliver the event log to the enabled webhook endpoints: in order for each conversation, and to each
endpoint independently of the others. A failed delivery is attempted again for 3 days.

It runs for ever, and waits while MongoDB is unavailable. Ctrl-C and SIGTERM end it after the
requests in flight. Several processes share the endpoints equally: each endpoint belongs to one
process, and another one takes over 30 seconds after a process was killed.
"""


class Command(BaseCommand):
    help = HELP

    def add_arguments(self, parser: CommandParser) -> None:
        add_once_and_port(parser, once="deliver the events that are due now, and end")
        end_help(
            parser,
            {
                0: "ended by a signal, or with --once all due events are delivered or recorded",
                1: "it failed, or with --once another process has an endpoint",
                UNFINISHED: "with --once, ended by a signal before all due events were sent",
            },
            "manage.py deliver_webhooks",
            "manage.py deliver_webhooks --once",
        )

    def handle(self, *, once: bool, port: int, **options: Any) -> None:
        with stopped_by_signals() as stopping:
            deliverer = Deliverer(once=once)
            with exporter.serving(0 if once else port, lambda: deliverer.active_at):
                deliverer.run(stopping)
                deliverer.stop()
        if once and stopping:
            raise Unfinished("Stopped; run it again to go on.")
        if once and not deliverer.is_complete:
            raise CommandError("Some endpoints did not get all events; the log has the reason.")
