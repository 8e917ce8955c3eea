"""Indexes and validator for the collection `conversations`; `manage.py setup_indexes` applies them.

The validator derives from the models and repeats the serializers' bounds, for writes that bypass
the API. It ignores a deployment's ceilings, which can be lowered below stored values.

Only the fields that identify a conversation are required: another release can omit the
others, and a reader sees their defaults. Undeclared fields are allowed: a newer release can write
them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from django.db.models import (
    CharField,
    DateTimeField,
    Field,
    FloatField,
    IntegerField,
    JSONField,
    TextField,
)
from django_mongodb_backend.fields import ArrayField, ObjectIdField
from pymongo import DESCENDING, IndexModel

from conversation_service.mongodb.collections import CollectionSchema
from conversations import limits
from conversations.declaration import Declaration, Entries, declarations
from conversations.documents import FIELDS, FILTER_KEYS, SORT_KEYS
from conversations.states import ACTIVE, DELETED, PURGED

INDEXES = [
    # The list: an index for each sort, for both directions. The fields after `_id` cover the
    # filters, so that only returned documents are read.
    *(
        IndexModel(
            ["user_id", "status", (path, DESCENDING), ("_id", DESCENDING), *FILTER_KEYS],
            name=f"list_{sort}",
        )
        for sort, path in SORT_KEYS.items()
    ),
    # A character's list by last activity, and each character's latest conversation.
    # The fields after `_id` cover the counts in summary and overview.
    IndexModel(
        [
            "user_id",
            "character_id",
            "status",
            ("metadata.last_activity", DESCENDING),
            ("_id", DESCENDING),
            "tag_line",
            "metadata.message_count",
            "metadata.total_tokens",
            "metadata.last_message_at",
        ],
        name="user_characters",
    ),
    # The change feed with tombstones. A snapshot excludes them in the index.
    IndexModel(["user_id", "changed_at", "_id", "status"], name="user_changes"),
    # The list with ?search=, or with ?tags= and a time, and tags by prefix. Without a sort key:
    # each activity report would move a key for every word.
    IndexModel(["user_id", "search.words"], name="user_words"),
    # The pins in the overview.
    IndexModel(
        ["user_id", "status", ("pinned_at", DESCENDING), ("_id", DESCENDING)],
        name="user_status_pinned",
        partialFilterExpression={"pinned_at": {"$type": "date"}},
    ),
    # A repeated request finds its idempotency key, and cannot store the key twice.
    IndexModel(
        ["user_id", "keys.key"],
        name="idempotency_keys",
        unique=True,
        partialFilterExpression={"keys.key": {"$exists": True}},
    ),
    # get_or_create: at most one active conversation per character.
    IndexModel(
        ["user_id", "only"],
        name="only_of_character",
        unique=True,
        partialFilterExpression={"only": {"$type": "string"}},
    ),
    # manage.py verify_characters: the characters to look up.
    IndexModel(
        ["character_id"],
        name="unverified_characters",
        partialFilterExpression={"character_status": "unverified"},
    ),
    # The console: the newest in a state, for a user or for all, and titles by prefix.
    IndexModel(["status", ("_id", DESCENDING)], name="staff_status"),
    IndexModel(["user_id", "status", ("_id", DESCENDING)], name="staff_user"),
    IndexModel(["status", "title_key", ("_id", DESCENDING)], name="staff_title"),
    # The console: legal holds. See queries/staff.py.
    IndexModel(
        ["status", ("_id", DESCENDING)],
        name="staff_held",
        partialFilterExpression={"hold.at": {"$gt": limits.EPOCH}},
    ),
    # manage.py purge_trash and apply_retention: due conversations, for all users.
    IndexModel(["purge_at", "_id"], name="trash_due", partialFilterExpression={"status": DELETED}),
    IndexModel(
        ["metadata.last_activity", "_id"],
        name="active_idle",
        # The planner never considers this index for a user's list, which has no hold in its filter.
        partialFilterExpression={"status": ACTIVE, "pinned_at": None, "hold": None},
    ),
    # MongoDB removes tombstones when the change feed no longer needs them.
    IndexModel(
        ["expires_at"],
        name="purged_expiry",
        expireAfterSeconds=0,
        partialFilterExpression={"status": PURGED},
    ),
]


def _whole(pattern: str) -> str:
    return rf"^{pattern}\z"  # $ would accept a line break at the end


def _array(items: dict[str, Any], max_items: int | None) -> dict[str, Any]:
    return {"bsonType": "array", "maxItems": max_items, "items": items}


def _object(properties: dict[str, Any], required: Sequence[str] = ()) -> dict[str, Any]:
    rule = {"bsonType": "object", "properties": properties}
    return rule | ({"required": [*required]} if required else {})


def _rules(fields: Mapping[str, Declaration]) -> dict[str, Any]:
    return {name: _rule(field) for name, field in fields.items()}


def _rule(declared: Declaration) -> dict[str, Any]:
    """Return a field's rule: its type and its bounds."""
    if declared.choices and not isinstance(declared.field, ArrayField):
        return {"enum": [*declared.choices, *([None] if declared.field.null else [])]}
    if declared.embedded:
        return _object(_rules(declarations(declared.embedded)))
    if declared.entries:
        return _entries(declared.entries)
    rule = _typed(declared.field, declared)
    if declared.field.null:
        types = rule["bsonType"]
        rule["bsonType"] = [*(types if isinstance(types, list) else [types]), "null"]
    return rule


def _entries(entries: Entries) -> dict[str, Any]:
    value: dict[str, Any] = {"bsonType": "string", "maxLength": entries.max_length}
    if entries.any_scalar:
        value["bsonType"] = ["string", "bool", *_NUMBER]
        value |= {"minimum": -limits.MAX_COUNT, "maximum": limits.MAX_COUNT}  # and no NaN
    return {
        "bsonType": "object",
        "maxProperties": entries.max_keys,
        "additionalProperties": False,
        "patternProperties": {_whole(entries.key): value},
    }


def _typed(field: Field, declared: Declaration) -> dict[str, Any]:
    if isinstance(field, ArrayField):
        return _array(_typed(field.base_field, declared), declared.max_items)
    bson_type = next((name for kind, name in _BSON_TYPES if isinstance(field, kind)), "object")
    bounds = {"minimum": declared.minimum, "maximum": declared.maximum}
    rule: dict[str, Any] = {"bsonType": bson_type}
    rule |= {name: b for name, b in bounds.items() if b is not None}
    if isinstance(field, JSONField) and field is declared.field and declared.max_items:
        rule["maxProperties"] = declared.max_items
        rule["additionalProperties"] = {"bsonType": "object"}
    return rule | _text(field, declared)


def _text(field: Field, declared: Declaration) -> dict[str, Any]:
    """Return a text's bounds. As in the API, a CharField is a single line."""
    if declared.pattern and field is declared.field:
        return {"pattern": _whole(declared.pattern)}  # the pattern has the length
    rule: dict[str, Any] = {}
    if field.max_length:
        rule |= {"minLength": 1, "maxLength": field.max_length}
    if isinstance(field, CharField):
        rule["pattern"] = _whole(declared.pattern or _ONE_LINE)
    return rule


_NUMBER = ["double", "int", "long"]
_BSON_TYPES: Sequence[tuple[Any, str | list[str]]] = [
    (FloatField, _NUMBER),
    (IntegerField, ["int", "long"]),
    (DateTimeField, "date"),
    (ObjectIdField, "objectId"),
    ((CharField, TextField), "string"),
]
_ONE_LINE = r"[^\p{Cc}\p{Zl}\p{Zp}]+"
_SPECIAL = {
    "search": _array(
        _object({"words": {"bsonType": "array", "items": {"bsonType": "string"}}}, ["words"]),
        1 + limits.TAGS,
    ),
}

CONVERSATION = _object(
    {"_id": {"bsonType": "objectId"}, **_rules(FIELDS), **_SPECIAL},
    required=["_id", "user_id", "status"],
)

TOMBSTONE = {
    "additionalProperties": False,
    **_object(
        {
            "_id": {"bsonType": "objectId"},
            "user_id": _rule(FIELDS["user_id"]),
            "status": {"enum": [PURGED]},
            "changed_at": {"bsonType": "date"},
            "expires_at": {"bsonType": "date"},
            "mark": {"bsonType": "objectId"},
        },
        required=["_id", "user_id", "status", "changed_at", "expires_at"],
    ),
}

COLLECTIONS = [
    CollectionSchema(
        "conversations",
        indexes=INDEXES,
        validator={"$jsonSchema": {"oneOf": [CONVERSATION, TOMBSTONE]}},
        shard_key={"user_id": 1},
    )
]
