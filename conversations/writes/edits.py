"""The updates that users compose: PATCH, and the revert to an earlier version."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from conversations import limits
from conversations.declaration import Ceiling
from conversations.documents import (
    DEFAULTS,
    PLAIN_FIELDS,
    SETTINGS,
    WITH_CEILING,
    stored,
)
from conversations.states import ACTIVE, ARCHIVED
from conversations.words import searchable, sort_key, tag_key, tag_line
from conversations.writes.updates import (
    ARCHIVE,
    PIN,
    STORED_TAG_WORDS,
    UNARCHIVE,
    UNPIN,
    Expression,
    Limit,
    Update,
    UpdateTemplate,
)


def edit(patch: Mapping[str, Any]) -> Update:
    """Return the update for a validated PATCH body; see serializers.PatchSerializer."""
    updates = [_EDIT]
    if "title" in patch:
        updates.append(_title(patch["title"], "user"))
    if "settings" in patch:
        updates += _settings(patch["settings"])
    if "custom" in patch:
        if patch["custom"] is None:
            updates.append(Update((_CUSTOM,), {"custom": {}}))
        else:
            updates.append(_merge(_CUSTOM_MERGED, "custom", patch["custom"]))
    if "tags" in patch:
        updates.append(_tags(patch["tags"] or []))
    if "tags_add" in patch or "tags_remove" in patch:
        updates.append(_tag_changes(patch.get("tags_add", ()), patch.get("tags_remove", ())))
    if "pinned" in patch:
        updates.append(PIN if patch["pinned"] else UNPIN)
    if "status" in patch:
        updates.append({ACTIVE: UNARCHIVE, ARCHIVED: ARCHIVE}[patch["status"]])
    for name, template in _PLAIN.items():
        if name in patch:
            value = DEFAULTS[name] if patch[name] is None else patch[name]
            updates.append(Update((template,), {name: value}))
    return _combined(updates)


def revert(earlier: Mapping[str, Any], names: Iterable[str]) -> Update:
    """Return the update that restores the named fields from an earlier version."""
    updates = [_EDIT]
    for name in dict.fromkeys(names):
        match name:
            case "title":
                updates.append(_title(earlier["title"], earlier["title_source"]))
            case "settings":
                # A newer release may have stored more settings.
                updates += [
                    Update((_SETTINGS[setting],), {setting: earlier["settings"][setting]})
                    for setting in _SETTINGS
                ]
                given = {"settings_given": earlier["settings_given"]}
                updates.append(Update((_SETTINGS_GIVEN,), given))
            case "tags":
                updates.append(_tags(earlier["tags"]))
            case "custom":
                updates.append(Update((_CUSTOM,), {"custom": earlier["custom"]}))
            case "pinned":
                updates.append(Update((_PINNED_AT,), {"pinned_at": earlier["pinned_at"]}))
            case _:
                updates.append(Update((_PLAIN[name],), {name: earlier[name]}))
    return _combined(updates)


def _combined(updates: Iterable[Update]) -> Update:
    templates: list[UpdateTemplate] = []
    values: dict[str, Any] = {}
    for update in updates:
        templates += update.templates
        values |= update.values
    return Update(tuple(templates), values)


# Contributes the states in which edits are possible, also to an edit without fields.
_EDIT = Update((UpdateTemplate(),))

_TITLE = UpdateTemplate(
    {"title": "$$values.title", "title_source": "$$values.title_source"},
    {"title_key": "$$values.title_key"},
    title_words="$$values.title_words",
)


def title_values(title: str) -> dict[str, Any]:
    """Return the `$$values` for a title: the text, its sort key and its words."""
    return {"title": title, "title_key": sort_key(title), "title_words": [searchable(title)]}


def _title(title: str, source: str) -> Update:
    return Update((_TITLE,), title_values(title) | {"title_source": source})


# An edit of these fields replaces the value.
_PLAIN = {name: UpdateTemplate({name: f"$$values.{name}"}) for name in PLAIN_FIELDS}


def _setting(name: str, value: Expression, limit: Limit | None = None) -> UpdateTemplate:
    """Return the template that sets a setting; see documents.stored_settings."""
    path = f"settings.{name}"
    is_default = {"$eq": [value, {"$literal": DEFAULTS["settings"][name]}]}
    stored_form = {path: {"$cond": [is_default, "$$REMOVE", value]}}
    return UpdateTemplate(
        {path: value},
        stored_form if SETTINGS[name].since else {},
        limits={path: limit} if limit else {},
    )


def _after_merge(path: str) -> Expression:
    """Return an expression that merges `$$values.NAME_set` into an object by key (RFC 7396)."""
    name = path.rpartition(".")[2]
    removed = f"$$values.{name}_removed"
    kept = {
        "$filter": {
            "input": {"$objectToArray": stored(path)},
            "cond": {"$not": [{"$in": ["$$this.k", removed]}]},
        }
    }
    return {"$mergeObjects": [{"$arrayToObject": kept}, f"$$values.{name}_set"]}


def _max_keys(maximum: int, value: Expression) -> Limit:
    return Limit({"$lte": [{"$size": {"$objectToArray": value}}, maximum]}, maximum)


def _merge(template: UpdateTemplate, name: str, patch: Mapping[str, Any]) -> Update:
    """Return the update for a merge patch of an object, in which a null removes a key."""
    kept = {key: value for key, value in patch.items() if value is not None}
    removed = [key for key in patch if key not in kept]
    return Update((template,), {f"{name}_set": kept, f"{name}_removed": removed})


_SETTINGS_GIVEN = UpdateTemplate({"settings_given": "$$values.settings_given"})


def _given_after_patch() -> Expression:
    """Return the stored names with `$$values.settings_named`, without `settings_reset`, in order.

    Names from a newer release stay, at the end.
    """
    given = stored("settings_given")
    names = {"$literal": [*SETTINGS]}
    stays = {"$and": [_in(given), {"$not": [_in("$$values.settings_reset")]}]}
    is_given = {"$or": [_in("$$values.settings_named"), stays]}
    return {
        "$concatArrays": [
            {"$filter": {"input": names, "cond": is_given}},
            {"$filter": {"input": given, "cond": {"$not": [_in(names)]}}},
        ]
    }


def _in(names: Expression) -> Expression:
    return {"$in": ["$$this", names]}


_SETTINGS_NAMED = UpdateTemplate({"settings_given": _given_after_patch()})


def _merged_setting(name: str, max_keys: int) -> UpdateTemplate:
    after = _after_merge(f"settings.{name}")
    return _setting(name, after, _max_keys(max_keys, after))


# A template for each setting, so that devices that change different settings do not conflict.
_SETTINGS = {name: _setting(name, f"$$values.{name}") for name in SETTINGS}
# For objects with free keys: devices that change different keys do not conflict.
_SETTINGS_MERGED = {
    name: _merged_setting(name, setting.entries.max_keys)
    for name, setting in SETTINGS.items()
    if setting.entries
}


def _ceiling(name: str) -> Expression:
    """Return an expression for the maximum of the stored model in `$$values.NAME_ceilings`."""
    model = {"$ifNull": [stored("settings.model"), ""]}
    begins_so = {"$eq": [{"$indexOfCP": [model, "$$this.start"]}, 0]}
    is_whole = {"$or": ["$$this.is_prefix", {"$eq": ["$$this.start", model]}]}
    applies = {"$and": [begins_so, is_whole]}
    ceilings = {"$filter": {"input": f"$$values.{name}_ceilings", "cond": applies}}
    return {"$let": {"vars": {"first": {"$first": ceilings}}, "in": "$$first.maximum"}}


def _within_ceiling(name: str) -> UpdateTemplate:
    """Return the template for a value that must not exceed the ceiling, unless already stored."""
    value = f"$$values.{name}"
    is_stored = {"$eq": [stored(f"settings.{name}"), value]}
    is_within = {"$or": [is_stored, {"$lte": [value, _ceiling(name)]}]}
    return _setting(name, value, Limit(is_within, _ceiling(name)))


_SETTINGS_WITHIN_CEILING = {name: _within_ceiling(name) for name in WITH_CEILING}
_DEFAULTS_WITHIN_CEILING = {
    name: _setting(name, {"$min": [f"$$values.{name}", _ceiling(name)]}) for name in WITH_CEILING
}


def _settings(patch: Mapping[str, Any] | None) -> Iterator[Update]:
    """Yield the updates for a PATCH of settings; null sets the default for new conversations.

    The ceilings are those of the model that the conversation has afterwards: the model in the
    patch, or else the stored one, which the same statement reads. Values that the patch does not
    change stay, also above the ceilings of a new model.
    """
    patch = dict.fromkeys(SETTINGS) if patch is None else patch
    if patch:
        named = [name for name, sent in patch.items() if sent is not None]
        reset = [name for name in patch if name not in named]
        values = {"settings_named": named, "settings_reset": reset}
        yield Update((_SETTINGS_NAMED,), values)
    for name, sent in patch.items():
        value = DEFAULTS["settings"][name] if sent is None else sent
        if name in _SETTINGS_MERGED and sent is not None:
            yield _merge(_SETTINGS_MERGED[name], name, sent)
        elif name in WITH_CEILING:
            ceilings = SETTINGS[name].ceilings
            if "model" in patch:
                applying = next(c for c in ceilings if c.applies_to(patch["model"]))
                ceilings = [Ceiling("", True, applying.maximum)]
            if value <= min(ceiling.maximum for ceiling in ceilings):
                template = _SETTINGS[name]
            elif sent is None:
                template = _DEFAULTS_WITHIN_CEILING[name]
            else:
                template = _SETTINGS_WITHIN_CEILING[name]
            yield Update((template,), {name: value, f"{name}_ceilings": [*map(vars, ceilings)]})
        else:
            yield Update((_SETTINGS[name],), {name: value})


_CUSTOM = UpdateTemplate({"custom": "$$values.custom"})

_CUSTOM_AFTER_MERGE = _after_merge("custom")
_CUSTOM_MERGED = UpdateTemplate(
    {"custom": _CUSTOM_AFTER_MERGE},
    limits={"custom": _max_keys(limits.CUSTOM_KEYS, _CUSTOM_AFTER_MERGE)},
)


_TAGS = UpdateTemplate(
    {"tags": "$$values.tags"},
    {"tag_keys": "$$values.tag_keys", "tag_line": "$$values.tag_line"},
    tag_words="$$values.tag_words",
)


def _tags(tags: Sequence[str]) -> Update:
    keys = [tag_key(tag) for tag in tags]
    return Update(
        (_TAGS,),
        {
            "tags": tags,
            "tag_keys": keys,
            "tag_line": tag_line(keys),
            "tag_words": [searchable(key) for key in keys],
        },
    )


def _tag_changes(add: Sequence[str], remove: Sequence[str]) -> Update:
    """Add and remove tags. A tag that is both added and removed gets the added spelling.

    The database appends the added tags in order; tags that replace a removed spelling come last. In
    any other order, a repeated request would move a tag and make a new version.
    """
    removed = [tag_key(tag) for tag in remove]
    added = sorted(add, key=lambda tag: tag_key(tag) in removed)
    return Update(
        (_TAGS_CHANGED,),
        {
            "tags_added": [[tag, key := tag_key(tag), searchable(key)] for tag in added],
            "tags_removed": removed,
        },
    )


def _rows_after_tag_changes() -> Expression:
    """Return rows [tag, key, words]: the stored tags that are not removed, then the new ones."""
    tags = stored("tags")
    # Without stored keys, lower case is right for ASCII tags; manage.py reindex_search derives the
    # other keys.
    keys = {"$ifNull": ["$tag_keys", {"$map": {"input": tags, "in": {"$toLower": "$$this"}}}]}
    empty_words = {"$literal": [searchable("")] * limits.TAGS}
    words = {"$concatArrays": [STORED_TAG_WORDS, empty_words]}
    stored_rows = {"$zip": {"inputs": [tags, keys, words]}}  # as long as the shortest
    key = {"$arrayElemAt": ["$$this", 1]}
    is_kept = {"$not": [{"$in": [key, "$$values.tags_removed"]}]}
    is_new = {"$not": [{"$in": [key, _column("$$kept", 1)]}]}
    return {
        "$let": {
            "vars": {"kept": {"$filter": {"input": stored_rows, "cond": is_kept}}},
            "in": {
                "$concatArrays": [
                    "$$kept",
                    {"$filter": {"input": "$$values.tags_added", "cond": is_new}},
                ]
            },
        }
    }


def _column(rows: Expression, index: int) -> Expression:
    return {"$map": {"input": rows, "in": {"$arrayElemAt": ["$$this", index]}}}


def _sorted_lines(keys: Expression) -> Expression:
    """Return the expression that computes words.tag_line in the database."""
    line_break = {"$cond": [{"$eq": ["$$value", ""]}, "", "\n"]}
    return {
        "$reduce": {
            "input": {"$sortArray": {"input": keys, "sortBy": 1}},
            "initialValue": "",
            "in": {"$concat": ["$$value", line_break, "$$this"]},
        }
    }


_TAG_ROWS = _rows_after_tag_changes()
_TAGS_CHANGED = UpdateTemplate(
    {"tags": _column(_TAG_ROWS, 0)},
    {"tag_keys": _column(_TAG_ROWS, 1), "tag_line": _sorted_lines(_column(_TAG_ROWS, 1))},
    tag_words=_column(_TAG_ROWS, 2),
    limits={"tags_add": Limit({"$lte": [{"$size": _TAG_ROWS}, limits.TAGS]}, maximum=limits.TAGS)},
)

_PINNED_AT = UpdateTemplate({"pinned_at": "$$values.pinned_at"})
