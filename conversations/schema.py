"""What the collection of conversations must look like in MongoDB: its indexes and its validator.

`manage.py setup_indexes` applies it. The validator repeats the bounds of the serializers, so that
what reaches the database by another way than the API cannot be worse. It does not check a
deployment's ceilings, as they may be lowered below stored values.

Only the fields that identify a conversation are required. A document that lacks another field,
because another release wrote it, reads with the default of that field (documents.DEFAULTS) and can
be edited. Fields that are not declared are allowed: a newer release may have written them.
"""

from collections.abc import Sequence
from typing import Any

from pymongo import ASCENDING, DESCENDING, IndexModel

from conversation_service import external_ids
from conversation_service.mongodb.collections import CollectionSchema
from conversations import limits
from conversations.documents import FILTER_KEYS, SORT_KEYS
from conversations.states import ACTIVE, ANY_STATE, DELETED, EDITABLE, PURGED

INDEXES = [
    # The list: one for each sort; read backwards, it serves the ascending order too. With what
    # follows `_id` it judges filters, so that no conversation is read but those that are shown.
    *(
        IndexModel(
            [
                ("user_id", ASCENDING),
                ("status", ASCENDING),
                (path, DESCENDING),
                ("_id", DESCENDING),
                *((filtered_by, ASCENDING) for filtered_by in FILTER_KEYS),
            ],
            name=f"list_{sort}",
        )
        for sort, path in SORT_KEYS.items()
    ),
    # The list of a character by its last activity, the latest of each character, and, with what
    # follows `_id`, all that summary and overview count without reading a conversation.
    IndexModel(
        [
            ("user_id", ASCENDING),
            ("character_id", ASCENDING),
            ("status", ASCENDING),
            ("metadata.last_activity", DESCENDING),
            ("_id", DESCENDING),
            ("tag_line", ASCENDING),
            ("metadata.message_count", ASCENDING),
            ("metadata.total_tokens", ASCENDING),
            ("metadata.last_message_at", ASCENDING),
        ],
        name="user_characters",
    ),
    # The change feed, tombstones included; a snapshot leaves those out by the index alone.
    IndexModel(
        [
            ("user_id", ASCENDING),
            ("changed_at", ASCENDING),
            ("_id", ASCENDING),
            ("status", ASCENDING),
        ],
        name="user_changes",
    ),
    # The list with ?search=, or with ?tags= and a time, and the tags that begin with something. No
    # sort key follows: each report of activity would move as many keys as there are words.
    IndexModel([("user_id", ASCENDING), ("search.words", ASCENDING)], name="user_words"),
    # The pins of the overview.
    IndexModel(
        [
            ("user_id", ASCENDING),
            ("status", ASCENDING),
            ("pinned_at", DESCENDING),
            ("_id", DESCENDING),
        ],
        name="user_status_pinned",
        partialFilterExpression={"pinned_at": {"$type": "date"}},
    ),
    # A request that is sent again finds what it led to, and cannot lead to it twice.
    IndexModel(
        [("user_id", ASCENDING), ("keys.key", ASCENDING)],
        name="idempotency_keys",
        unique=True,
        partialFilterExpression={"keys.key": {"$exists": True}},
    ),
    # Of those made by get_or_create, one active one per character.
    IndexModel(
        [("user_id", ASCENDING), ("only", ASCENDING)],
        name="only_of_character",
        unique=True,
        partialFilterExpression={"only": {"$type": "string"}},
    ),
    # manage.py verify_characters: whom to look up.
    IndexModel(
        [("character_id", ASCENDING)],
        name="unverified_characters",
        partialFilterExpression={"character_status": "unverified"},
    ),
    # The console: the newest in a state, of one user or of all, and titles by their beginning.
    IndexModel([("status", ASCENDING), ("_id", DESCENDING)], name="staff_status"),
    IndexModel(
        [("user_id", ASCENDING), ("status", ASCENDING), ("_id", DESCENDING)], name="staff_user"
    ),
    IndexModel(
        [("status", ASCENDING), ("title_key", ASCENDING), ("_id", DESCENDING)], name="staff_title"
    ),
    # The console: what is held. The condition is one that the ORM can say; see querysets.held.
    IndexModel(
        [("status", ASCENDING), ("_id", DESCENDING)],
        name="staff_held",
        partialFilterExpression={"hold.at": {"$gt": limits.EPOCH}},
    ),
    # manage.py purge_trash and apply_retention: what falls due, over all users.
    IndexModel(
        [("purge_at", ASCENDING), ("_id", ASCENDING)],
        name="trash_due",
        partialFilterExpression={"status": DELETED},
    ),
    IndexModel(
        [("metadata.last_activity", ASCENDING), ("_id", ASCENDING)],
        name="active_idle",
        # No list of a user's names a hold, so the planner never weighs this against theirs.
        partialFilterExpression={"status": ACTIVE, "pinned_at": None, "hold": None},
    ),
    # Tombstones have served the change feed by then. What is not purged has no key in it.
    IndexModel(
        [("expires_at", ASCENDING)],
        name="purged_expiry",
        expireAfterSeconds=0,
        partialFilterExpression={"status": PURGED},
    ),
]


def _nullable(kind: str) -> dict[str, Any]:
    return {"bsonType": [kind, "null"]}


def _string(length: int, **also: Any) -> dict[str, Any]:
    return {"bsonType": "string", "minLength": 1, "maxLength": length, **also}


def _whole(pattern: str) -> str:
    return rf"^{pattern}\z"  # $ would let a last line break pass


def _array(items: dict[str, Any], most: int) -> dict[str, Any]:
    return {"bsonType": "array", "maxItems": most, "items": items}


def _object(properties: dict[str, Any], required: Sequence[str] = ()) -> dict[str, Any]:
    rule = {"bsonType": "object", "properties": properties}
    return rule | ({"required": [*required]} if required else {})


_COUNT = {"bsonType": ["int", "long"], "minimum": 0}
_EXTERNAL_ID = {"bsonType": "string", "pattern": _whole(external_ids.PATTERN)}
_LLM_SETTINGS = {
    name: {
        "bsonType": ["int", "long"] if bounds.is_whole else ["double", "int", "long"],
        "minimum": bounds.minimum,
        "maximum": bounds.maximum,
    }
    for name, bounds in limits.LLM_SETTINGS.items()
}

CONVERSATION = _object(
    {
        "_id": {"bsonType": "objectId"},
        "user_id": _EXTERNAL_ID,
        "character_id": _EXTERNAL_ID,
        "character_name": _nullable("string"),
        "character_status": {"enum": ["verified", "unverified", "missing"]},
        "title": _string(limits.TITLE_LENGTH, pattern=_whole(r"[^\p{Cc}\p{Zl}\p{Zp}]+")),
        "title_key": {"bsonType": "string"},
        "title_source": {"enum": ["user", "auto"]},
        "status": {"enum": [*ANY_STATE]},
        "previous_status": {"enum": [*EDITABLE, None]},
        "pinned_at": _nullable("date"),
        "settings": _object(
            _LLM_SETTINGS
            | {
                "stop_sequences": _array(
                    _string(limits.STOP_SEQUENCE_LENGTH), limits.STOP_SEQUENCES
                )
            }
        ),
        "tags": _array(_string(limits.TAG_LENGTH, pattern=_whole(limits.TAG)), limits.TAGS),
        "tag_keys": _array({"bsonType": "string"}, limits.TAGS),
        "tag_line": {"bsonType": "string"},
        "search": _array(
            _object({"words": {"bsonType": "array", "items": {"bsonType": "string"}}}, ["words"]),
            1 + limits.TAGS,
        ),
        "custom": {
            "bsonType": "object",
            "maxProperties": limits.CUSTOM_KEYS,
            "additionalProperties": False,
            "patternProperties": {
                _whole(limits.CUSTOM_KEY): {
                    "bsonType": "string",
                    "maxLength": limits.CUSTOM_VALUE_LENGTH,
                }
            },
        },
        "metadata": _object(
            {
                "message_count": _COUNT,
                "total_tokens": _COUNT,
                "total_input_tokens": _COUNT,
                "total_output_tokens": _COUNT,
                "first_message_at": _nullable("date"),
                "last_message_at": _nullable("date"),
                "last_activity": {"bsonType": "date"},
                "created_at": {"bsonType": "date"},
                "updated_at": {"bsonType": "date"},
            }
        ),
        "archived_at": _nullable("date"),
        "deleted_at": _nullable("date"),
        "purge_at": _nullable("date"),
        "forked_from": _nullable("objectId"),
        "version": {"bsonType": ["int", "long"], "minimum": 1},
        "changed_at": {"bsonType": "date"},
        "activity_sequence": _COUNT,
        "activity_batch": _nullable("objectId"),
        "revisions": _array({"bsonType": "object"}, limits.REVISIONS),
        "keys": _array({"bsonType": "object"}, limits.KEYS),
        "only": _nullable("string"),
        "hold": _nullable("object"),
    },
    required=["_id", "user_id", "status"],
)

TOMBSTONE = {
    "additionalProperties": False,
    **_object(
        {
            "_id": {"bsonType": "objectId"},
            "user_id": _EXTERNAL_ID,
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
    )
]
