"""Diagnoses a stored document, by default without texts from users and characters."""

from collections.abc import Iterable, Iterator
from typing import Any

import bson
from bson import ObjectId
from django.conf import settings

from conversation_service.mongodb.connection import Document
from conversation_service.observability.logs import user_hash
from conversations import collection, documents, schema, words
from conversations.states import PURGED

REVISIONS = 5
# The times in a document or a tombstone, and the fields that users and characters wrote.
TIMES = [*(name for name, field in documents.FIELDS.items() if field.is_time), "expires_at"]
WORDS = [*documents.EDITABLE_FIELDS, "character_name"]


def inspect(id_: ObjectId, *, words: bool) -> dict[str, Any] | None:
    """Return the diagnosis for a conversation or a tombstone, or None.

    A missing field is None: a document can bypass the service.
    """
    document = collection.conversations().find_one({"_id": id_}, hint="_id_")
    if document is None:
        return None
    metadata, hold = document.get("metadata") or {}, document.get("hold") or {}
    history = collection.conversations().find_one({"_id": id_}, {"revisions": documents.REVISIONS})
    revisions = history["revisions"] if history else []
    found: dict[str, Any] = {
        "id": id_,
        "tombstone": document.get("status") == PURGED,
        **_values(document, ["status", "version", "user_id"]),
        "user_hash": user_hash(str(document.get("user_id")), settings.SECRET_KEY),
        **_values(document, ["character_id", "character_status"]),
        "counters": _values(metadata, documents.COUNTERS)
        | _values(document, ["activity_sequence"]),
        "clocks": _values(metadata, documents.METADATA_TIMES) | _values(document, TIMES),
        "hold": _values(hold, ["by", "at"]) if hold else None,
        "purged_by": documents.purged_by(document),
        "keys": sum(len(document.get(name) or []) for name in ("keys", "keys_by_scope")),
        "sizes": {
            "bytes": len(bson.encode(document)),
            "revisions": len(revisions),
            "log_bytes": len(bson.encode({"revisions": revisions})),
        },
        "indexes": dict(index_states(document)),
        "drift": drift(document),
        "last_revisions": [
            _values(revision, ["version", "at", "by", "client", "request_id"])
            | {"changed": [changed["path"] for changed in revision.get("changes", [])]}
            for revision in revisions[: -REVISIONS - 1 : -1]
        ],
    }
    if words:
        found["words"] = _values(document, WORDS) | {"hold_reason": hold.get("reason")}
    return found


def _values(source: Document, names: Iterable[str]) -> Document:
    return {name: source.get(name) for name in names}


def index_states(document: Document) -> Iterator[tuple[str, str]]:
    """Look up the document in each index: "indexed", "left out" (filter), "lost" or "not built"."""
    find_one = collection.conversations().find_one
    stored = {index["name"]: index for index in collection.conversations().list_indexes()}
    del stored["_id_"]  # inspect() used this index
    for name, index in stored.items():
        where = index.get("partialFilterExpression", {})
        mine = {"_id": document["_id"]}
        if not find_one({"$and": [mine, where]}, ["_id"], hint="_id_"):
            yield name, "left out"
            continue
        keys = {path: _key_condition(document, path) for path in index["key"]}
        found = find_one({"$and": [keys, mine, where]}, ["_id"], hint=name)
        yield name, "indexed" if found else "lost"
    for declared in schema.INDEXES:
        if declared.document["name"] not in stored:
            yield declared.document["name"], "not built"


def _key_condition(document: Document, path: str) -> Any:
    """Return a condition on an index key: null, or for an array its first value."""
    value: Any = document
    for name in path.split("."):
        value = value[0] if isinstance(value, list) and value else value
        value = value.get(name) if isinstance(value, dict) else None
    return {"$eq": value[0] if isinstance(value, list) and value else value}


def drift(document: Document) -> list[str]:
    """Return the fields that are missing, rejected by the validator, or wrongly derived."""
    fields = schema.TOMBSTONE
    found = set()
    if document.get("status") != PURGED:
        fields = schema.CONVERSATION
        derived = words.derived(str(document.get("title")), document.get("tags") or [])
        found = {name for name, value in derived.items() if document.get(name) != value}
        expected = documents.complete(document)
        expected["settings"] = documents.stored_settings(expected["settings"])
        found |= {
            name
            for name, value in expected.items()
            if name not in document or document[name] != value
        }
    # Each field alone: for a whole document, the validator does not name the rejected field.
    for name, rule in fields["properties"].items():
        wanted: dict[str, Any] = {"properties": {name: rule}}
        if name in fields["required"]:
            wanted["required"] = [name]
        where = {"_id": document["_id"], "$jsonSchema": wanted}
        if not collection.conversations().find_one(where, ["_id"], hint="_id_"):
            found.add(name)
    if fields.get("additionalProperties") is False:
        found |= document.keys() - fields["properties"].keys()
    return sorted(found)
