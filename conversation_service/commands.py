"""What all commands have in common: how their help looks, what they print, how they end.

With --json stdout is NDJSON, and its last line is the result; everything else goes to stderr.
"""

from argparse import ArgumentTypeError, RawDescriptionHelpFormatter
from collections.abc import Iterable, Mapping
from textwrap import fill
from typing import Any

from bson import ObjectId
from django.core.management.base import CommandError, CommandParser, DjangoHelpFormatter

from conversation_service.external_ids import RULE, is_external_id
from conversation_service.http import rendering

WIDTH = 98

# The same in every command. 0 is for what went well, 1 for what went wrong.
WRONG_OPTION, NO_MONGODB, UNFINISHED = 2, 3, 4


class Unfinished(CommandError):
    """Not all could be done, but nothing is lost: the text says how to go on."""

    def __init__(self, text: str) -> None:
        super().__init__(text, returncode=UNFINISHED)


class _HelpFormatter(RawDescriptionHelpFormatter, DjangoHelpFormatter):
    """Keeps lines as they were written, and what all commands share behind what this one has."""


def end_help(
    parser: CommandParser, exit_codes: Mapping[int, str], *examples: str, database: bool = True
) -> None:
    """Let the help of a command end with its exit codes and examples.

    argparse itself exits with 2 for an option that does not exist, and manage.py with 3.
    """
    common = {WRONG_OPTION: "a wrong option"}
    if database:
        common[NO_MONGODB] = "MongoDB is unavailable; stderr has the reason"
    codes = [f"{code}  {meaning}" for code, meaning in sorted({**exit_codes, **common}.items())]
    description = parser.description or ""
    if "\n" not in description:
        parser.description = fill(description, WIDTH)
    parser.formatter_class = _HelpFormatter
    parser.epilog = f"{_section('exit codes', codes)}\n\n{_section('examples', examples)}"


def add_dry_run(parser: Any, *names: str) -> None:
    """Add --dry-run. `parser` may be a group of options that exclude one another."""
    parser.add_argument(
        "--dry-run", *names, action="store_true", help="say what would be done, change nothing"
    )


def add_json(parser: CommandParser) -> None:
    parser.add_argument(
        "--json", action="store_true", help="JSON on stdout, a line each; the last is the result"
    )


def add_after(parser: CommandParser) -> None:
    parser.add_argument(
        "--after", type=object_id, default=ObjectId(bytes(12)), help="go on behind this id"
    )


def object_id(text: str) -> ObjectId:
    if not ObjectId.is_valid(text):
        raise ArgumentTypeError("an id is 24 hexadecimal digits")
    return ObjectId(text)


def external_id(text: str) -> str:
    if not is_external_id(text):
        raise ArgumentTypeError(str(RULE))
    return text


def as_json(value: Mapping[str, Any]) -> str:
    return rendering.dumps(value).decode()


def _section(title: str, lines: Iterable[str]) -> str:
    return "\n  ".join([f"{title}:", *lines])
