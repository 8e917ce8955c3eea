from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from conversation_service.commands import Unfinished, add_dry_run, add_json, as_json, end_help
from conversation_service.http.actor import Actor
from conversation_service.progress import stopped_by_signals, track
from conversation_service.upstreams import characters
from conversation_service.upstreams.characters import CharacterServiceUnavailable
from conversations.writes import characters as writes

HELP = """
Verify the characters of conversations that were created while Characters was unavailable.

If Characters is unavailable again, run it later: verified conversations stay verified. Ctrl-C and
SIGTERM end it after the current character.
"""


class Command(BaseCommand):
    help = HELP

    def add_arguments(self, parser: CommandParser) -> None:
        end_help(
            parser,
            {
                0: "all characters are verified or missing",
                1: "it could not run",
                4: "interrupted before the end, or Characters is unavailable",
            },
            "manage.py verify_characters --dry-run",
        )
        add_dry_run(parser)
        add_json(parser)

    def handle(self, *, dry_run: bool, json: bool, **options: Any) -> None:
        numbers: dict[str, Any] = {"verified": 0, "missing": 0}
        numbers |= {"dry_run": dry_run, "finished": True}
        reason = self.verify(numbers, json=json)
        numbers["finished"] = not reason
        text = f"Conversations: verified {numbers['verified']:,}, missing {numbers['missing']:,}"
        text += "; a dry run, nothing changed." if dry_run else "."
        self.stdout.write(as_json(numbers) if json else text)
        if reason:
            raise Unfinished(reason)

    def verify(self, numbers: dict[str, Any], *, json: bool) -> str:
        """Return the reason if it ended before the last character."""
        unverified = list(writes.unverified_characters())
        with stopped_by_signals() as stopping:
            for id_ in track(unverified, total=len(unverified), what="Looked up", out=self.stderr):
                if stopping:
                    return "Stopped; run it again to go on."
                try:
                    character = characters.get(id_)
                except CharacterServiceUnavailable:
                    return "Characters is unavailable; run it again later."
                outcome = "verified" if character else "missing"
                if numbers["dry_run"]:
                    count = writes.count_unverified(id_)
                    line = {"character_id": id_, "outcome": outcome, "conversations": count}
                    text = f"{id_}: {outcome}, conversations: {count:,}"
                    self.stdout.write(as_json(line) if json else text)
                else:
                    name = character.name if character else None
                    actor = Actor.service("verify_characters")
                    count = writes.mark_verified(id_, name, actor=actor)
                numbers[outcome] += count
        return ""
