"""How the help of every command looks."""

from argparse import RawDescriptionHelpFormatter
from collections.abc import Iterable, Mapping
from textwrap import fill

from django.core.management.base import CommandParser, DjangoHelpFormatter

WIDTH = 98


class _HelpFormatter(RawDescriptionHelpFormatter, DjangoHelpFormatter):
    """Keeps lines as they were written, and what all commands share behind what this one has."""


def end_help(parser: CommandParser, exit_codes: Mapping[int, str], *examples: str) -> None:
    """Let the help of a command end with its exit codes and examples.

    argparse itself exits with 2 for an option that does not exist: 2 has to say so.
    """
    codes = [f"{code}  {meaning}" for code, meaning in sorted(exit_codes.items())]
    description = parser.description or ""
    if "\n" not in description:
        parser.description = fill(description, WIDTH)
    parser.formatter_class = _HelpFormatter
    parser.epilog = f"{_section('exit codes', codes)}\n\n{_section('examples', examples)}"


def _section(title: str, lines: Iterable[str]) -> str:
    return "\n  ".join([f"{title}:", *lines])
