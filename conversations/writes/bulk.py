"""One action on many conversations of one user.

All are changed by one statement, which is for each what a call for it alone would send, and read
back by a second. What a call did itself it knows by a mark of its own, in the revision or on the
tombstone: so each result is exact, whoever else writes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any

from bson import ObjectId

from conversation_service.errors import ServiceError
from conversation_service.http.origin import Origin
from conversation_service.mongodb.connection import Document
from conversations import collection, metrics
from conversations.collection import ATTEMPTS
from conversations.documents import DEFAULTS
from conversations.exceptions import (
    ConversationNotFound,
    ConversationStateConflict,
    LegalHold,
    LimitExceeded,
)
from conversations.states import PURGED
from conversations.writes import changes, edits, store
from conversations.writes.changes import Change, Pipeline, Template, literal

STEP = 100
SAMPLE = 20

_ACTIONS = {
    "archive": changes.ARCHIVE,
    "restore": changes.RESTORE,
    "purge": changes.PURGE,
    "pin": changes.PIN,
    "unpin": changes.UNPIN,
}
_REFUSALS: dict[str, type[ServiceError]] = {
    "state": ConversationStateConflict,
    "held": LegalHold,
    "oversized": LimitExceeded,
}


@dataclass(frozen=True)
class Action:
    """What to do with each, and how one statement does it."""

    name: str
    change: Change

    @property
    def template(self) -> Template:
        return self.change.template

    @classmethod
    def of(cls, name: str, tags: Sequence[str] = ()) -> "Action":
        if name == "trash":
            return cls(name, changes.trash())
        if name in {"tag", "untag"}:
            field = "tags_add" if name == "tag" else "tags_remove"
            return cls(name, edits.edit({field: tags}))
        return cls(name, _ACTIONS[name])

    def pipeline(self, mark: ObjectId) -> Pipeline:
        return changes.tombstone(mark) if self.name == "purge" else self.template.pipeline

    def verdict(self) -> dict[str, Any]:
        """Return an expression for what a conversation, as it is, would meet."""
        wanted = self.template
        cases = [
            ({"$eq": ["$status", PURGED]}, "absent"),
            ({"$not": [{"$in": ["$status", [*wanted.states]]}]}, "state"),
            (wanted.is_held(), "held"),
            ({"$not": [wanted.fits()]}, "oversized"),
            (wanted.differs(), "differs"),
        ]
        branches = [{"case": case, "then": then} for case, then in cases]
        return {"$switch": {"branches": branches, "default": "same"}}


@dataclass(frozen=True)
class _Marked(Origin):
    """An origin that the revision keeps together with the mark of the call."""

    mark: ObjectId


@dataclass(frozen=True)
class Result:
    """What became of one: `outcome` is "ok", "skipped" or "failed"."""

    status: int
    code: str | None
    version: int | None
    outcome: str

    @classmethod
    def refused(cls, why: str, version: int | None = None) -> "Result":
        refusal = _REFUSALS.get(why, ConversationNotFound)
        return cls(refusal.status, refusal.code, version, "failed")


ABSENT = Result.refused("absent")


@dataclass(frozen=True)
class Boundary:
    """Where a run by filter ends: it leaves alone what came or changed since it began.

    `after` is the last id of the step before.
    """

    after: ObjectId | None
    last: ObjectId
    began: datetime

    def conditions(self) -> dict[str, Any]:
        later = {"$gt": self.after} if self.after else {}
        # Unlike $lte, "not $gt" matches a document without `changed_at`.
        unchanged = {"$not": {"$gt": self.began}}
        return {"_id": {**later, "$lte": self.last}, "changed_at": unchanged}


def boundary(chosen: Mapping[str, Any]) -> Boundary | None:
    """Return the boundary of a run that begins now, by the primary's clock; None if it is empty."""
    last = collection.committed().find_one(
        chosen, {"_id": 1, "now": "$$NOW"}, sort=[("_id", -1)], hint=collection.STAFF_USER
    )
    return Boundary(None, last["_id"], last["now"]) if last else None


def step(chosen: Mapping[str, Any], within: Boundary) -> list[ObjectId]:
    """Return the ids of the next step, in their order, by the index staff_user."""
    rows = collection.committed().find(
        {**chosen, **within.conditions()},
        ["_id"],
        sort=[("_id", 1)],
        limit=STEP,
        hint=collection.STAFF_USER,
    )
    return [row["_id"] for row in rows]


def apply(
    user_id: str,
    ids: Iterable[ObjectId],
    action: Action,
    *,
    origin: Origin,
    only: Mapping[str, Any] | None = None,
) -> dict[ObjectId, Result]:
    """Change all of these and return a result for each that is the user's.

    What does not meet the conditions `only` any more is skipped.
    """
    mark = ObjectId()
    variables = action.change.variables(_Marked(**vars(origin), mark=mark))
    results: dict[ObjectId, Result] = {}
    pending = {*ids}
    for _attempt in range(ATTEMPTS):
        store.change_all(
            user_id,
            pending,
            action.template,
            action.pipeline(mark),
            variables=variables,
            only=only or {},
        )
        found = _read(user_id, pending, action, mark)
        results |= {row["_id"]: _result(row) for row in found}
        # Somebody else's write came between the change and the reading: try again.
        if action.template.event:
            metrics.event(action.template.event).inc(sum(map(_own, found)))
        pending = {row["_id"] for row in found if not _own(row) and row["verdict"] == "differs"}
        if only is not None or not pending:
            return results
    return results | dict.fromkeys(pending, Result.refused("state"))


def rehearse(user_id: str, ids: Iterable[ObjectId], action: Action) -> dict[ObjectId, Result]:
    """Return what apply() would, and change nothing."""
    rows = _read(user_id, ids, action, None)
    return {row["_id"]: _result(row, differs="ok") for row in rows}


def counts(chosen: Mapping[str, Any], action: Action) -> dict[str, int]:
    """Count by verdict what apply() would meet."""
    verdict = {"$group": {"_id": action.verdict(), "count": {"$sum": 1}}}
    rows = collection.conversations().aggregate(
        [{"$match": chosen}, verdict], hint=collection.STAFF_USER, let=action.change.variables()
    )
    found = {row["_id"]: row["count"] for row in rows}
    return {
        "matched": sum(found.values()),
        "ok": found.get("differs", 0),
        "skipped": found.get("same", 0),
        "failed": sum(found.get(why, 0) for why in _REFUSALS),
    }


def sample(chosen: Mapping[str, Any]) -> list[ObjectId]:
    rows = collection.conversations().find(
        chosen, ["_id"], sort=[("_id", 1)], limit=SAMPLE, hint=collection.STAFF_USER
    )
    return [row["_id"] for row in rows]


def _read(
    user_id: str, ids: Iterable[ObjectId], action: Action, mark: ObjectId | None
) -> list[Document]:
    """Read verdicts, and of what bears the mark which version that made.

    Somebody may have changed it again since; or purged it, which leaves their tombstone.
    """
    projection: dict[str, Any] = {"version": 1, "verdict": action.verdict()}
    if mark:
        made = {"$filter": {"input": "$revisions", "cond": {"$eq": ["$$this.mark", literal(mark)]}}}
        projection["made"] = {"$first": {"$map": {"input": made, "in": "$$this.version"}}}
        projection["emptied"] = {"$eq": ["$mark", literal(mark)]}
    mine = {"_id": {"$in": [*ids]}, "user_id": user_id}
    variables = action.change.variables()
    rows = collection.committed().find(mine, projection, hint="_id_", let=variables)
    return rows.to_list()


def _own(row: Document) -> bool:
    """Tell whether this call did it. A verdict would be on what it then is, and mislead."""
    return bool(row.get("made") or row.get("emptied"))


def _result(row: Document, *, differs: str = "skipped") -> Result:
    version = None if row["verdict"] == "absent" else row.get("version", DEFAULTS["version"])
    if _own(row):
        return Result(HTTPStatus.OK, None, row.get("made"), "ok")
    if row["verdict"] == "differs":
        return Result(HTTPStatus.OK, None, version, differs)
    if row["verdict"] == "same":
        return Result(HTTPStatus.OK, None, version, "skipped")
    return Result.refused(row["verdict"], version)
