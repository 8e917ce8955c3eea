"""Idempotency records, in the array `keys` in the conversation that a request wrote.

The statement that writes the conversation stores the record too, so a crash cannot separate them.
"""

from collections.abc import Callable
from typing import Any

from conversation_service import clock
from conversation_service.http.idempotency import LIFETIME, IdempotencyInProgress, IdempotencyKey
from conversation_service.mongodb.connection import Document
from conversations import limits
from conversations.collection import ID_INDEX, MAJORITY, conversations, find_one
from conversations.documents import PUBLIC, complete, stored
from conversations.writes.updates import NOW, Expression

_LIFETIME_MS = int(LIFETIME.total_seconds() * 1000)
_IS_LIVE = {"$gt": ["$$this.at", {"$subtract": [NOW, _LIFETIME_MS]}]}

# The live record for `$$key`, or null.
FOUND: Expression = {
    "$ifNull": [
        {
            "$first": {
                "$filter": {
                    "input": "$keys",
                    "cond": {"$and": [{"$in": ["$$this.key", "$$key.scopes"]}, _IS_LIVE]},
                }
            }
        },
        None,
    ]
}


def record(scope: Any, fingerprint: Any, at: Any, field: Callable[[str], Any]) -> dict[str, Any]:
    """Return a record; its response is the conversation as the request leaves it.

    The arguments are values for an insert, and expressions for an update. `field` maps the name of
    a field to its value.
    """
    return {
        "key": scope,
        "fingerprint": fingerprint,
        "at": at,
        "answer": {name: field(name) for name in ("_id", *PUBLIC)},
    }


def add_record_stage() -> dict[str, Any]:
    """Return the pipeline stage that stores the record for `$$key`, after the update.

    Expired records are dropped. The newest limits.KEYS records stay, and the newest limits.ANSWERS
    keep their responses; a replay without a response returns the present conversation.
    """
    live = {"$filter": {"input": stored("keys"), "cond": _IS_LIVE}}
    older_count = {"$subtract": [{"$size": "$$kept"}, limits.ANSWERS - 1]}
    without_answer = {"key": "$$this.key", "fingerprint": "$$this.fingerprint", "at": "$$this.at"}
    older = {"$map": {"input": {"$slice": ["$$kept", 0, older_count]}, "in": without_answer}}
    new = record("$$key.scope", "$$key.fingerprint", NOW, lambda name: f"${name}")
    return {
        "$set": {
            "keys": {
                "$let": {
                    "vars": {"kept": {"$slice": [live, 1 - limits.KEYS]}},
                    "in": {
                        "$concatArrays": [
                            {"$cond": [{"$gt": [older_count, 0]}, older, []]},
                            {"$slice": ["$$kept", 1 - limits.ANSWERS]},
                            [new],
                        ]
                    },
                }
            }
        }
    }


def find_response(user_id: str, key: IdempotencyKey) -> Document | None:
    """Return the conversation in the recorded response, by the index idempotency_keys.

    Returns None without a live record, and deletes an expired record. Raises IdempotencyKeyReused,
    or IdempotencyInProgress until a majority in the replica set has the record: before, a failover
    would roll back the write.
    """
    own = {"user_id": user_id, "keys.key": {"$in": key.scopes}}
    found = find_one(own, {"keys.$": 1}, hint="idempotency_keys")
    if found is None:
        return None
    [recorded] = found["keys"]
    entry = {"key": recorded["key"], "at": recorded["at"]}
    same = {"_id": found["_id"], "user_id": user_id, "keys": {"$elemMatch": entry}}
    if recorded["at"] < (clock.now() - LIFETIME).replace(tzinfo=None):
        conversations().update_one(same, {"$pull": {"keys": entry}}, hint=ID_INDEX)
        return None
    current = find_one(same, PUBLIC, hint=ID_INDEX, readConcern=MAJORITY)
    if current is None:
        raise IdempotencyInProgress
    key.check(recorded["fingerprint"])
    return complete(recorded.get("answer", current))
