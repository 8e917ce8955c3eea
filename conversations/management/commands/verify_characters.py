import sys
from collections import Counter
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from conversation_service.clients import characters
from conversation_service.clients.characters import CharacterServiceUnavailable
from conversation_service.origin import of_service
from conversations import changes, store

INCOMPLETE = 2


class Command(BaseCommand):
    help = (
        "Look up the characters of conversations that began while Characters did not answer. "
        "Ends with 2 if it does not answer now; run it again then: what is verified stays so. "
        "Example: manage.py verify_characters --dry-run"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="look up, change nothing")

    def handle(self, *, dry_run: bool, **options: Any) -> None:
        done: Counter[str] = Counter()
        for character_id in store.unverified_characters():
            try:
                character = characters.get(character_id)
            except CharacterServiceUnavailable:
                self.stderr.write("Characters does not answer; try again later.")
                self._report(done)
                sys.exit(INCOMPLETE)
            outcome = "verified" if character else "missing"
            if dry_run:
                self.stdout.write(f"{character_id}: {outcome}, nothing changed")
                continue
            wanted = changes.CHARACTER_MISSING
            if character:
                wanted = changes.character_found(character.name)
            done[outcome] += store.change_all_with(
                character_id, wanted, origin=of_service("verify_characters")
            )
        self._report(done)

    def _report(self, done: Counter[str]) -> None:
        self.stdout.write(f"Conversations: verified {done['verified']}, missing {done['missing']}.")
