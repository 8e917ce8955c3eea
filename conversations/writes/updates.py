"""Updates: the paths that each sets in a stored conversation, and its conditions.

An update maps paths to aggregation expressions over the stored document. `writer.py` puts the same
expressions into the filter and into the update pipeline, so that one statement checks and writes.

Values from a request are never inside an expression: MongoDB would replace a title "$user_id" by
the user's id. They travel in `let`, within `$literal`; expressions refer to them as `$$values`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings

from conversations import limits, states
from conversations.documents import ACTORS_BY_MARK, stored
from conversations.states import ACTIVE, ANY_STATE, ARCHIVED, DELETED, EDITABLE, PURGED
from conversations.words import searchable

Expression = Any

NOW = "$$NOW"  # the clock of the primary, the same for every pod
# Later than the stored time by at least 1 ms, even if a new primary's clock is behind: the change
# feed orders by this time.
CHANGED_AT = {"$max": [NOW, {"$add": ["$changed_at", 1]}]}


@dataclass(frozen=True)
class Limit:
    """A condition for a field's new value, and the maximum that an error names."""

    is_within: Expression
    maximum: Expression


@dataclass(frozen=True, eq=False)  # compared and hashed by identity
class UpdateTemplate:
    """The constant part of an update.

    `public` paths appear in the history; an update is written only if it changes a public path.
    `derived` paths follow from the public ones; so do `title_words` and `tag_words`, the parts that
    make `search`. `limits` maps a field's path to the limit for its new value, if that depends on
    the stored document. `replacement` replaces the whole document. `event` is a label for the
    metric conversation_events.
    """

    public: Mapping[str, Expression] = field(default_factory=dict)
    derived: Mapping[str, Expression] = field(default_factory=dict)
    title_words: Expression = None
    tag_words: Expression = None
    limits: Mapping[str, Limit] = field(default_factory=dict)
    states: Sequence[str] = EDITABLE
    blocked_by_hold: bool = False
    replacement: Expression = None
    event: str | None = None


@dataclass(frozen=True)
class Update:
    """Templates that are written together, and the `$$values` for their expressions.

    The templates must not share paths or values.
    """

    templates: tuple[UpdateTemplate, ...]
    values: Mapping[str, Any] = field(default_factory=dict)


# A document from a release without search has no words until manage.py reindex_search has run.
_SEARCH = {"$ifNull": ["$search", {"$literal": [searchable("")]}]}
STORED_TITLE_WORDS = {"$slice": [_SEARCH, 1]}
STORED_TAG_WORDS = {"$slice": [_SEARCH, 1, limits.TAGS]}


def merged(templates: Sequence[UpdateTemplate]) -> UpdateTemplate:
    """Return a template with the paths and conditions from all of these."""
    public: dict[str, Expression] = {}
    derived: dict[str, Expression] = {}
    conditions: dict[str, Limit] = {}
    for template in templates:
        public |= template.public
        derived |= template.derived
        conditions |= template.limits
    title_words = [t.title_words for t in templates if t.title_words]
    tag_words = [t.tag_words for t in templates if t.tag_words]
    if title_words or tag_words:
        words = [*(title_words or [STORED_TITLE_WORDS]), *(tag_words or [STORED_TAG_WORDS])]
        derived["search"] = {"$concatArrays": words}
    return UpdateTemplate(
        public,
        derived,
        limits=conditions,
        states=[s for s in ANY_STATE if all(s in template.states for template in templates)],
        blocked_by_hold=any(template.blocked_by_hold for template in templates),
        replacement=next((t.replacement for t in templates if t.replacement), None),
        event=next((t.event for t in templates if t.event), None),
    )


def _time_once(path: str) -> Expression:
    """Return the stored time, or else now, so that a repeated request has no effect."""
    return {"$ifNull": [f"${path}", NOW]}


def _if_in_trash(then: Expression, otherwise: Expression) -> Expression:
    return {"$cond": [{"$eq": ["$status", DELETED]}, then, otherwise]}


# get_or_create returns only active conversations.
_NOT_THE_ACTIVE_ONE = {"only": None}

ARCHIVE = Update(
    (
        UpdateTemplate(
            {"status": ARCHIVED, "archived_at": _time_once("archived_at")},
            _NOT_THE_ACTIVE_ONE,
            states=states.ARCHIVE.accepts,
            event=ARCHIVED,
        ),
    )
)
UNARCHIVE = Update((UpdateTemplate({"status": ACTIVE, "archived_at": None}, event="restored"),))

_STATUS_BEFORE_TRASH = {
    "$ifNull": [
        "$previous_status",
        {"$cond": [{"$eq": [stored("archived_at"), None]}, ACTIVE, ARCHIVED]},
    ]
}

# From the trash to the previous state; from the archive to the active ones.
RESTORE = Update(
    (
        UpdateTemplate(
            {
                "status": _if_in_trash(_STATUS_BEFORE_TRASH, ACTIVE),
                "archived_at": _if_in_trash(stored("archived_at"), None),
                "deleted_at": None,
                "purge_at": None,
            },
            {"previous_status": None},
            states=states.RESTORE.accepts,
            event="restored",
        ),
    )
)

PIN = Update((UpdateTemplate({"pinned_at": _time_once("pinned_at")}),))
UNPIN = Update((UpdateTemplate({"pinned_at": None}),))

_IN_DAYS = {"$dateAdd": {"startDate": NOW, "unit": "day", "amount": "$$values.days"}}
_TRASH = UpdateTemplate(
    {
        "status": DELETED,
        "deleted_at": _time_once("deleted_at"),
        "purge_at": {"$ifNull": ["$purge_at", _IN_DAYS]},
    },
    {"previous_status": _if_in_trash("$previous_status", "$status"), **_NOT_THE_ACTIVE_ONE},
    states=states.TRASH.accepts,
    event="trashed",
)


def trash() -> Update:
    return Update((_TRASH,), {"days": settings.TRASH_DAYS})


_MARK_OF_ACTOR = {
    "$switch": {
        "branches": [
            {"case": {"$eq": ["$$actor.by", actor]}, "then": mark}
            for mark, actor in ACTORS_BY_MARK.items()
        ],
        "default": "$$REMOVE",
    }
}
_PURGE = UpdateTemplate(
    {"status": PURGED},
    states=states.PURGE.accepts,
    blocked_by_hold=True,
    # The change feed needs this tombstone until `expires_at`, when a TTL index deletes it.
    replacement={
        "_id": "$_id",
        "user_id": "$user_id",
        "status": PURGED,
        "changed_at": CHANGED_AT,
        "expires_at": _IN_DAYS,
        "mark": {"$ifNull": ["$$mark", _MARK_OF_ACTOR]},
    },
    event=PURGED,
)


def purge() -> Update:
    """Replace a conversation in the trash by a tombstone."""
    return Update((_PURGE,), {"days": settings.TOMBSTONE_DAYS})
