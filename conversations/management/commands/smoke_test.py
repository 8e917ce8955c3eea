import time
from argparse import ArgumentTypeError
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser

from conversation_service.commands import (
    Unfinished,
    add_json,
    as_json,
    end_help,
    positive_float,
)
from conversation_service.progress import stopped_by_signals
from conversation_service.smoke import NotTried, Outcome, Site, walk
from conversation_service.tokens import service_token, user_token
from conversations.jobs import smoke
from conversations.jobs.smoke import Tokens, Visit

TOKEN_LIFE = timedelta(minutes=15)  # includes waits for rate limits

HELP = """
Test a running deployment over HTTP with the whole life of a conversation, as a made-up user:
create, read, list, search, update, revert, archive, pin, export, trash, purge and more. It ends at
the first step that fails. In any case it purges all conversations that it created; their tombstones
stay for the change feed.

--environment is the expected environment in /health. It is compared before the first write.

The tokens are signed with JWT_SECRET_KEY and the other JWT_ variables of this process, which must
be those of the deployment. If only the issuer can sign (JWT_JWKS_URL), use --token, and
--other-token for the step with another user.

A step waits for a rate limit. Ctrl-C and SIGTERM end it after the current step.
"""


def address(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query:
        raise ArgumentTypeError(f"use a URL such as https://chat.example.org, not {text!r}")
    return text


def secret(text: str) -> str:
    """Return a token, or the content of @FILE: other users of a machine see its command lines."""
    if not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentTypeError(f"{text[1:]}: {error}") from None


class Command(BaseCommand):
    help = HELP
    requires_system_checks = []  # the command uses no database

    def add_arguments(self, parser: CommandParser) -> None:
        end_help(
            parser,
            {
                0: "all steps passed",
                1: "a step failed, or a conversation could not be purged",
                4: "interrupted, another environment, or no response",
            },
            "manage.py smoke_test --base-url https://chat.example.org --environment staging",
            database=False,
        )
        add = parser.add_argument
        add("--base-url", type=address, required=True, help="such as https://chat.example.org")
        add("--environment", default="", help="the expected environment")
        add("--expect-version", default="", help="the expected version")
        add(
            "--timeout",
            type=positive_float,
            default=10.0,
            help="seconds without a byte (default 10)",
        )
        add("--character", default="luna", help="an existing character id (default luna)")
        add("--token", type=secret, default="", help="a user token, or @FILE with it")
        add("--other-token", type=secret, default="", help="a token of another user")
        add("--internal", action="store_true", help="also test /internal")
        add("--internal-token", type=secret, default="", help="a service token for /internal")
        add("--metrics", action="store_true", help="also test /metrics")
        add_json(parser)

    def handle(self, *, base_url: str, json: bool, **options: Any) -> None:
        mark = f"smoke{uuid4().hex}"  # the tag for all conversations that this run creates
        tokens = make_tokens(mark, **options)
        enabled = {
            smoke.it_returns_metrics: options["metrics"],
            smoke.another_user_cannot_see_it: tokens.stranger,
            smoke.a_service_can_check_access: tokens.service,
        }
        steps = [step for step in smoke.STEPS if enabled.get(step, True)]
        expected = options["environment"], options["expect_version"]
        began = time.monotonic()
        site = Site(base_url, timeout_s=options["timeout"], name=mark)
        visit = Visit(site, mark, tokens, options["character"], *expected)
        outcomes: list[Outcome] = []
        with closing(site.session), stopped_by_signals() as stopping:
            try:
                for outcome in self.printed(walk(steps, site, visit), json=json):
                    outcomes.append(outcome)
                    if stopping:
                        break
            finally:
                left = smoke.clean(visit)
        passed = sum(not outcome.fault for outcome in outcomes)
        seconds = round(time.monotonic() - began, 1)
        if json:
            numbers = {"passed": passed, "steps": len(steps), "deployment": visit.found}
            self.stdout.write(as_json({**numbers, "left": left, "seconds": seconds}))
        else:
            deployment = f" on {visit.found}" if visit.found else ""
            self.stdout.write(f"{passed} of {len(steps)} steps passed{deployment}, in {seconds} s.")
        problems = []
        last = outcomes[-1]
        if last.fault:
            problems.append(f"{last.step}: {last.fault} (X-Request-ID {last.request_id}).")
        elif passed < len(steps):
            problems.append("Stopped before the end.")
        if left:
            problems.append(f"Could not be purged: {', '.join(left)}.")
        if problems:
            failed = left or (last.fault and not isinstance(last.fault, NotTried))
            raise (CommandError if failed else Unfinished)("\n".join(problems))

    def printed(self, outcomes: Iterator[Outcome], *, json: bool) -> Iterator[Outcome]:
        """Print each outcome and yield it."""
        if not json:
            self.stdout.write(f"{'step':42} {'expected':42} {'status':>6} {'ms':>8}")
        for outcome in outcomes:
            if json:
                fault = outcome.fault and str(outcome.fault)
                self.stdout.write(as_json({**vars(outcome), "fault": fault}))
            else:
                line = "{step:42} {expected:42} {0:>6} {milliseconds:>8}{1}"
                wrong = "  WRONG" if outcome.fault else ""
                self.stdout.write(line.format(outcome.status or "-", wrong, **vars(outcome)))
            yield outcome


def make_tokens(mark: str, **options: Any) -> Tokens:
    """Return the tokens from the options, and sign those that are missing."""
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
