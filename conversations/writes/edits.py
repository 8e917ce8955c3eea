"""The changes that users compose: PATCH, and going back to a former version.

Which fields a request has makes the template; what they hold makes the values.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from conversations import limits, states
from conversations.documents import (
    DEFAULTS,
    PLAIN_FIELDS,
    SETTINGS,
    default_settings,
    searchable,
    stored,
    tag_line,
)
from conversations.words import tag_key
from conversations.writes.changes import (
    ARCHIVE,
    PIN,
    RESTORE,
    UNPIN,
    WORDS_OF_TAGS,
    Change,
    Expression,
    Template,
    literal,
    search,
    titled,
)

# The name of a part, see _PARTS, and what the part finds in `$$values`.
Part = tuple[str, dict[str, Any]]


def edit(patch: Mapping[str, Any]) -> Change:
    """Return the change for a validated PATCH body; see serializers.PatchSerializer."""
    return _composed(_patched(patch))


def revert(then: Mapping[str, Any], names: Iterable[str]) -> Change:
    """Return the change of the named fields to what they were in a former version."""
    return _composed(part for name in names for part in _reverted(name, then))


def _composed(parts: Iterable[Part]) -> Change:
    names: list[str] = []
    values: dict[str, Any] = {}
    for name, brought in parts:
        names.append(name)
        values |= brought
    return Change(_template(*names), values)


@lru_cache(maxsize=256)
def _template(*names: str) -> Template:
    parts = [_PARTS[name] for name in names]
    derived = _union(part.derived for part in parts)
    if words := _WORDS.keys() & set(names):
        derived["search"] = search(**_union(_WORDS[name] for name in words))
    return Template(
        _union(part.visible for part in parts),
        derived,
        limits=_union(part.limits for part in parts),
        event=next((part.event for part in parts if part.event), None),
    )


def _union(mappings: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    return {key: value for mapping in mappings for key, value in mapping.items()}


def _patched(patch: Mapping[str, Any]) -> Iterator[Part]:
    if "title" in patch:
        yield "title", titled(patch["title"]) | {"title_source": "user"}
    if "settings" in patch:
        yield from _patched_settings(patch["settings"])
    if "custom" in patch:
        yield _custom(patch["custom"])
    if "tags" in patch:
        yield "tags", _tags(patch["tags"] or [])
    if "tags_add" in patch or "tags_remove" in patch:
        yield "some_tags", _some_tags(patch.get("tags_add", []), patch.get("tags_remove", []))
    if "pinned" in patch:
        yield ("pinned" if patch["pinned"] else "unpinned"), {}
    if "status" in patch:
        yield patch["status"], {}
    for name in PLAIN_FIELDS:
        if name in patch:
            yield name, {name: DEFAULTS[name] if patch[name] is None else patch[name]}


def _reverted(name: str, then: Mapping[str, Any]) -> Iterator[Part]:
    match name:
        case "title":
            yield "title", titled(then["title"]) | {"title_source": then["title_source"]}
        case "settings":
            for setting in SETTINGS:  # a newer release may have stored more
                yield f"settings.{setting}", {setting: then["settings"][setting]}
        case "tags":
            yield "tags", _tags(then["tags"])
        case "custom":
            yield "custom", {"custom": then["custom"]}
        case "pinned":
            yield "pinned_at", {"pinned_at": then["pinned_at"]}
        case _:
            yield name, {name: then[name]}


def _patched_settings(patch: Mapping[str, Any] | None) -> Iterator[Part]:
    """Yield a part for each setting, so that devices that change different ones do not conflict.

    A value above this deployment's ceiling is accepted only if it is the stored one.
    """
    for name, value in (default_settings() if patch is None else patch).items():
        new = SETTINGS[name].default_for_new if value is None else value
        part = "unchanged" if SETTINGS[name].exceeds_ceiling(new) else "settings"
        yield f"{part}.{name}", {name: new}


def _custom(patch: Mapping[str, str | None] | None) -> Part:
    """Merge key by key, as RFC 7396 says: null takes a key away."""
    if patch is None:
        return "custom", {"custom": {}}
    given = {key: value for key, value in patch.items() if value is not None}
    return "some_custom", {"given": given, "removed": [key for key in patch if key not in given]}


def _tags(tags: Sequence[str]) -> dict[str, Any]:
    keys = [tag_key(tag) for tag in tags]
    return {
        "tags": tags,
        "tag_keys": keys,
        "tag_line": tag_line(keys),
        "words_of_tags": [searchable(tag) for tag in tags],
    }


def _some_tags(add: Sequence[str], remove: Sequence[str]) -> dict[str, Any]:
    """Return the tags to add, those that replace a removed spelling last, and the keys to remove.

    The database appends them in this order. With any other order, the same request sent again
    would move a tag, and so make a new version.
    """
    removed = [tag_key(tag) for tag in remove]
    added = sorted(add, key=lambda tag: tag_key(tag) in removed)
    return {
        "added": [[tag, tag_key(tag), searchable(tag)] for tag in added],
        "removed_tags": removed,
    }


def _key_not_in(keys: Expression) -> Expression:
    """Return whether the key of `$$this`, a row [tag, key, words], is none of these keys."""
    return {"$not": [{"$in": [{"$arrayElemAt": ["$$this", 1]}, keys]}]}


def _tags_after_edit() -> Expression:
    """Return rows [tag, key, words]: remove first, then append the added tags not among the rest.

    So a tag that is both removed and added gets its new spelling.
    """
    tags = stored("tags")
    # Without keys, those of ASCII tags; manage.py reindex_search makes the others.
    keys = {"$ifNull": ["$tag_keys", {"$map": {"input": tags, "in": {"$toLower": "$$this"}}}]}
    words = {"$concatArrays": [WORDS_OF_TAGS, literal([searchable("")] * limits.TAGS)]}
    rows = {"$zip": {"inputs": [tags, keys, words]}}  # as long as the shortest
    kept = {"$filter": {"input": rows, "cond": _key_not_in("$$values.removed_tags")}}
    new = {"$filter": {"input": "$$values.added", "cond": _key_not_in(_each("$$kept", 1))}}
    return {"$let": {"vars": {"kept": kept}, "in": {"$concatArrays": ["$$kept", new]}}}


def _each(rows: Expression, index: int) -> Expression:
    return {"$map": {"input": rows, "in": {"$arrayElemAt": ["$$this", index]}}}


def _line(keys: Expression) -> Expression:
    """As documents.tag_line, of keys that are known to the database only."""
    separated = {
        "$cond": [{"$eq": ["$$value", ""]}, "$$this", {"$concat": ["$$value", "\n", "$$this"]}]
    }
    return {
        "$reduce": {
            "input": {"$sortArray": {"input": keys, "sortBy": 1}},
            "initialValue": "",
            "in": separated,
        }
    }


def _custom_then() -> Expression:
    kept = {
        "$filter": {
            "input": {"$objectToArray": stored("custom")},
            "cond": {"$not": [{"$in": ["$$this.k", "$$values.removed"]}]},
        }
    }
    return {"$mergeObjects": [{"$arrayToObject": kept}, "$$values.given"]}


_SOME_TAGS = _tags_after_edit()
_SOME_CUSTOM = _custom_then()

_PARTS = {
    "title": Template(
        {"title": "$$values.title", "title_source": "$$values.title_source"},
        {"title_key": "$$values.title_key"},
    ),
    **{f"settings.{name}": Template({f"settings.{name}": f"$$values.{name}"}) for name in SETTINGS},
    **{
        f"unchanged.{name}": Template(
            {},
            limits={f"settings.{name}": {"$eq": [stored(f"settings.{name}"), f"$$values.{name}"]}},
        )
        for name in SETTINGS
    },
    **{name: Template({name: f"$$values.{name}"}) for name in PLAIN_FIELDS},
    "custom": Template({"custom": "$$values.custom"}),
    "some_custom": Template(
        {"custom": _SOME_CUSTOM},
        limits={
            "custom": {"$lte": [{"$size": {"$objectToArray": _SOME_CUSTOM}}, limits.CUSTOM_KEYS]}
        },
    ),
    "tags": Template(
        {"tags": "$$values.tags"},
        {"tag_keys": "$$values.tag_keys", "tag_line": "$$values.tag_line"},
    ),
    "some_tags": Template(
        {"tags": _each(_SOME_TAGS, 0)},
        {"tag_keys": _each(_SOME_TAGS, 1), "tag_line": _line(_each(_SOME_TAGS, 1))},
        limits={"tags_add": {"$lte": [{"$size": _SOME_TAGS}, limits.TAGS]}},
    ),
    "pinned": PIN.template,
    "unpinned": UNPIN.template,
    "pinned_at": Template({"pinned_at": "$$values.pinned_at"}),
    states.ARCHIVED: ARCHIVE.template,
    states.ACTIVE: Template(
        {"status": states.ACTIVE, "archived_at": None}, event=RESTORE.template.event
    ),
}
# What a part says of `search`.
_WORDS: dict[str, dict[str, Expression]] = {
    "title": {"of_title": "$$values.words_of_title"},
    "tags": {"of_tags": "$$values.words_of_tags"},
    "some_tags": {"of_tags": _each(_SOME_TAGS, 2)},
}
