"""Updates of an existing conversation: the paths that an update sets, and its conditions.

An update maps paths to aggregation expressions over the stored document. `writer.py` puts the same
expressions into the filter and into the update pipeline of one statement, so that the database
checks and writes at once.

Values from a request are never part of an expression: a title "$user_id" would be replaced by the
user's id. They travel in `let`, within `$literal`; expressions refer to them as `$$values`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings

from conversations import limits
from conversations.documents import searchable, stored
from conversations.states import ACTIVE, ANY_STATE, ARCHIVED, DELETED, EDITABLE, PURGED
from conversations.words import sort_key

Expression = Any

NOW = "$$NOW"  # the clock of the primary, the same for every pod
# Later than the stored time by at least 1 ms, even if the clock of a new primary is behind: the
# change feed distinguishes two states of a conversation by this time.
CHANGED_AT = {"$max": [NOW, {"$add": ["$changed_at", 1]}]}


@dataclass(frozen=True, eq=False)  # compared and hashed by identity
class UpdateTemplate:
    """The constant part of an update.

    `public` paths appear in the history, and an update that changes none of them is not written.
    `derived` paths follow from the public ones; so do `title_words` and `tag_words`, the two parts
    of `search`. `limits` maps the path of a field to the condition for its new value, if that
    depends on the stored document. `replacement` takes the place of the whole document. `event`
    is a label of the metric conversation_events.
    """

    public: Mapping[str, Expression] = field(default_factory=dict)
    derived: Mapping[str, Expression] = field(default_factory=dict)
    title_words: Expression = None
    tag_words: Expression = None
    limits: Mapping[str, Expression] = field(default_factory=dict)
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
    """Return the template that has the paths and conditions of all of these."""
    public: dict[str, Expression] = {}
    derived: dict[str, Expression] = {}
    conditions: dict[str, Expression] = {}
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
    """Return the stored time, or else now: a repeated request changes nothing."""
    return {"$ifNull": [f"${path}", NOW]}


def _if_in_trash(then: Expression, otherwise: Expression) -> Expression:
    return {"$cond": [{"$eq": ["$status", DELETED]}, then, otherwise]}


# Only an active conversation is the one that get_or_create returns for its character.
_NOT_THE_ACTIVE_ONE = {"only": None}

ARCHIVE = Update(
    (
        UpdateTemplate(
            {"status": ARCHIVED, "archived_at": _time_once("archived_at")},
            _NOT_THE_ACTIVE_ONE,
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

# From the trash to the status before it; from the archive to ACTIVE.
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
            states=ANY_STATE,
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
    states=ANY_STATE,
    event="trashed",
)


def trash() -> Update:
    return Update((_TRASH,), {"days": settings.TRASH_DAYS})


_PURGE = UpdateTemplate(
    {"status": PURGED},
    states=[DELETED],
    blocked_by_hold=True,
    # The change feed needs this tombstone until `expires_at`, when a TTL index deletes it.
    replacement={
        "_id": "$_id",
        "user_id": "$user_id",
        "status": PURGED,
        "changed_at": CHANGED_AT,
        "expires_at": _IN_DAYS,
        "mark": {"$ifNull": ["$$mark", "$$REMOVE"]},
    },
    event=PURGED,
)


def purge() -> Update:
    """Replace a conversation in the trash by a tombstone."""
    return Update((_PURGE,), {"days": settings.TOMBSTONE_DAYS})


def title_values(title: str) -> dict[str, Any]:
    """Return the `$$values` of a title with its sort key and its words."""
    return {"title": title, "title_key": sort_key(title), "title_words": [searchable(title)]}


_IS_AUTOMATIC = {"$eq": ["$title_source", "auto"]}
_CHARACTER_FOUND = UpdateTemplate(
    {
        "character_status": "verified",
        "title": {"$cond": [_IS_AUTOMATIC, "$$values.title", stored("title")]},
    },
    {
        "character_name": "$$values.title",
        "title_key": {"$cond": [_IS_AUTOMATIC, "$$values.title_key", "$title_key"]},
        "search": {
            "$cond": [
                _IS_AUTOMATIC,
                {"$concatArrays": ["$$values.title_words", STORED_TAG_WORDS]},
                "$search",
            ]
        },
    },
    states=ANY_STATE,
)


def character_found(name: str) -> Update:
    """Mark the character as verified. An automatic title becomes the name of the character."""
    return Update((_CHARACTER_FOUND,), title_values(name))


CHARACTER_MISSING = Update((UpdateTemplate({"character_status": "missing"}, states=ANY_STATE),))
