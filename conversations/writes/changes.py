"""How a conversation is changed: every write to an existing one is built here, or upon this.

A change maps paths to aggregation expressions over the document as it is. The same expressions
decide in the filter whether anything would differ and, in the pipeline, what is written; so one
statement checks and writes, and nobody reads a document, changes it and writes it back.

What a request brings is no part of an expression: it stands there as a variable, and travels in
`let`, in $literal. So no title "$user_id" is ever replaced by the user's id, and a statement is
built and encoded once for all requests of its kind.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import bson
from bson import ObjectId
from bson.raw_bson import RawBSONDocument
from django.conf import settings

from conversation_service.http.idempotency import LIFETIME, IdempotencyKey
from conversation_service.http.origin import Origin
from conversations import limits, metrics, states
from conversations.documents import PUBLIC, searchable, stored
from conversations.states import ANY_STATE, EDITABLE
from conversations.words import sort_key

Expression = Any
Pipeline = Sequence[Mapping[str, Any]]

LIFETIME_MS = int(LIFETIME.total_seconds() * 1000)
NOW = "$$NOW"  # the clock of the primary, the same for every pod
# Of an element of `keys`: it has not expired.
_LIVE = {"$gt": ["$$this.at", {"$subtract": [NOW, LIFETIME_MS]}]}


def literal(value: Any) -> Expression:
    return {"$literal": value}


def later() -> Expression:
    """Now, but never before the last change, should another primary's clock be behind."""
    return {"$max": [NOW, "$changed_at"]}


def unique() -> Expression:
    """Later than the last change: time and id tell the change feed one state from another."""
    return {"$max": [NOW, {"$add": ["$changed_at", 1]}]}


def differ(values: Mapping[str, Expression]) -> Expression:
    """Return whether any path does not hold its value."""
    return {"$or": [{"$ne": [stored(path), value]} for path, value in values.items()]}


_NEXT_VERSION = {"$add": [stored("version"), 1]}
_REMEMBERED = {
    "$ifNull": [
        {
            "$first": {
                "$filter": {
                    "input": "$keys",
                    "cond": {"$and": [{"$in": ["$$this.key", "$$key.scopes"]}, _LIVE]},
                }
            }
        },
        None,
    ]
}


@dataclass(frozen=True)
class Template:
    """What all changes of one kind share: what to set, in which states, what must hold then.

    `visible` paths count: if none of them would differ, nothing is written. `derived` ones
    follow from them. `limits` maps the path of a field to the condition that its value keeps a
    limit which depends on the stored document. `event` is what Prometheus is told, if anything.
    In expressions, `$$values` are those of a Change.
    """

    visible: Mapping[str, Expression]
    derived: Mapping[str, Expression] = field(default_factory=dict)
    states: Sequence[str] = EDITABLE
    limits: Mapping[str, Expression] = field(default_factory=dict)
    stopped_by_hold: bool = False
    event: str | None = None

    def differs(self) -> Expression:
        return differ(self.visible)

    def fits(self) -> Expression:
        return {"$and": [*self.limits.values()]}

    def is_held(self) -> Expression:
        """Return whether a legal hold forbids this; a document from before holds has none."""
        held = {"$ne": [{"$ifNull": ["$hold", None]}, None]}
        return held if self.stopped_by_hold else literal(False)

    def applies(self, *conditions: Expression) -> Expression:
        """Return whether this can be done, and these hold too.

        MongoDB may look at a tombstone before it looks at whose that is: nothing but the state is
        there to be looked at then.
        """
        wanted = {"$and": [self.fits(), *conditions]}
        return {"$cond": [{"$in": ["$status", [*self.states]]}, wanted, False]}

    @cached_property
    def would_differ(self) -> RawBSONDocument:
        """The condition of a change without a key."""
        return _encoded(self.applies(self.differs()))

    @cached_property
    def has_new_key(self) -> RawBSONDocument:
        """The condition of a change with a key, which is made even if nothing would differ."""
        return _encoded(self.applies({"$eq": [_REMEMBERED, None]}))

    @cached_property
    def pipeline(self) -> Pipeline:
        """The update: the change, its revision, and what comes with every change."""
        return [_encoded({"$set": {**self.visible, **self.derived, **self._stamps()}})]

    @cached_property
    def remembering_pipeline(self) -> Pipeline:
        """The update of a change with a key: where nothing differs, only the key is kept."""
        stamps = {
            path: {"$cond": [self.differs(), value, f"${path}"]}
            for path, value in self._stamps().items()
        }
        return [_encoded({"$set": {**self.visible, **self.derived, **stamps}}), _REMEMBER]

    def judgement(self, key: IdempotencyKey | None) -> dict[str, Expression]:
        """Return a projection that tells why a change did not match a conversation."""
        remembered = {"remembered": _REMEMBERED} if key else {}
        return remembered | {
            "differs": self.differs(),
            "held": self.is_held(),
            "oversized": {
                "$concatArrays": [
                    {"$cond": [fits, [], [path]]} for path, fits in self.limits.items()
                ]
            },
        }

    def _stamps(self) -> dict[str, Expression]:
        return {
            "version": _NEXT_VERSION,
            "metadata.updated_at": later(),
            "changed_at": unique(),
            "revisions": self._revisions(),
        }

    def _revisions(self) -> Expression:
        fields = [
            {"path": path, "before": stored(path), "after": value}
            for path, value in self.visible.items()
        ]
        differing = {"$ne": ["$$this.before", "$$this.after"]}
        revision = {
            "$mergeObjects": [
                {
                    "version": _NEXT_VERSION,
                    "at": later(),
                    "previous_at": stored("metadata.updated_at"),
                },
                "$$origin",
                {"changes": {"$filter": {"input": fields, "cond": differing}}},
            ]
        }
        return {"$slice": [{"$concatArrays": [stored("revisions"), [revision]]}, -limits.REVISIONS]}


@dataclass(frozen=True)
class Change:
    """A template, and what a request puts in for its `$$values`."""

    template: Template
    values: Mapping[str, Any] = field(default_factory=dict)

    def variables(
        self, origin: Origin | None = None, key: IdempotencyKey | None = None
    ) -> dict[str, Any]:
        """Return the `let` of a statement; one that only judges needs no origin."""
        variables = {"values": literal(self.values)}
        if origin:
            variables["origin"] = literal(vars(origin))
        if key:
            variables["key"] = literal(vars(key))
        return variables


def _encoded(stage: Mapping[str, Any]) -> RawBSONDocument:
    return RawBSONDocument(bson.encode(stage))


def _remember() -> RawBSONDocument:
    """Return the stage that keeps a key with the answer it led to, after the change is made.

    The answer may be asked for again when the conversation has long moved on. Of many keys only
    the newest keep theirs; the others still say that their work is done.
    """
    record = {
        "key": "$$key.scope",
        "fingerprint": "$$key.fingerprint",
        "at": NOW,
        "answer": {"_id": "$_id", **{name: f"${name}" for name in PUBLIC}},
    }
    kept = {"$slice": [{"$filter": {"input": stored("keys"), "cond": _LIVE}}, 1 - limits.KEYS]}
    older = {"$subtract": [{"$size": "$$kept"}, limits.ANSWERS - 1]}
    bare = {"key": "$$this.key", "fingerprint": "$$this.fingerprint", "at": "$$this.at"}
    without_answers = {"$map": {"input": {"$slice": ["$$kept", 0, older]}, "in": bare}}
    newest = {"$slice": ["$$kept", 1 - limits.ANSWERS]}
    parts = [{"$cond": [{"$gt": [older, 0]}, without_answers, []]}, newest, [record]]
    keys = {"$let": {"vars": {"kept": kept}, "in": {"$concatArrays": parts}}}
    return _encoded({"$set": {"keys": keys}})


_REMEMBER = _remember()


def _once(path: str) -> Expression:
    """Keep the time that stands there, so that repeating a call changes nothing."""
    return {"$ifNull": [f"${path}", NOW]}


def _in_trash(then: Expression, otherwise: Expression) -> Expression:
    return {"$cond": [{"$eq": ["$status", states.DELETED]}, then, otherwise]}


# Whatever leaves the active ones is no longer the only one of its character: see documents.new.
_LEFT = {"only": None}

ARCHIVE = Change(
    Template(
        {"status": states.ARCHIVED, "archived_at": _once("archived_at")},
        derived=_LEFT,
        states=states.ARCHIVE.accepts,
        event=metrics.ARCHIVED,
    )
)

_BEFORE_TRASH = {
    "$ifNull": [
        "$previous_status",
        {"$cond": [{"$eq": [stored("archived_at"), None]}, states.ACTIVE, states.ARCHIVED]},
    ]
}

# From the trash back to where it was; from the archive to the active ones.
RESTORE = Change(
    Template(
        {
            "status": _in_trash(_BEFORE_TRASH, states.ACTIVE),
            "archived_at": _in_trash(stored("archived_at"), None),
            "deleted_at": None,
            "purge_at": None,
        },
        derived={"previous_status": None},
        states=states.RESTORE.accepts,
        event=metrics.RESTORED,
    )
)
PIN = Change(Template({"pinned_at": _once("pinned_at")}))
UNPIN = Change(Template({"pinned_at": None}))

_PURGE_AT = {"$dateAdd": {"startDate": NOW, "unit": "day", "amount": "$$values.days"}}
_TRASH = Template(
    {
        "status": states.DELETED,
        "deleted_at": _once("deleted_at"),
        "purge_at": {"$ifNull": ["$purge_at", _PURGE_AT]},
    },
    derived={"previous_status": _in_trash("$previous_status", "$status"), **_LEFT},
    states=states.TRASH.accepts,
    event=metrics.TRASHED,
)


def trash() -> Change:
    return Change(_TRASH, {"days": settings.TRASH_DAYS})


# What it leaves is tombstone(), no change of this or that field.
PURGE = Change(
    Template(
        {"status": states.PURGED},
        states=states.PURGE.accepts,
        stopped_by_hold=True,
        event=metrics.PURGED,
    )
)
NOT_HELD = {"hold": None}  # matches a document from before holds too


def tombstone(mark: ObjectId | None = None) -> Pipeline:
    """Return the pipeline that empties a conversation for good.

    What stays says only that it is gone: the change feed needs it until `expires_at`, when the
    TTL index removes it. By the mark, a call knows those that it emptied itself.
    """
    gone = {"$dateAdd": {"startDate": NOW, "unit": "day", "amount": settings.TOMBSTONE_DAYS}}
    return [
        {
            "$replaceWith": {
                "_id": "$_id",
                "user_id": "$user_id",
                "status": states.PURGED,
                "changed_at": unique(),
                "expires_at": gone,
                **({"mark": literal(mark)} if mark else {}),
            }
        }
    ]


def hold(by: str, reason: str) -> Pipeline:
    """Return the pipeline of a legal hold.

    It is no version and no change of the feed: those are what the user can see, and this is not.
    """
    return [{"$set": {"hold": {"by": literal(by), "reason": literal(reason), "at": NOW}}}]


RELEASE: Pipeline = [{"$set": {"hold": None}}]


def titled(title: str) -> dict[str, Any]:
    """Return a title, and what it is ordered and found by, as values of a change."""
    return {"title": title, "title_key": sort_key(title), "words_of_title": [searchable(title)]}


# The words of the title, and those of the tags. A document from before there was search has
# neither until manage.py reindex_search has seen it.
_STORED_SEARCH = {"$ifNull": ["$search", literal([searchable("")])]}
_WORDS_OF_TITLE = {"$slice": [_STORED_SEARCH, 1]}
WORDS_OF_TAGS = {"$slice": [_STORED_SEARCH, 1, limits.TAGS]}


def search(
    *, of_title: Expression = _WORDS_OF_TITLE, of_tags: Expression = WORDS_OF_TAGS
) -> Expression:
    """Return `search` with other words of the title or of tags."""
    return {"$concatArrays": [of_title, of_tags]}


_IS_AUTO = {"$eq": ["$title_source", "auto"]}
_CHARACTER_FOUND = Template(
    {
        "character_status": "verified",
        "title": {"$cond": [_IS_AUTO, "$$values.title", stored("title")]},
    },
    derived={
        "character_name": "$$values.title",
        "title_key": {"$cond": [_IS_AUTO, "$$values.title_key", "$title_key"]},
        "search": {
            "$cond": [_IS_AUTO, search(of_title="$$values.words_of_title"), "$search"],
        },
    },
    states=ANY_STATE,
)


def character_found(name: str) -> Change:
    """The character was looked up after all: automatic titles become its name."""
    return Change(_CHARACTER_FOUND, titled(name))


CHARACTER_MISSING = Change(Template({"character_status": "missing"}, states=ANY_STATE))
