"""The header Idempotency-Key, and its records in the conversation.

The statement that writes the conversation stores the record too, so a crash cannot separate them.
A creation's record is in the array `keys`, which has a unique index. Updates' records are in the
object `keys_by_scope`, the oldest first; release 0.1.0 stored them in the array.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from hashlib import blake2b
from http import HTTPStatus
from typing import Any

import orjson
from django.utils.translation import gettext_lazy as _
from rest_framework.request import Request

from conversation_service import clock
from conversation_service.errors import ServiceError
from conversation_service.mongodb.connection import Document
from conversations import limits
from conversations.collection import ID_INDEX, MAJORITY, conversations, find_one
from conversations.documents import PUBLIC, complete, stored
from conversations.writes.updates import NOW, Expression

LIFETIME = timedelta(hours=24)

# RFC 8941 strings are quoted; most clients send the bare value.
_KEY = re.compile(r'"([!#-~]{1,255})"|([!#-~][!-~]{0,254})')


class IdempotencyKeyReused(ServiceError):
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "IDEMPOTENCY_KEY_REUSED"
    title = _("This Idempotency-Key was sent with another request")
    cause = _("An earlier request with this key had another body or another query string.")
    remedy = _("Create a new key for each new request. Repeat a request without changes.")


class IdempotencyInProgress(ServiceError):
    """The first request with this key has not ended; `Retry-After` says when to retry."""

    status = HTTPStatus.CONFLICT
    code = "IDEMPOTENCY_IN_PROGRESS"
    title = _("A request with this Idempotency-Key is still being processed")
    cause = _(
        "The first request with this key has not ended, or a majority of the replica set has not "
        "stored its write."
    )
    remedy = _(
        "Wait for the seconds in `Retry-After`, then send the same request with the same key."
    )
    again_in_s = 1


@dataclass(frozen=True)
class IdempotencyKey:
    """A key, which is valid for a user, a method and a path.

    `scope` joins method, path and key; a creation's record stores it. `scopes` also has the form
    from release 0.1.0, which stored the path in the letter case as sent. `digest` is a hash of
    `scope`, by which an update's record is named. The fingerprint hashes body and query.
    """

    scope: str
    fingerprint: str
    scopes: list[str]
    digest: str

    def check(self, fingerprint: str) -> None:
        """Raise IdempotencyKeyReused if the recorded request had another body or query."""
        if fingerprint != self.fingerprint:
            raise IdempotencyKeyReused


def read_key(request: Request) -> IdempotencyKey | None:
    """Read the header; raise ServiceError if it is invalid.

    The fingerprint covers the parsed body: equal JSON in another spelling is the same request.
    """
    header = request.META.get("HTTP_IDEMPOTENCY_KEY")
    if header is None:
        return None
    match = _KEY.fullmatch(header.strip())
    if match is None:
        raise ServiceError(_("An Idempotency-Key has 1 to 255 visible ASCII characters."))
    try:
        body = orjson.dumps(request.data, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:  # orjson reads deeper nesting than it writes
        raise ServiceError(_("The body is nested too deeply.")) from None
    query = request.META.get("QUERY_STRING", "").encode()
    path = request.path.rstrip("/")
    # Only the id in a path can have upper-case letters, and their case has no meaning.
    scopes = [
        f"{request.method} {spelling} {match[1] or match[2]}"
        for spelling in dict.fromkeys((path.lower(), path))
    ]
    return IdempotencyKey(scopes[0], _hash(body + b"?" + query), scopes, _hash(scopes[0].encode()))


def _hash(content: bytes) -> str:
    return blake2b(content, digest_size=16).hexdigest()


_LIFETIME_MS = int(LIFETIME.total_seconds() * 1000)


def _live(records: Expression, at: str) -> Expression:
    """Return an expression for the records with a time, at the path `at`, within LIFETIME."""
    is_live = {"$gt": [at, {"$subtract": [NOW, _LIFETIME_MS]}]}
    return {"$filter": {"input": records, "cond": is_live}}


_BY_SCOPE = {"$objectToArray": stored("keys_by_scope")}
_OWN = {"$filter": {"input": _BY_SCOPE, "cond": {"$eq": ["$$this.k", "$$key.digest"]}}}
_OWN_IN_ARRAY = {
    "$filter": {"input": stored("keys"), "cond": {"$in": ["$$this.key", "$$key.scopes"]}}
}
_RECORDS = {"$concatArrays": [{"$map": {"input": _OWN, "in": "$$this.v"}}, _OWN_IN_ARRAY]}
# The live record for `$$key`, or null.
FOUND: Expression = {"$ifNull": [{"$first": _live(_RECORDS, "$$this.at")}, None]}


def record(fingerprint: Any, at: Any, field: Callable[[str], Any]) -> dict[str, Any]:
    """Return a record; its response is the conversation as the request leaves it.

    The arguments are values for an insert, and expressions for an update. `field` maps the name of
    a field to its value.
    """
    return {
        "fingerprint": fingerprint,
        "at": at,
        "answer": {name: field(name) for name in ("_id", *PUBLIC)},
    }


def add_record_stage() -> dict[str, Any]:
    """Return the pipeline stage that stores the record for `$$key`, after the update.

    Expired records are dropped. In `keys_by_scope` the newest limits.KEYS records stay, and the
    newest limits.ANSWERS keep their responses; a replay without a response returns the present
    conversation.
    """
    live = _live(_BY_SCOPE, "$$this.v.at")
    older_count = {"$subtract": [{"$size": "$$kept"}, limits.ANSWERS - 1]}
    bare = {"fingerprint": "$$this.v.fingerprint", "at": "$$this.v.at"}
    without_answer = {"k": "$$this.k", "v": bare}
    older = {"$map": {"input": {"$slice": ["$$kept", 0, older_count]}, "in": without_answer}}
    new = {"k": "$$key.digest", "v": record("$$key.fingerprint", NOW, lambda name: f"${name}")}
    records = {
        "$concatArrays": [
            {"$cond": [{"$gt": [older_count, 0]}, older, []]},
            {"$slice": ["$$kept", 1 - limits.ANSWERS]},
            [new],
        ]
    }
    return {
        "$set": {
            "keys_by_scope": {
                "$let": {
                    "vars": {"kept": {"$slice": [live, 1 - limits.KEYS]}},
                    "in": {"$arrayToObject": records},
                }
            },
            "keys": _live(stored("keys"), "$$this.at"),
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
    if recorded["at"] < clock.naive_now() - LIFETIME:
        conversations().update_one(same, {"$pull": {"keys": entry}}, hint=ID_INDEX)
        return None
    current = find_one(same, PUBLIC, hint=ID_INDEX, readConcern=MAJORITY)
    if current is None:
        raise IdempotencyInProgress
    key.check(recorded["fingerprint"])
    return complete(recorded.get("answer", current))
