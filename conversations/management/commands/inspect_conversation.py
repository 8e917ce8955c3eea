from typing import Any

from bson import ObjectId
from django.core.management.base import BaseCommand, CommandError, CommandParser

from conversation_service.commands import add_json, as_json, as_text, end_help, object_id
from conversations.queries import inspection

HELP = """
Print the diagnosis for a stored conversation, without texts from users: state, owner, the owner's
hash as in the logs, version, counters, times, legal hold, sizes, the state in each index, fields
that differ from their derived values, and the actors of the last revisions. After a purge it prints
the tombstone. It changes nothing.
"""


class Command(BaseCommand):
    help = HELP

    def add_arguments(self, parser: CommandParser) -> None:
        end_help(
            parser,
            {0: "it is printed", 1: "it does not exist, or it could not run"},
            "manage.py inspect_conversation 507f1f77bcf86cd799439014 --json",
        )
        parser.add_argument("id", type=object_id, help="the conversation id")
        parser.add_argument("--words", action="store_true", help="also print the texts from users")
        add_json(parser)

    def handle(self, *, id: ObjectId, words: bool, json: bool, **options: Any) -> None:  # noqa: A002
        found = inspection.inspect(id, words=words)
        if json:
            self.stdout.write(as_json({"exists": found is not None, "id": id, **(found or {})}))
        elif found:
            self.stdout.write("\n".join(as_text(found)))
        if found is None:
            raise CommandError(f"There is neither a conversation nor a tombstone with the id {id}.")
