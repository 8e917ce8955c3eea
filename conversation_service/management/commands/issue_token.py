import re
from argparse import ArgumentTypeError, RawDescriptionHelpFormatter
from datetime import timedelta
from typing import Any
from uuid import uuid4

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from conversation_service import clock
from conversation_service.authentication import CALLER_ID, SERVICE, USER, token_backend

_LIFETIME = re.compile(r"([1-9][0-9]{0,5})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

EXAMPLES = """
examples:
  manage.py issue_token demo
  manage.py issue_token --service billing --scope users:export users:erase --lifetime 30d
  curl -H "Authorization: Bearer $(python manage.py issue_token demo)" localhost:8003/api/v1/...
"""


def lifetime(text: str) -> timedelta:
    match = _LIFETIME.fullmatch(text)
    if not match:
        raise ArgumentTypeError(f"{text!r} is not like 90s, 15m, 1h or 30d")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


class Command(BaseCommand):
    help = (
        "Print an access token signed with JWT_SECRET_KEY. For development and smoke tests:"
        " whoever runs this can speak for anybody."
    )
    requires_system_checks = []  # it uses no database

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        return super().create_parser(
            prog_name,
            subcommand,
            epilog=EXAMPLES,
            formatter_class=RawDescriptionHelpFormatter,
            **kwargs,
        )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("user", nargs="?", help="id of the user the token speaks for")
        parser.add_argument("--service", metavar="NAME", help="a token for a service instead")
        parser.add_argument("--scope", nargs="+", default=[], help="what the service may do")
        parser.add_argument(
            "--lifetime", type=lifetime, default="24h", help="such as 90s, 15m, 1h, 30d (24h)"
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
        if not settings.JWT_ALGORITHM.startswith("HS"):
            raise CommandError(
                f"Only the issuer holds the private key for {settings.JWT_ALGORITHM};"
                " this command signs with a shared secret (HS256, HS384, HS512)."
            )
        if (user is None) == (service is None):
            raise CommandError("Name either a user or a --service.")
        if scope and service is None:
            raise CommandError("Only a --service has a --scope.")
        subject = user or service or ""
        if not CALLER_ID.fullmatch(subject):
            raise CommandError("An id is 1 to 64 characters of A-Z a-z 0-9 _ . : @ -")

        now = clock.now()
        claims = {"sub": subject, "iat": now, "exp": now + lifetime, "jti": uuid4().hex}
        if service is None:
            claims |= {"token_type": USER, settings.JWT_USER_ID_CLAIM: subject}
        else:
            claims |= {"token_type": SERVICE, "scope": " ".join(scope)}
        self.stdout.write(token_backend().encode(claims))
