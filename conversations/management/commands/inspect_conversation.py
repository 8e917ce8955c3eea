from collections.abc import Iterator
from datetime import datetime
from typing import Any

from bson import ObjectId
from django.core.management.base import BaseCommand, CommandError, CommandParser

from conversation_service.commands import add_json, as_json, end_help, object_id
from conversations.queries import inspection

HELP = """
Tell all of one stored conversation that an engineer on call may need, without what people wrote:
state, owner, the owner's hash as in the logs, version, counters, clocks, legal hold, sizes, which
indexes hold it, where it differs from what the service would have written, and who changed it
last. Of a purged one there is a tombstone. Nothing is changed.
"""


class Command(BaseCommand):
    help = HELP

    def add_arguments(self, parser: CommandParser) -> None:
        end_help(
            parser,
            {0: "it was told", 1: "it does not exist, or it could not run"},
            "manage.py inspect_conversation 507f1f77bcf86cd799439014 --json",
        )
        parser.add_argument("id", type=object_id, help="of the conversation")
        parser.add_argument("--words", action="store_true", help="also what people wrote")
        add_json(parser)

    def handle(self, *, id: ObjectId, words: bool, json: bool, **options: Any) -> None:  # noqa: A002
        found = inspection.inspect(id, words=words)
        if json:
            self.stdout.write(as_json({"exists": found is not None, "id": id, **(found or {})}))
        elif found:
            self.stdout.write("\n".join(_lines(found)))
        if found is None:
            raise CommandError(f"There is no conversation {id}, nor a tombstone of one.")


def _lines(values: dict[str, Any], indent: str = "") -> Iterator[str]:
    for name, value in values.items():
        label = f"{indent}{name.replace('_', ' ')}"
        if isinstance(value, dict) and value:
            yield f"{label}:"
            yield from _lines(value, f"{indent}  ")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            yield f"{label}:"
            yield from (f"{indent}  {as_json(one)}" for one in value)
        else:
            yield f"{label:<24} {_told(value)}"


def _told(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S} UTC"
    return "-" if value in (None, "") else str(value)
