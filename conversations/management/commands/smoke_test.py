import time
from argparse import ArgumentTypeError
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser

from conversation_service.commands import Unfinished, add_json, as_json, end_help
from conversation_service.progress import stopped_by_signals
from conversation_service.smoke import NotTried, Outcome, Site, Step, walk
from conversation_service.tokens import service_token, user_token
from conversations.jobs import smoke
from conversations.jobs.smoke import Tokens, Visit

TOKEN_LIFE = timedelta(minutes=15)  # with room for the waits that a rate limit asks for

HELP = """
Lead a conversation through its whole life in a deployment that runs, over HTTP, as a user made up
for it: begin, read, list, search, change, revert, archive, pin, export, trash, purge and more. It
ends at the first step that goes wrong. In any case all that it made is purged; what stays is the
tombstone that every purge leaves for the change feed.

--environment names what the deployment must call itself in /health, before anything is written.

The tokens are signed as JWT_SECRET_KEY and the other JWT_ variables say here, which must be those
of the deployment. Where only the issuer can sign (JWT_JWKS_URL), send --token, and --other-token
to see that one user cannot see what another has.

A step waits if a rate limit asks for it. Ctrl-C and SIGTERM end it after the step at hand.
"""


def address(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query:
        raise ArgumentTypeError(f"{text!r} is not like https://chat.example.org")
    return text


def secret(text: str) -> str:
    """Return a token, or the content of @FILE: other users of a machine see its command lines."""
    if not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentTypeError(f"{text[1:]}: {error}") from None


def seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise ArgumentTypeError("more than 0 seconds are needed")
    return value


class Command(BaseCommand):
    help = HELP
    requires_system_checks = []  # it uses no database

    def add_arguments(self, parser: CommandParser) -> None:
        end_help(
            parser,
            {
                0: "all is as it must be",
                1: "something is not",
                4: "not all was tried: stopped, another environment, or nobody answers",
            },
            "manage.py smoke_test --base-url https://chat.example.org --environment staging",
            database=False,
        )
        add = parser.add_argument
        add("--base-url", type=address, required=True, help="such as https://chat.example.org")
        add("--environment", default="", help="refuse to write to any other")
        add("--expect-version", default="", help="what /health must report")
        add("--timeout", type=seconds, default=10.0, help="seconds without a byte (10)")
        add("--character", default="luna", help="the id of a character that exists (luna)")
        add("--token", type=secret, default="", help="of a user; @FILE reads it from there")
        add("--other-token", type=secret, default="", help="of another user")
        add("--internal", action="store_true", help="try /internal too, where it is reachable")
        add("--internal-token", type=secret, default="", help="of a service, for /internal")
        add("--metrics", action="store_true", help="try /metrics too, where it is reachable")
        add_json(parser)

    def handle(self, *, base_url: str, json: bool, **options: Any) -> None:
        mark = smoke.new_mark()
        tokens = _tokens(mark, **options)
        steps = _steps(tokens, metrics=options["metrics"])
        began = time.monotonic()
        with closing(Site(base_url, timeout_s=options["timeout"], name=mark)) as site:
            visit = Visit(
                site,
                mark,
                tokens,
                character_id=options["character"],
                environment=options["environment"],
                version=options["expect_version"],
            )
            outcomes, left = self._walk(steps, visit, json=json)
        numbers = {
            "passed": sum(not outcome.fault for outcome in outcomes),
            "steps": len(steps),
            "deployment": visit.found,
            "left": left,
            "seconds": round(time.monotonic() - began, 1),
        }
        self.stdout.write(as_json(numbers) if json else _in_words(numbers))
        _end(outcomes, numbers, left)

    def _walk(
        self, steps: list[Step], visit: Visit, *, json: bool
    ) -> tuple[list[Outcome], list[str]]:
        """Return what became of the steps, and what could not be purged."""
        outcomes, left = [], []
        if not json:
            self.stdout.write(f"{'step':42} {'expected':42} {'status':>6} {'ms':>8}")
        with stopped_by_signals() as stopping:
            try:
                for outcome in walk(steps, visit.site, visit):
                    outcomes.append(outcome)
                    self.stdout.write(as_json(_facts(outcome)) if json else _line(outcome))
                    if stopping:
                        break
            finally:
                left = smoke.clean(visit)
        return outcomes, left


def _tokens(mark: str, **options: Any) -> Tokens:
    """Return the tokens that were sent, and of the others those that can be made here."""
    token, stranger = options["token"], options["other_token"]
    service = options["internal_token"]
    try:
        if not token:
            token = user_token(mark, life=TOKEN_LIFE)
            stranger = stranger or user_token(f"{mark}.other", life=TOKEN_LIFE)
        if options["internal"] and not service:
            service = service_token("smoke-test", "conversations:authorize", life=TOKEN_LIFE)
    except ImproperlyConfigured as error:
        raise Unfinished(f"{error} Send --token (and --internal-token for --internal).") from None
    return Tokens(token, stranger, service)


def _steps(tokens: Tokens, *, metrics: bool) -> list[Step]:
    wanted = {
        smoke.its_metrics_can_be_read.name: metrics,
        smoke.nobody_else_can_see_it.name: bool(tokens.stranger),
        smoke.a_service_may_ask_who_may_write.name: bool(tokens.service),
    }
    return [one for one in smoke.STEPS if wanted.get(one.name, True)]


def _line(outcome: Outcome) -> str:
    status = outcome.status or "-"
    line = f"{outcome.step.name:42} {outcome.step.expected:42} {status:>6}"
    wrong = "  WRONG" if outcome.fault else ""
    return f"{line} {outcome.milliseconds:>8.1f}{wrong}"


def _facts(outcome: Outcome) -> dict[str, Any]:
    return {
        "step": outcome.step.name,
        "expected": outcome.step.expected,
        "status": outcome.status,
        "milliseconds": outcome.milliseconds,
        "request_id": outcome.request_id,
        "fault": str(outcome.fault) if outcome.fault else None,
    }


def _in_words(numbers: dict[str, Any]) -> str:
    return (
        f"{numbers['passed']} of {numbers['steps']} steps are as they must be"
        f" ({numbers['deployment'] or 'unknown'}), in {numbers['seconds']} s."
    )


def _end(outcomes: list[Outcome], numbers: dict[str, Any], left: list[str]) -> None:
    troubles = []
    last = outcomes[-1]
    wrong = bool(left) or (last.fault and not isinstance(last.fault, NotTried))
    if last.fault:
        troubles.append(f"{last.step.name}: {last.fault} (X-Request-ID {last.request_id}).")
    elif numbers["passed"] < numbers["steps"]:
        troubles.append("Stopped before the end.")
    if left:
        troubles.append(f"Could not be purged: {', '.join(left)}.")
    if troubles:
        raise (CommandError if wrong else Unfinished)("\n".join(troubles))
