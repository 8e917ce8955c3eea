"""What a conversation remembers of its versions: the newest revisions, each with what it changed.

A revision holds the values before and after, so a former version is found by going back from
the present one. Counters and activity are no part of a version.
"""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from conversation_service.mongodb.connection import Document
from conversation_service.preconditions import Versions
from conversations.exceptions import RevisionExpired, RevisionNotFound

Revision = dict[str, Any]


def as_of(document: Document, version: int) -> Document:
    """Return a conversation, read with its revisions, as it was in a version.

    Raises RevisionNotFound for a version that never was, and RevisionExpired for one that the
    log no longer reaches.
    """
    if not 1 <= version <= document["version"]:
        raise RevisionNotFound
    oldest = document["version"] - len(document["revisions"])
    if version < oldest:
        raise RevisionExpired(oldest_version=oldest)
    then = deepcopy(document)
    for revision in _later(document, version):
        for changed in revision["changes"]:
            _put(then, changed["path"], changed["before"])
        then["metadata"]["updated_at"] = revision["previous_at"]
    return then | {"version": version}


@dataclass(frozen=True)
class HistoryPage:
    """Revisions, newest first; `next` is the version before which the next page begins."""

    revisions: list[dict[str, Any]]
    next: int | None


def page(document: Document, *, before: int | None, limit: int) -> HistoryPage:
    log = document["revisions"]
    found = [r for r in reversed(log) if before is None or r["version"] < before]
    shown = found[:limit]
    more = len(found) > limit
    return HistoryPage([_shown(r) for r in shown], shown[-1]["version"] if more else None)


def since(document: Document, versions: Versions) -> list[dict[str, Any]]:
    """Return the revisions after the latest version that a caller knew, newest first."""
    known = max(versions.accepted or {0}, default=0)
    return [_shown(revision) for revision in _later(document, known)]


def exported(document: Document) -> list[dict[str, Any]]:
    """Return the whole log, newest first, with what as_of needs beyond what page shows."""
    return [
        _shown(revision) | {"previous_at": revision["previous_at"]}
        for revision in reversed(document["revisions"])
    ]


def _later(document: Document, version: int) -> Iterator[Revision]:
    return (r for r in reversed(document["revisions"]) if r["version"] > version)


def _put(document: Document, path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for step in parents:
        document = document[step]
    document[last] = value


def _shown(revision: Revision) -> dict[str, Any]:
    shown = {name: revision[name] for name in ("version", "at", "by", "client", "request_id")}
    shown["changes"] = {
        changed["path"]: {"before": changed["before"], "after": changed["after"]}
        for changed in revision["changes"]
    }
    return shown
