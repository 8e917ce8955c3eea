from datetime import UTC
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from conversation_service.commands import Unfinished, add_dry_run, add_json, as_json, end_help
from conversations.jobs import retention
from conversations.jobs.retention import Due

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
                4: "stopped before that",
            },
            "manage.py apply_retention --dry-run --json",
        )
        add_dry_run(parser, "--preview")
        parser.add_argument("--batch-size", type=int, default=500, help="of a statement (500)")
        add_json(parser)

    def handle(self, *, dry_run: bool, batch_size: int, json: bool, **options: Any) -> None:
        if batch_size < 1:
            raise CommandError("--batch-size is 1 at least.")
        due = retention.idle()
        numbers = {"due": 0, "archived": 0, "dry_run": dry_run, "finished": True}
        if due:
            numbers["due"] = due.count()
            if dry_run:
                numbers["due"] = self._show(due, batch_size, json=json)
            else:
                numbers["archived"], numbers["finished"] = retention.carry_out(
                    due, batch_size, total=numbers["due"], what="Archived", out=self.stderr
                )
        elif not json:
            self.stdout.write("RETENTION_ARCHIVE_IDLE_DAYS is 0: nothing is archived when idle.")
        self.stdout.write(as_json(numbers) if json else _in_words(numbers))
        if not numbers["finished"]:
            raise Unfinished("Stopped; run it again to go on.")

    def _show(self, due: Due, batch_size: int, *, json: bool) -> int:
        shown = 0
        for row in due.each(batch_size):
            shown += 1
            id_, user_id, at = row["_id"], row["user_id"], due.moment(row).replace(tzinfo=UTC)
            one = {"id": id_, "user_id": user_id, "last_activity": at}
            text = f"{id_} {user_id} {at:%Y-%m-%d %H:%M}"
            self.stdout.write(as_json(one) if json else text)
        return shown


def _in_words(numbers: dict[str, Any]) -> str:
    if numbers["dry_run"]:
        return f"Idle: {numbers['due']:,} to archive."
    return f"Idle: {numbers['archived']:,} archived."
