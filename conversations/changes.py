"""How a conversation is changed: every write to an existing one is built here.

A change maps paths to aggregation expressions over the document as it is. The same expressions
decide in the filter whether anything would differ and, in the pipeline, what is written; so one
statement checks and writes, and nobody reads a document, changes it and writes it back.

Values that come from people are wrapped in $literal: without it the title "$user_id" would be
replaced by the user's id.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from bson import ObjectId
from django.conf import settings

from conversation_service.idempotency import LIFETIME, IdempotencyKey
from conversation_service.origin import Origin
from conversations import limits
from conversations.documents import (
    PUBLIC,
    default_settings,
    searchable,
    sort_key,
    tag_key,
)

Expression = Any
Pipeline = list[dict[str, Any]]

LIFETIME_MS = int(LIFETIME.total_seconds() * 1000)
NOW = "$$NOW"  # the clock of the primary, the same for every pod
# Of an element of `keys`: it has not expired.
_LIVE = {"$gt": ["$$this.at", {"$subtract": [NOW, LIFETIME_MS]}]}
EDITABLE = ("active", "archived")
ANY_STATE = ("active", "archived", "deleted")


@dataclass(frozen=True)
class Change:
    """What to set, in which states it may be done, and what must hold for the result.

    `visible` paths count: if none of them would differ, nothing is written. `derived` ones
    follow from them. `limits` maps a path to (how many it would hold, how many it may). `event` is
    what Prometheus is told, if anything.
    """

    visible: Mapping[str, Expression]
    derived: Mapping[str, Expression] = field(default_factory=dict)
    states: Sequence[str] = EDITABLE
    limits: Mapping[str, tuple[Expression, int]] = field(default_factory=dict)
    stopped_by_hold: bool = False
    event: str | None = None

    def differs(self) -> Expression:
        return {"$or": [{"$ne": [f"${path}", value]} for path, value in self.visible.items()]}

    def fits(self) -> Expression:
        return {"$and": [{"$lte": [size, most]} for size, most in self.limits.values()]}

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
        return {"$cond": [{"$in": ["$status", literal([*self.states])]}, wanted, False]}

    def judgement(self, key: IdempotencyKey | None = None) -> dict[str, Expression]:
        """Return a projection that tells why this change did not match a conversation."""
        remembered = {"remembered": _remembered(key)} if key else {}
        return remembered | {
            "differs": self.differs(),
            "held": self.is_held(),
            "oversized": {
                "$concatArrays": [
                    {"$cond": [{"$gt": [size, most]}, [literal(path)], []]}
                    for path, (size, most) in self.limits.items()
                ]
            },
        }

    def pipeline(self, origin: Origin, key: IdempotencyKey | None = None) -> Pipeline:
        """Return the update: the change, its revision, and what comes with every change.

        With a key the update is also made where nothing differs, to remember the key.
        """
        stamps = {
            "version": {"$add": ["$version", 1]},
            "metadata.updated_at": _later(),
            "changed_at": _unique(),
            "revisions": self._revisions(origin),
        }
        if key is None:
            return [{"$set": {**self.visible, **self.derived, **stamps}}]
        for path, value in stamps.items():
            stamps[path] = {"$cond": [self.differs(), value, f"${path}"]}
        return [{"$set": {**self.visible, **self.derived, **stamps}}, _remember(key)]

    def _revisions(self, origin: Origin) -> Expression:
        fields = [
            {"path": literal(path), "before": f"${path}", "after": value}
            for path, value in self.visible.items()
        ]
        revision = {
            "version": {"$add": ["$version", 1]},
            "at": _later(),
            "previous_at": "$metadata.updated_at",
            **{name: literal(value) for name, value in vars(origin).items()},
            "changes": {
                "$filter": {"input": fields, "cond": {"$ne": ["$$this.before", "$$this.after"]}}
            },
        }
        return {"$slice": [{"$concatArrays": ["$revisions", [revision]]}, -limits.REVISIONS]}


def _later() -> Expression:
    """Now, but never before the last change, should another primary's clock be behind."""
    return {"$max": [NOW, "$changed_at"]}


def _unique() -> Expression:
    """Later than the last change: time and id tell the change feed one state from another."""
    return {"$max": [NOW, {"$add": ["$changed_at", 1]}]}


def _remember(key: IdempotencyKey) -> dict[str, Any]:
    """Return the stage that keeps a key with the answer it led to, after the change is made.

    The answer may be asked for again when the conversation has long moved on. Of many keys only
    the newest keep theirs; the others still say that their work is done.
    """
    record = {
        "key": literal(key.scope),
        "fingerprint": literal(key.fingerprint),
        "at": NOW,
        "answer": {"_id": "$_id", **{name: f"${name}" for name in PUBLIC}},
    }
    kept = {"$slice": [{"$filter": {"input": "$keys", "cond": _LIVE}}, 1 - limits.KEYS]}
    older = {"$subtract": [{"$size": "$$kept"}, limits.ANSWERS - 1]}
    bare = {"key": "$$this.key", "fingerprint": "$$this.fingerprint", "at": "$$this.at"}
    without_answers = {"$map": {"input": {"$slice": ["$$kept", 0, older]}, "in": bare}}
    newest = {"$slice": ["$$kept", 1 - limits.ANSWERS]}
    parts = [{"$cond": [{"$gt": [older, 0]}, without_answers, []]}, newest, [record]]
    return {"$set": {"keys": {"$let": {"vars": {"kept": kept}, "in": {"$concatArrays": parts}}}}}


def is_new(key: IdempotencyKey) -> Expression:
    """Return whether a conversation does not remember a key."""
    return {"$eq": [_remembered(key), None]}


def _remembered(key: IdempotencyKey) -> Expression:
    this_one = {"$and": [{"$eq": ["$$this.key", literal(key.scope)]}, _LIVE]}
    return {"$ifNull": [{"$first": {"$filter": {"input": "$keys", "cond": this_one}}}, None]}


def literal(value: Any) -> Expression:
    return {"$literal": value}


def _once(path: str) -> Expression:
    """Keep the time that stands there, so that repeating a call changes nothing."""
    return {"$ifNull": [f"${path}", NOW]}


def _in_trash(then: Expression, otherwise: Expression) -> Expression:
    return {"$cond": [{"$eq": ["$status", "deleted"]}, then, otherwise]}


# Whatever leaves the active ones is no longer the only one of its character: see documents.new.
_LEFT = {"only": None}

ARCHIVE = Change(
    {"status": literal("archived"), "archived_at": _once("archived_at")},
    derived=_LEFT,
    event="archived",
)

# From the trash back to where it was; from the archive to the active ones.
RESTORE = Change(
    {
        "status": _in_trash("$previous_status", literal("active")),
        "archived_at": _in_trash("$archived_at", None),
        "deleted_at": None,
        "purge_at": None,
    },
    derived={"previous_status": None},
    states=ANY_STATE,
    event="restored",
)
PIN = Change({"pinned_at": _once("pinned_at")})
UNPIN = Change({"pinned_at": None})


def trash() -> Change:
    purge_at = {"$dateAdd": {"startDate": NOW, "unit": "day", "amount": settings.TRASH_DAYS}}
    return Change(
        {
            "status": literal("deleted"),
            "deleted_at": _once("deleted_at"),
            "purge_at": {"$ifNull": ["$purge_at", purge_at]},
        },
        derived={"previous_status": _in_trash("$previous_status", "$status"), **_LEFT},
        states=ANY_STATE,
        event="trashed",
    )


# What it leaves is tombstone(), no change of this or that field.
PURGE = Change(
    {"status": literal("purged")}, states=("deleted",), stopped_by_hold=True, event="purged"
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
                "status": literal("purged"),
                "changed_at": _unique(),
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


def character_found(name: str) -> Change:
    """The character was looked up after all: automatic titles become its name."""
    title = name
    is_auto = {"$eq": ["$title_source", "auto"]}
    return Change(
        {
            "character_status": literal("verified"),
            "title": {"$cond": [is_auto, literal(title), "$title"]},
        },
        derived={
            "character_name": literal(name),
            "title_key": {"$cond": [is_auto, literal(sort_key(title)), "$title_key"]},
            "search": {"$cond": [is_auto, _search(title=title), "$search"]},
        },
        states=ANY_STATE,
    )


CHARACTER_MISSING = Change({"character_status": literal("missing")}, states=ANY_STATE)


def edit(values: Mapping[str, Any]) -> Change:
    """Return the change for a validated PATCH body; see serializers.PatchSerializer."""
    visible: dict[str, Expression] = {}
    derived: dict[str, Expression] = {}
    sizes: dict[str, tuple[Expression, int]] = {}
    words_of_tags: Expression = None
    event: str | None = None

    if "title" in values:
        visible |= {"title": literal(values["title"]), "title_source": literal("user")}
        derived["title_key"] = literal(sort_key(values["title"]))
    if "settings" in values:
        visible |= _settings(values["settings"])
    if "custom" in values:
        visible["custom"] = custom = _custom(values["custom"])
        sizes["custom"] = ({"$size": {"$objectToArray": custom}}, limits.CUSTOM_KEYS)
    if "tags" in values:
        tags = values["tags"] or []
        visible["tags"] = literal(tags)
        derived |= _keys_of_tags(literal([tag_key(tag) for tag in tags]))
        words_of_tags = literal(searchable(*tags))
    if "tags_add" in values or "tags_remove" in values:
        pairs = _tags(add=values.get("tags_add", []), remove=values.get("tags_remove", []))
        visible["tags"] = _each(pairs, 0)
        derived |= _keys_of_tags(_each(pairs, 1))
        words_of_tags = _each(pairs, 2)
        sizes["tags_add"] = ({"$size": pairs}, limits.TAGS)
    if "pinned" in values:
        visible |= (PIN if values["pinned"] else UNPIN).visible
    if "status" in values:
        visible |= _EDITED_STATUS[values["status"]]
        derived |= _LEFT if values["status"] == "archived" else {}
        event = ARCHIVE.event if values["status"] == "archived" else RESTORE.event
    if "title" in values or words_of_tags:
        derived["search"] = _search(title=values.get("title"), tags=words_of_tags)
    return Change(visible, derived, limits=sizes, event=event)


def revert(then: Mapping[str, Any], names: Iterable[str]) -> Change:
    """Return the change of the named fields to what they were in a former version."""
    visible: dict[str, Expression] = {}
    derived: dict[str, Expression] = {}
    for name in names:
        if name == "settings":
            visible |= _settings(then["settings"])
        elif name == "pinned":
            visible["pinned_at"] = literal(then["pinned_at"])
        else:
            visible[name] = literal(then[name])
        if name == "title":
            visible["title_source"] = literal(then["title_source"])
            derived["title_key"] = literal(sort_key(then["title"]))
        if name == "tags":
            derived |= _keys_of_tags(literal([tag_key(tag) for tag in then["tags"]]))
    if "title" in visible or "tags" in visible:
        derived["search"] = _search(
            title=then["title"] if "title" in visible else None,
            tags=literal(searchable(*then["tags"])) if "tags" in visible else None,
        )
    return Change(visible, derived)


_EDITED_STATUS = {
    "archived": ARCHIVE.visible,
    "active": {"status": literal("active"), "archived_at": None},
}


@dataclass(frozen=True)
class Activity:
    """What the Message service reports of a conversation: totals, and which report it is."""

    sequence: int
    message_count: int
    total_tokens: int
    total_input_tokens: int
    total_output_tokens: int
    first_message_at: datetime | None
    last_message_at: datetime | None

    def totals(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "sequence"}


def report(
    activity: Activity, *, unarchive: bool = False, batch: ObjectId | None = None
) -> Pipeline:
    """Return the pipeline that stores a report; the filter lets only a later one through.

    Totals are absolute, so a report may be lost, repeated or late. It moves `last_activity` but
    no version: only `unarchive`, which brings an archived conversation with new messages back,
    is a change that counts as one.
    """
    [stage] = repair(activity.totals())
    stage["$set"] |= {
        "activity_sequence": literal(activity.sequence),
        "activity_batch": literal(batch),
    }
    if unarchive:
        stage["$set"] |= _unarchive_if_new(activity.message_count)
    return [stage]


def repair(totals: Mapping[str, Any]) -> Pipeline:
    """Return the pipeline that sets totals, whoever counted them."""
    last = {"$max": ["$metadata.last_activity", literal(totals["last_message_at"])]}
    return [{"$set": {**_totals(totals), "metadata.last_activity": last, "changed_at": _unique()}}]


def totals_differ(totals: Mapping[str, Any]) -> Expression:
    return Change(_totals(totals)).differs()


def _totals(totals: Mapping[str, Any]) -> dict[str, Expression]:
    return {f"metadata.{name}": literal(value) for name, value in totals.items()}


def _unarchive_if_new(message_count: int) -> dict[str, Expression]:
    is_new = {
        "$and": [
            {"$eq": ["$status", "archived"]},
            {"$gt": [literal(message_count), "$metadata.message_count"]},
        ]
    }
    change = {
        "status": literal("active"),
        "archived_at": None,
        "version": {"$add": ["$version", 1]},
        "metadata.updated_at": _later(),
    }
    return {path: {"$cond": [is_new, new, f"${path}"]} for path, new in change.items()}


def _settings(patch: Mapping[str, Any] | None) -> dict[str, Expression]:
    """One path a setting, so that two devices that change different ones both win."""
    defaults = default_settings()
    chosen = defaults if patch is None else patch
    return {
        f"settings.{name}": literal(defaults[name] if value is None else value)
        for name, value in chosen.items()
    }


def _custom(patch: Mapping[str, str | None] | None) -> Expression:
    """Merge key by key, as RFC 7396 says: null takes a key away."""
    if patch is None:
        return literal({})
    removed = [key for key, value in patch.items() if value is None]
    kept = {
        "$filter": {
            "input": {"$objectToArray": "$custom"},
            "cond": {"$not": [{"$in": ["$$this.k", literal(removed)]}]},
        }
    }
    given = {key: value for key, value in patch.items() if value is not None}
    return {"$mergeObjects": [{"$arrayToObject": kept}, literal(given)]}


def _tags(*, add: Sequence[str], remove: Sequence[str]) -> Expression:
    """Return [tag, key, words] each: those that stay, then the new ones that are not there yet."""
    words = {"$concatArrays": [_SEARCH_TAGS, literal(searchable("") * limits.TAGS)]}
    stored = {"$zip": {"inputs": ["$tags", "$tag_keys", words]}}  # as long as the shortest
    gone = literal([tag_key(tag) for tag in remove])
    stay = {
        "$filter": {
            "input": stored,
            "cond": {"$not": [{"$in": [{"$arrayElemAt": ["$$this", 1]}, gone]}]},
        }
    }
    new = {
        "$filter": {
            "input": literal([[tag, tag_key(tag), *searchable(tag)] for tag in add]),
            "cond": {"$not": [{"$in": [{"$arrayElemAt": ["$$this", 1]}, "$tag_keys"]}]},
        }
    }
    return {"$concatArrays": [stay, new]}


# The words of the title, and those of the tags. A document from before there was search has
# neither until manage.py reindex_search has seen it.
_STORED_SEARCH = {"$ifNull": ["$search", literal(searchable(""))]}
_SEARCH_TITLE = {"$slice": [_STORED_SEARCH, 1]}
_SEARCH_TAGS = {"$slice": [_STORED_SEARCH, 1, limits.TAGS]}


def _search(*, title: str | None = None, tags: Expression = None) -> Expression:
    """Return the words of a new title and of new tags; what is not given keeps its own."""
    return {
        "$concatArrays": [
            _SEARCH_TITLE if title is None else literal(searchable(title)),
            tags or _SEARCH_TAGS,
        ]
    }


def _keys_of_tags(keys: Expression) -> dict[str, Expression]:
    """Return what follows from tags with these keys; see documents.tag_line."""
    separated = {
        "$cond": [{"$eq": ["$$value", ""]}, "$$this", {"$concat": ["$$value", "\n", "$$this"]}]
    }
    line = {
        "$reduce": {
            "input": {"$sortArray": {"input": keys, "sortBy": 1}},
            "initialValue": "",
            "in": separated,
        }
    }
    return {"tag_keys": keys, "tag_line": line}


def _each(pairs: Expression, index: int) -> Expression:
    return {"$map": {"input": pairs, "in": {"$arrayElemAt": ["$$this", index]}}}
