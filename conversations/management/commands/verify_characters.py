import sys
from collections import Counter
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from conversation_service.clients import characters
from conversation_service.clients.characters import CharacterServiceUnavailable
from conversation_service.commands import end_help
from conversation_service.origin import of_service
from conversations import changes, store

INCOMPLETE = 2


class Command(BaseCommand):
    help = (
        "Look up the characters of conversations that began while Characters did not answer. "
        "If it does not answer now, run it again later: what is verified stays so."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        end_help(
            parser,
            {
                0: "all were looked up",
                1: "it could not run",
                2: "Characters does not answer, or a wrong option",
            },
            "manage.py verify_characters --dry-run",
        )
        parser.add_argument("--dry-run", action="store_true", help="look up, change nothing")

    def handle(self, *, dry_run: bool, **options: Any) -> None:
        done: Counter[str] = Counter()
        for character_id in store.unverified_characters():
            try:
                character = characters.get(character_id)
            except CharacterServiceUnavailable:
                self.stderr.write("Characters does not answer; try again later.")
                self._report(done, dry_run=dry_run)
                sys.exit(INCOMPLETE)
            outcome, wanted = "missing", changes.CHARACTER_MISSING
            if character:
                outcome, wanted = "verified", changes.character_found(character.name)
            number = store.change_all_with(
                character_id, wanted, origin=of_service("verify_characters"), dry_run=dry_run
            )
            done[outcome] += number
            if dry_run:
                self.stdout.write(f"{character_id}: {outcome}, {number:,} of them")
        self._report(done, dry_run=dry_run)

    def _report(self, done: Counter[str], *, dry_run: bool) -> None:
        told = f"Conversations: verified {done['verified']:,}, missing {done['missing']:,}"
        self.stdout.write(f"{told}; a dry run, nothing changed." if dry_run else f"{told}.")
