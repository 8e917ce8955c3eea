"""Shared by all commands: help, output and exit codes.

With --json, stdout is NDJSON with the result as its last line. All other output goes to stderr.
"""

import re
from argparse import ArgumentTypeError, RawDescriptionHelpFormatter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from math import inf
from pathlib import Path
from textwrap import fill
from typing import IO, Any

from bson import ObjectId
from django.conf import settings
from django.core.management.base import (
    BaseCommand,
    CommandError,
    CommandParser,
    DjangoHelpFormatter,
)
from pymongo.errors import PyMongoError

from conversation_service.errors import DatabaseUnavailable, ServiceError
from conversation_service.external_ids import RULE, is_external_id
from conversation_service.http import rendering
from conversation_service.mongodb import failures

WIDTH = 98

# Equal in every command. 0 is success, 1 failure.
WRONG_OPTION, UNFINISHED = 2, 4  # and those of MongoDB in mongodb/failures.py


class Unfinished(CommandError):
    """Some work is not done. The text says how to continue."""

    def __init__(self, text: str) -> None:
        super().__init__(text, returncode=UNFINISHED)


def mongodb_error(
    error: PyMongoError | ServiceError, next_step: str, *, has_begun: bool
) -> CommandError:
    """Return the error to end with. The reason has neither documents nor the password in a URL."""
    reason = failures.reason(error)
    text = f"MongoDB: {reason.removesuffix('.')}. {next_step}"
    if has_begun:
        return Unfinished(text)
    unavailable = isinstance(error, DatabaseUnavailable) or failures.find(error)
    return CommandError(text, returncode=failures.exit_code(reason) if unavailable else 1)


class _HelpFormatter(RawDescriptionHelpFormatter, DjangoHelpFormatter):
    """Keeps line breaks, and lists the common options last."""


def end_help(
    parser: CommandParser, exit_codes: Mapping[int, str], *examples: str, database: bool = True
) -> None:
    """Add exit codes and examples at the end of a command's help.

    argparse exits with 2 for an unknown option, manage.py with 3 or 5 without MongoDB.
    """
    common = {WRONG_OPTION: "an invalid option"}
    if database:
        common[failures.NO_MONGODB] = "MongoDB is unavailable; stderr has the reason"
        common[failures.UNUSABLE_MONGODB] = (
            "the account, replica set or TLS in MONGODB_URL is wrong, or a permission is missing"
        )
    codes = [f"{code}  {meaning}" for code, meaning in sorted({**exit_codes, **common}.items())]
    description = parser.description or ""
    if "\n" not in description:
        parser.description = fill(description, WIDTH)
    parser.formatter_class = _HelpFormatter
    parser.epilog = f"{_section('exit codes', codes)}\n\n{_section('examples', examples)}"


# The numbers, the same as text, and the error to end with.
JobResult = tuple[Mapping[str, Any], str, CommandError | None]


class Job(BaseCommand):
    """A command with --dry-run and --json that prints its numbers as the last line.

    The help describes the exit codes 0, 1 and 4.
    """

    example: str
    exit_0: str
    exit_1 = "it could not run"
    exit_4 = "interrupted before the end"

    def add_arguments(self, parser: CommandParser) -> None:
        add_dry_run(parser)
        add_json(parser)
        exit_codes = {0: self.exit_0, 1: self.exit_1, UNFINISHED: self.exit_4}
        end_help(parser, exit_codes, f"manage.py {self.example}")

    def run(self, *args: Any, **options: Any) -> JobResult:
        raise NotImplementedError

    def handle(self, *, json: bool, dry_run: bool, **options: Any) -> None:
        self.json = json
        numbers, text, error = self.run(dry_run=dry_run, **options)
        finished = not isinstance(error, Unfinished)
        self.write({**numbers, "dry_run": dry_run, "finished": finished}, text)
        if error:
            raise error

    def write(self, values: Mapping[str, Any], text: str) -> None:
        self.stdout.write(as_json(values) if self.json else text)


def add_dry_run(parser: Any) -> None:
    """Add --dry-run. `parser` can be a mutually exclusive group."""
    parser.add_argument(
        "--dry-run", action="store_true", help="print the changes without making them"
    )


def add_json(parser: CommandParser) -> None:
    parser.add_argument(
        "--json",
        action="store_true",
        help="print a JSON object per line; the last is the result",
    )


def add_after(parser: CommandParser) -> None:
    parser.add_argument(
        "--after", type=object_id, default=ObjectId(bytes(12)), help="resume after this id"
    )


def add_once_and_port(parser: CommandParser, *, once: str) -> None:
    """Add the options of a command that runs for ever; `once` is the help of --once."""
    parser.add_argument("--once", action="store_true", help=once)
    parser.add_argument(
        "--port",
        type=int,
        default=settings.EVENTS_PORT,
        help="port for /metrics and /healthz; 0: none (default EVENTS_PORT); none with --once",
    )


def object_id(text: str) -> ObjectId:
    if not ObjectId.is_valid(text):
        raise ArgumentTypeError("use an id of 24 hexadecimal digits")
    return ObjectId(text)


def positive_int(text: str) -> int:
    if not re.fullmatch("[0-9]{1,18}", text) or not int(text):
        raise ArgumentTypeError("use an integer of at least 1")
    return int(text)


def positive_float(text: str) -> float:
    with suppress(ValueError):
        if 0 < float(text) < inf:
            return float(text)
    raise ArgumentTypeError("use a number above 0")


def external_id(text: str) -> str:
    if not is_external_id(text):
        raise ArgumentTypeError(str(RULE))
    return text


def open_report(path: Path) -> IO[bytes]:
    """Open a file to append to. Only its owner can read it: reports contain users' texts."""
    try:
        path.touch(mode=0o600)
        return path.open("ab")
    except OSError as error:
        raise CommandError(f"--report: {error}") from None


def as_json(value: Mapping[str, Any]) -> str:
    return rendering.dumps(value).decode()


def as_text(values: dict[str, Any], indent: str = "") -> Iterator[str]:
    """Yield a line for each value, nested values with an indent."""
    for name, value in values.items():
        label = f"{indent}{name.replace('_', ' ')}"
        if isinstance(value, dict) and value:
            yield f"{label}:"
            yield from as_text(value, f"{indent}  ")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            yield f"{label}:"
            yield from (f"{indent}  {as_json(row)}" for row in value)
        elif isinstance(value, list):
            yield f"{label:<24} {', '.join(map(str, value)) or '-'}"
        elif isinstance(value, datetime):
            yield f"{label:<24} {value:%Y-%m-%d %H:%M:%S} UTC"
        else:
            yield f"{label:<24} {'-' if value in (None, '') else value}"


def _section(title: str, lines: Iterable[str]) -> str:
    return "\n  ".join([f"{title}:", *lines])
