import re
from argparse import ArgumentTypeError
from datetime import timedelta
from importlib import import_module
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser

from conversation_service.commands import end_help, external_id
from conversation_service.http.permissions import scopes
from conversation_service.tokens import service_token, user_token

_LIFETIME = re.compile(r"([1-9][0-9]{0,5})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

EXAMPLES = (
    "manage.py issue_token demo",
    "manage.py issue_token --service message --scope conversations:activity --lifetime 30d",
    'curl -H "Authorization: Bearer $(manage.py issue_token demo)" localhost:8003/api/v1/…',
)


def lifetime(text: str) -> timedelta:
    match = _LIFETIME.fullmatch(text)
    if not match:
        raise ArgumentTypeError(f"{text!r} is not a lifetime such as 90s, 15m, 1h or 30d")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


class Command(BaseCommand):
    help = (
        "Print an access token signed with JWT_SECRET_KEY, of any user or service. For development"
        " and smoke tests."
    )
    requires_system_checks = []  # no database

    def add_arguments(self, parser: CommandParser) -> None:
        end_help(
            parser,
            {0: "the token is printed", 1: "the token cannot be signed"},
            *EXAMPLES,
            database=False,
        )
        parser.add_argument("user", nargs="?", type=external_id, help="id of the user")
        parser.add_argument(
            "--service",
            metavar="NAME",
            type=external_id,
            help="token of a service instead",
        )
        parser.add_argument("--scope", nargs="+", default=[], help="scopes of the service")
        parser.add_argument(
            "--lifetime",
            type=lifetime,
            default="24h",
            help="such as 90s, 15m, 1h, 30d (default 24h)",
        )

    def handle(
        self,
        *,
        user: str | None,
        service: str | None,
        scope: list[str],
        lifetime: timedelta,
        **options: Any,
    ) -> None:
        if (user is None) == (service is None):
            raise CommandError("Use either a user or --service.")
        if scope and service is None:
            raise CommandError("--scope needs --service.")
        if service is not None:
            self.check_scopes(scope)
        try:
            if user is not None:
                self.stdout.write(user_token(user, life=lifetime))
            elif service is not None:
                self.stdout.write(service_token(service, *scope, life=lifetime))
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from None

    def check_scopes(self, wanted: list[str]) -> None:
        """Reject unknown scopes, and warn if there are none."""
        import_module(settings.ROOT_URLCONF)  # the views name their scopes
        known = f"The scopes are {', '.join(sorted(scopes))}."
        if unknown := [scope for scope in wanted if scope not in scopes]:
            raise CommandError(f"No endpoint has the scope {', '.join(unknown)}. {known}")
        if not wanted:
            self.stderr.write(f"Without --scope this token permits no request. {known}")
