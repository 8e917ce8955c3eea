import signal
import sys
from argparse import ArgumentTypeError
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from threading import Event
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from config.upstreams import UPSTREAMS
from config.variables import HIGHEST_PORT
from conversation_service.commands import end_help
from conversation_service.development.stand_ins.auth import auth
from conversation_service.development.stand_ins.characters import characters
from conversation_service.development.stand_ins.message import message
from conversation_service.development.stand_ins.server import LOOPBACK, MODES, StandIn

THIS_MACHINE = {"localhost", LOOPBACK}
URL_VARIABLES = [f"{name.upper()}_SERVICE_URL" for name in UPSTREAMS]


def ports(text: str) -> list[int]:
    numbers = text.split(",")
    are_ports = all(number.isdecimal() and int(number) <= HIGHEST_PORT for number in numbers)
    if len(numbers) != len(UPSTREAMS) or not are_ports:
        raise ArgumentTypeError(f"use {len(UPSTREAMS)} ports, such as 8001,8002,8004")
    return [int(number) for number in numbers]


class Command(BaseCommand):
    help = (
        "Run stand-ins for Auth, Characters and Message until Ctrl-C, for development. "
        'PUT /switch {"mode": "hang"} sets the mode of one of them: ' + ", ".join(MODES)
    )
    requires_system_checks = []  # no database

    def add_arguments(self, parser: CommandParser) -> None:
        end_help(
            parser,
            {
                0: "stopped by a signal",
                1: "it cannot start",
            },
            "manage.py run_neighbours --ports 8001,8002,8004",
            database=False,
        )
        parser.add_argument(
            "--ports",
            type=ports,
            help="ports of Auth, Characters and Message (default: those of *_SERVICE_URL)",
        )
        parser.add_argument(
            "--host",
            default=LOOPBACK,
            help="address to listen on; 0.0.0.0 in a container (default %(default)s)",
        )
        parser.add_argument(
            "--service-url",
            default="http://127.0.0.1:8003",
            help="Conversation Service that receives activity from Message (default %(default)s)",
        )

    def handle(
        self, *, ports: list[int] | None, host: str, service_url: str, **options: Any
    ) -> None:
        if settings.ENVIRONMENT not in {"development", "test"}:
            raise CommandError(
                "The stand-in for Auth gives a token of any user to anyone. Use it only with "
                "ENVIRONMENT=development."
            )
        if not any(name.startswith("HS") for name in settings.JWT_ALGORITHM):
            raise CommandError(
                f"With JWT_ALGORITHM={','.join(settings.JWT_ALGORITHM)} only the issuer can sign "
                "tokens: add HS256."
            )
        makers: dict[str, Callable[[int], StandIn]] = {
            "auth": partial(auth, host=host),
            "characters": partial(characters, host=host),
            "message": partial(message, host=host, service_url=service_url.rstrip("/")),
        }
        with ExitStack() as running:
            for name, port in zip(UPSTREAMS, ports or configured_ports(), strict=True):
                try:
                    server = running.enter_context(makers[name](port))
                except OSError as error:
                    raise CommandError(
                        f"Port {port} cannot be used: {error.strerror}. Choose others with "
                        f"--ports and {' and '.join(URL_VARIABLES)}."
                    ) from None
                self.stdout.write(f"{server.name:20} {server.url}")
            self.stdout.flush()
            for ending in (signal.SIGINT, signal.SIGTERM):
                signal.signal(ending, lambda number, frame: sys.exit(0))
            Event().wait()


def configured_ports() -> list[int]:
    found = []
    for variable in URL_VARIABLES:
        url = getattr(settings, variable)
        parts = urlsplit(url)
        if parts.hostname not in THIS_MACHINE or not parts.port:
            raise CommandError(f"{url} is not on this machine, or has no port. Use --ports.")
        found.append(parts.port)
    return found
