import signal
import sys
from argparse import ArgumentTypeError
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from threading import Event
from typing import Any, NoReturn
from urllib.parse import urlsplit

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from conversation_service.commands import end_help
from conversation_service.development.stand_ins.auth import auth
from conversation_service.development.stand_ins.characters import characters
from conversation_service.development.stand_ins.message import message
from conversation_service.development.stand_ins.server import LOOPBACK, MODES, StandIn

THIS_MACHINE = {"localhost", LOOPBACK}
HIGHEST_PORT = 65_535


def ports(text: str) -> list[int]:
    numbers = text.split(",")
    if len(numbers) != 3 or not all(_is_port(number) for number in numbers):  # noqa: PLR2004
        raise ArgumentTypeError("three ports are needed, as in 8001,8002,8004")
    return [int(number) for number in numbers]


def _is_port(text: str) -> bool:
    return text.isdecimal() and int(text) <= HIGHEST_PORT


class Command(BaseCommand):
    help = (
        "Run stand-ins for the Auth, Characters and Message services, until Ctrl-C. "
        'For development. PUT /switch {"mode": "hang"} makes one of them misbehave: '
        + ", ".join(MODES)
    )
    requires_system_checks = []  # it uses no database

    def add_arguments(self, parser: CommandParser) -> None:
        end_help(
            parser,
            {
                0: "it was told to end",
                1: "it could not start",
            },
            "manage.py run_neighbours --ports 8001,8002,8004",
            database=False,
        )
        parser.add_argument(
            "--ports", type=ports, help="of Auth, Characters, Message (those of *_SERVICE_URL)"
        )
        parser.add_argument(
            "--host",
            default=LOOPBACK,
            help="the address to listen at; 0.0.0.0 in a container (%(default)s)",
        )
        parser.add_argument(
            "--service-url",
            default="http://127.0.0.1:8003",
            help="the Conversation Service that Message pushes activity to (%(default)s)",
        )

    def handle(
        self, *, ports: list[int] | None, host: str, service_url: str, **options: Any
    ) -> None:
        if settings.ENVIRONMENT not in {"development", "test"}:
            raise CommandError("Whoever knows the password of everybody may log in: not here.")
        if not settings.JWT_ALGORITHM.startswith("HS"):
            raise CommandError(f"With {settings.JWT_ALGORITHM} only the issuer can sign tokens.")
        makers: list[Callable[[int], StandIn]] = [
            partial(auth, host=host),
            partial(characters, host=host),
            partial(message, host=host, service_url=service_url.rstrip("/")),
        ]
        with ExitStack() as running:
            for make, port in zip(makers, ports or _configured_ports(), strict=True):
                server = running.enter_context(_start(make, port))
                self.stdout.write(f"{server.name:20} {server.url}")
            self.stdout.flush()
            for ending in (signal.SIGINT, signal.SIGTERM):
                signal.signal(ending, _stop)
            Event().wait()


def _stop(number: int, frame: Any) -> NoReturn:
    sys.exit(0)


def _start(make: Callable[[int], StandIn], port: int) -> StandIn:
    try:
        return make(port)
    except OSError as error:
        raise CommandError(
            f"Port {port} cannot be used: {error.strerror}. Choose others with --ports and the "
            "variables AUTH_SERVICE_URL, CHARACTERS_SERVICE_URL and MESSAGE_SERVICE_URL."
        ) from None


def _configured_ports() -> list[int]:
    return [
        _port_of(url)
        for url in (
            settings.AUTH_SERVICE_URL,
            settings.CHARACTERS_SERVICE_URL,
            settings.MESSAGE_SERVICE_URL,
        )
    ]


def _port_of(url: str) -> int:
    parts = urlsplit(url)
    if parts.hostname not in THIS_MACHINE or not parts.port:
        raise CommandError(f"{url} is not on this machine, or names no port: use --ports.")
    return parts.port
