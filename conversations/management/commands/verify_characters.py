from typing import Any

from conversation_service.commands import Job, JobResult, Unfinished
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


class Command(Job):
    help = HELP
    example = "verify_characters --dry-run"
    exit_0 = "all characters are verified or missing"
    exit_4 = "interrupted before the end, or Characters is unavailable"

    def run(self, *, dry_run: bool, **options: Any) -> JobResult:
        numbers = {"verified": 0, "missing": 0}
        reason = self.verify(numbers, dry_run=dry_run)
        text = f"Conversations: verified {numbers['verified']:,}, missing {numbers['missing']:,}"
        text += "; a dry run, nothing changed." if dry_run else "."
        return numbers, text, Unfinished(reason) if reason else None

    def verify(self, numbers: dict[str, int], *, dry_run: bool) -> str:
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
                if dry_run:
                    count = writes.count_unverified(id_)
                    line = {"character_id": id_, "outcome": outcome, "conversations": count}
                    self.write(line, f"{id_}: {outcome}, conversations: {count:,}")
                else:
                    name = character.name if character else None
                    actor = Actor.service("verify_characters")
                    count = writes.mark_verified(id_, name, actor=actor)
                numbers[outcome] += count
        return ""
