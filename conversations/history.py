"""A conversation's history: its newest revisions and its former versions.

A revision has the values before and after a change, so a former version is computed backwards from
the present one. Counters and activity have no versions.
"""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from conversation_service.mongodb.connection import Document
from conversations.exceptions import RevisionExpired, RevisionNotFound

Revision = dict[str, Any]


def as_of(document: Document, version: int) -> Document:
    """Compute a former version for a conversation that was read with its revisions.

    Raises RevisionNotFound for a version that never existed, and RevisionExpired for a version
    before the oldest revision.
    """
    if not 1 <= version <= document["version"]:
        raise RevisionNotFound
    oldest = oldest_version(document)
    if version < oldest:
        raise RevisionExpired(oldest_version=oldest)
    then = deepcopy(document)
    for revision in _later(document, version):
        for changed in revision.get("changes", ()):
            *parents, name = changed["path"].split(".")
            part = then
            for parent in parents:
                part = part.setdefault(parent, {})
            part[name] = changed.get("before")
        if previous_at := revision.get("previous_at"):
            then["metadata"]["updated_at"] = previous_at
    return then | {"version": version}


def oldest_version(document: Document) -> int:
    """Return the oldest version that can be computed from the revisions."""
    version: int = document["version"]
    return max(1, version - len(document["revisions"]))


def page(
    document: Document, *, before: int | None, limit: int
) -> tuple[list[dict[str, Any]], int | None]:
    """Return revisions, the newest first, and `before` for the next page."""
    found = [r for r in reversed(document["revisions"]) if before is None or r["version"] < before]
    shown = [_shown(revision) for revision in found[:limit]]
    return shown, shown[-1]["version"] if len(found) > limit else None


def since(document: Document, version: int) -> list[dict[str, Any]]:
    """Return the revisions after a version, the newest first."""
    return [_shown(revision) for revision in _later(document, version)]


def exported(document: Document) -> list[dict[str, Any]]:
    """Return all revisions, the newest first, with the previous version's time."""
    return [
        _shown(revision) | {"previous_at": revision.get("previous_at", revision["at"])}
        for revision in reversed(document["revisions"])
    ]


def _later(document: Document, version: int) -> Iterator[Revision]:
    return (r for r in reversed(document["revisions"]) if r["version"] > version)


def _shown(revision: Revision) -> dict[str, Any]:
    return {
        "version": revision["version"],
        "at": revision["at"],
        "by": revision.get("by", "user"),
        "client": revision.get("client"),
        "request_id": revision.get("request_id", ""),
        "changes": {
            changed["path"]: {"before": changed.get("before"), "after": changed.get("after")}
            for changed in revision.get("changes", ())
        },
    }
