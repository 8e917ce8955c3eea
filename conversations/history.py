"""A conversation's history: its newest revisions and its former versions.

A revision has the values before and after a change, so a former version is computed backwards from
the present one. Counters and activity have no versions.
"""

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
    for revision in exported(then):
        if revision["version"] <= version:
            break
        for path, change in revision["changes"].items():
            *parents, name = path.split(".")
            part = then
            for parent in parents:
                part = part.setdefault(parent, {})
            part[name] = change["before"]
        then["metadata"]["updated_at"] = revision["previous_at"]
    return then | {"version": version}


def oldest_version(document: Document) -> int:
    """Return the oldest version that can be computed from the revisions."""
    version: int = document["version"]
    return max(1, version - len(document["revisions"]))


def page(
    document: Document, *, before: int | None, limit: int
) -> tuple[list[Revision], int | None]:
    """Return revisions, the newest first, and `before` for the next page."""
    found = [r for r in _shown(document) if before is None or r["version"] < before]
    shown = found[:limit]
    return shown, shown[-1]["version"] if len(found) > limit else None


def since(document: Document, version: int) -> list[Revision]:
    """Return the revisions after a version, the newest first."""
    return [revision for revision in _shown(document) if revision["version"] > version]


def exported(document: Document) -> list[Revision]:
    """Return all revisions, the newest first, with the previous version's time.

    A stored revision can lack fields. A missing version is one less than that of the next revision,
    and a missing time is the time before that revision.
    """
    found = []
    version, at = document["version"], document["metadata"]["updated_at"]
    for revision in reversed(document["revisions"]):
        version, at = revision.get("version") or version, revision.get("at") or at
        previous_at = revision.get("previous_at") or at
        found.append(
            {
                "version": version,
                "at": at,
                "by": revision.get("by") or "user",
                "client": revision.get("client"),
                "request_id": revision.get("request_id") or "",
                "changes": {
                    changed["path"]: {
                        "before": changed.get("before"),
                        "after": changed.get("after"),
                    }
                    for changed in revision.get("changes") or ()
                    if changed.get("path")
                },
                "previous_at": previous_at,
            }
        )
        version, at = version - 1, previous_at
    return found


def _shown(document: Document) -> list[Revision]:
    return [
        {name: value for name, value in revision.items() if name != "previous_at"}
        for revision in exported(document)
    ]
