"""Checks that the servers do the same work: equal requests must get equal responses."""

import json
import re
import urllib.request
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.rounds import can
from benchmarks.servers import Server

PATH = "/api/v1/conversations"
CREATED = {"character_id": "luna", "title": "Noche con Luna", "tags": ["casual"]}
PATCHED = {"title": "The night train to Lisbon", "tags": ["ideas", "work"]}
# A server's own: it writes them as it likes, or they tell of the moment.
CURSOR = frozenset({"next_cursor"})
MOVED = frozenset({"updated_at", "version"})
# Only the service looks up the character.
BORN = frozenset({"id", "created_at", "updated_at", "last_activity", "character_status"})
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT.*(Z|\+00:00)")


class DifferentAnswers(Exception):
    pass


def compare(servers: Sequence[Server], tokens: Path) -> None:
    """Raise DifferentAnswers where one leaves a field out, or has another value in it."""
    token, conversation_id = tokens.read_text().splitlines()[0].split()
    one = f"{PATH}/{conversation_id}"
    requests = [
        ("list", "GET", f"{PATH}?limit=20", None, CURSOR),
        ("get", "GET", one, None, frozenset()),
        ("create", "POST", PATH, CREATED, BORN),
        ("patch", "PATCH", one, PATCHED, MOVED),
    ]
    for operation, method, path, body, own in requests:
        answers = {
            server.name: plain(ask(server, token, method, path, body), own)
            for server in servers
            if can(server, operation)
        }
        first, *others = answers.items()
        for name, answer in others:
            if answer != first[1]:
                raise DifferentAnswers(
                    f"{operation}: {first[0]} says {first[1]}\n{name} says {answer}"
                )


def ask(server: Server, token: str, method: str, path: str, body: Any = None) -> Any:
    request = urllib.request.Request(  # noqa: S310
        server.url + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
        return json.load(response)


def plain(value: Any, own: frozenset[str]) -> Any:
    """Return an answer with times as times, and only whether there is what is a server's own."""
    if isinstance(value, dict):
        return {
            name: inner is not None if name in own else plain(inner, own)
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [plain(inner, own) for inner in value]
    if isinstance(value, str) and MOMENT.fullmatch(value):
        return datetime.fromisoformat(value)
    return value
