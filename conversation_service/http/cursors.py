"""Signed cursors, with which a list, the change feed, a history or a bulk run continues.

A cursor is opaque to clients and grants no access. Its signature covers a binding, such as the
user, the filters and the sort, so it is valid only for the request that it continues.
"""

import base64
import binascii
import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import bson
import orjson
from bson import ObjectId
from django.core.signing import BadSignature, Signer

from conversation_service.errors import InvalidCursor

Side = Literal["after", "from", "before", "upto"]

# Clients keep cursors over releases: another salt would make each of them invalid.
_SIGNER = Signer(salt="conversation_service.pagination", sep=".")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MAX_CURSOR_CHARACTERS = 2_048
# A row that matches all these conditions has no value: its key is missing or null. Unlike null,
# they need no document fetch. When MongoDB merges fetched rows from several states, it sorts a
# missing key before null, although both are null in the index, and a page would lose rows.
_NO_VALUE = [
    {"$not": {"$gte": lowest}}
    for lowest in (-math.inf, "", False, datetime.min.replace(tzinfo=UTC))
]


@dataclass(frozen=True)
class ListCursor:
    """A row in a sorted list, and which side a page shows: the rows after or before.

    `after` and `before` exclude the row, `from` and `upto` include the row. `value` is the stored
    sort value, None if the row lacks the key.
    """

    side: Side
    value: Any
    id: ObjectId

    @classmethod
    def decode(cls, cursor: str, *, binding: str) -> "ListCursor":
        """Return a cursor that encode() made with the same binding, or raise InvalidCursor."""
        side, value, row_id = unseal(cursor, binding=binding)
        # JSON has no times: a bare integer is a time in milliseconds, as in release 0.1.0. Other
        # numbers, and types that JSON lacks, are in BSON.
        if isinstance(value, dict):
            value = bson.decode(base64.b64decode(value["bson"]))["value"]
        elif isinstance(value, int) and not isinstance(value, bool):
            value = moment(value)
        return cls(side, value, ObjectId(row_id))

    def encode(self, *, binding: str) -> str:
        value = self.value
        if isinstance(value, datetime):
            value = milliseconds(value)
        elif not isinstance(value, str | bool | None):
            value = {"bson": base64.b64encode(bson.encode({"value": value})).decode()}
        return seal([self.side, value, str(self.id)], binding=binding)

    @property
    def backwards(self) -> bool:
        return self.side in {"before", "upto"}

    def reversed_cursor(self) -> "ListCursor":
        """Return an empty page's cursor, which leads back, from this row on."""
        return replace(self, side="from" if self.backwards else "upto")

    def conditions(self, key: str, *, ascending: bool) -> list[dict[str, Any]]:
        """Return conditions; each row on this cursor's side matches exactly one.

        Each is a range in an index that ends with `key` and `_id` in the same direction. That index
        has rows without the key before all others, as null.
        """
        operator = "$lt" if ascending == self.backwards else "$gt"
        id_range: dict[str, Any] = {
            "_id": {f"{operator}e" if self.side in {"from", "upto"} else operator: self.id}
        }
        if self.value is None:
            same_value = {"$and": [id_range, *({key: value} for value in _NO_VALUE)]}
            return [same_value] if operator == "$lt" else [{key: {"$ne": None}}, same_value]
        same_value = {key: self.value, **id_range}
        # Unlike $lt, "not $gte" matches rows without the key.
        beyond = {"$not": {"$gte": self.value}} if operator == "$lt" else {"$gt": self.value}
        return [{key: beyond}, same_value]


def seal(values: list[Any], *, binding: str) -> str:
    """Return a cursor with JSON values, which unseal() accepts only with the same binding."""
    text = base64.urlsafe_b64encode(orjson.dumps(values)).rstrip(b"=").decode()
    return f"{text}.{_SIGNER.signature(f'{text}.{binding}')}"


def unseal(cursor: str, *, binding: str) -> list[Any]:
    """Return the values that were sealed with this binding, or raise InvalidCursor."""
    text, _, signature = cursor.partition(".")
    try:
        if len(cursor) > MAX_CURSOR_CHARACTERS:
            raise InvalidCursor
        _SIGNER.unsign(f"{text}.{binding}.{signature}")
        values: list[Any] = orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (BadSignature, UnicodeError, binascii.Error, orjson.JSONDecodeError):
        raise InvalidCursor from None
    return values


def milliseconds(time: datetime) -> int:
    """Return milliseconds since the epoch; a naive time, as from PyMongo, is in UTC."""
    aware = time if time.tzinfo else time.replace(tzinfo=UTC)
    return (aware - _EPOCH) // timedelta(milliseconds=1)


def moment(ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=ms)
