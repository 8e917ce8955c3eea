from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from conversation_service.commands import Unfinished, add_dry_run, add_json, as_json, end_help
from conversation_service.http.actor import Actor
from conversation_service.progress import stopped_by_signals, track
from conversation_service.upstreams import characters
from conversation_service.upstreams.characters import CharacterServiceUnavailable
from conversations.writes import changes, store

HELP = """
Look up the characters of conversations that began while Characters did not answer.

If it does not answer now, run it again later: what is verified stays so. Ctrl-C and SIGTERM end it
after the character at hand.
"""


class Command(BaseCommand):
    help = HELP

    def add_arguments(self, parser: CommandParser) -> None:
        end_help(
            parser,
            {
                0: "all were looked up",
                1: "it could not run",
                4: "stopped before that, or Characters does not answer",
            },
            "manage.py verify_characters --dry-run",
        )
        add_dry_run(parser)
        add_json(parser)

    def handle(self, *, dry_run: bool, json: bool, **options: Any) -> None:
        numbers: dict[str, Any] = {"verified": 0, "missing": 0}
        numbers |= {"dry_run": dry_run, "finished": True}
        trouble = self._look_up(numbers, json=json)
        numbers["finished"] = not trouble
        self.stdout.write(as_json(numbers) if json else _in_words(numbers))
        if trouble:
            raise Unfinished(trouble)

    def _look_up(self, numbers: dict[str, Any], *, json: bool) -> str:
        """Return why it ended before all were looked up."""
        unverified = list(store.unverified_characters())
        with stopped_by_signals() as stopping:
            for id_ in track(unverified, total=len(unverified), what="Looked up", out=self.stderr):
                if stopping:
                    return "Stopped; run it again to go on."
                try:
                    outcome, number = _settle(id_, dry_run=numbers["dry_run"])
                except CharacterServiceUnavailable:
                    return "Characters does not answer; run it again later."
                numbers[outcome] += number
                if numbers["dry_run"]:
                    one = {"character_id": id_, "outcome": outcome, "conversations": number}
                    text = f"{id_}: {outcome}, {number:,} of them"
                    self.stdout.write(as_json(one) if json else text)
        return ""


def _settle(character_id: str, *, dry_run: bool) -> tuple[str, int]:
    """Look a character up; return what it is, and of how many conversations."""
    character = characters.get(character_id)
    outcome, wanted = "missing", changes.CHARACTER_MISSING
    if character:
        outcome, wanted = "verified", changes.character_found(character.name)
    actor = Actor.service("verify_characters")
    return outcome, store.change_all_with(character_id, wanted, actor=actor, dry_run=dry_run)


def _in_words(numbers: dict[str, Any]) -> str:
    told = f"Conversations: verified {numbers['verified']:,}, missing {numbers['missing']:,}"
    return f"{told}; a dry run, nothing changed." if numbers["dry_run"] else f"{told}."
