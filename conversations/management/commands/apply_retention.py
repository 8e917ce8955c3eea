from datetime import UTC
from typing import Any

import orjson
from django.core.management.base import BaseCommand, CommandError, CommandParser

from conversation_service import rendering
from conversation_service.commands import end_help
from conversations import retention
from conversations.retention import Due

STOPPED = 2

HELP = """
Archive what has been active without a message for RETENTION_ARCHIVE_IDLE_DAYS, unless it is
pinned or under a legal hold. The history says so, and the last activity stays what it was. With 0
days, which is the default, nothing is done. The end of the trash is the business of purge_trash.

Running it again goes on where it was stopped, and two at once do no harm. Ctrl-C and SIGTERM end
it after the batch at hand.
"""


class Command(BaseCommand):
    help = HELP

    def add_arguments(self, parser: CommandParser) -> None:
        end_help(
            parser,
            {
                0: "all that was due is archived",
                1: "it could not run",
                2: "stopped before that, or a wrong option",
            },
            "manage.py apply_retention --preview --json",
        )
        parser.add_argument(
            "--preview", action="store_true", help="say which and how many, change nothing"
        )
        parser.add_argument("--batch-size", type=int, default=500, help="of a statement (500)")
        parser.add_argument("--json", action="store_true", help="JSON on stdout, a line each")

    def handle(self, *, preview: bool, batch_size: int, json: bool, **options: Any) -> None:
        if batch_size < 1:
            raise CommandError("--batch-size is 1 at least.")
        due = retention.idle()
        numbers = {"due": 0, "archived": 0, "preview": preview, "finished": True}
        if due:
            numbers["due"] = due.count()
            if preview:
                numbers["due"] = self._show(due, batch_size, json=json)
            else:
                numbers["archived"], numbers["finished"] = retention.carry_out(
                    due, batch_size, total=numbers["due"], what="Archived", out=self.stderr
                )
        elif not json:
            self.stdout.write("RETENTION_ARCHIVE_IDLE_DAYS is 0: nothing is archived when idle.")
        self.stdout.write(orjson.dumps(numbers).decode() if json else _in_words(numbers))
        if not numbers["finished"]:
            raise CommandError("Stopped; run it again to go on.", returncode=STOPPED)

    def _show(self, due: Due, batch_size: int, *, json: bool) -> int:
        shown = 0
        for row in due.each(batch_size):
            shown += 1
            id_, user_id, at = row["_id"], row["user_id"], due.moment(row).replace(tzinfo=UTC)
            one = {"id": id_, "user_id": user_id, "last_activity": at}
            text = f"{id_} {user_id} {at:%Y-%m-%d %H:%M}"
            self.stdout.write(rendering.dumps(one).decode() if json else text)
        return shown


def _in_words(numbers: dict[str, Any]) -> str:
    if numbers["preview"]:
        return f"Idle: {numbers['due']:,} to archive."
    return f"Idle: {numbers['archived']:,} archived."
