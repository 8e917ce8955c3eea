"""Signed keyset cursors.

A cursor names the row that a page is bordered by: the value of the sort key and the `_id`. It is
opaque, it gives no authority, and its signature binds it to the user, filter and sort that it was
made for, so that it cannot silently continue another list.
"""

import base64
import binascii
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import orjson
from bson import ObjectId
from django.core.signing import BadSignature, Signer

from conversation_service.errors import InvalidCursor

Side = Literal["after", "from", "before", "upto"]

# Clients keep cursors over releases: with another salt, each of them becomes invalid.
_SIGNER = Signer(salt="conversation_service.pagination", sep=".")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MAX_CURSOR_CHARACTERS = 2_048


@dataclass(frozen=True)
class Position:
    """Rows `after` or `before` a row of the list; `from` and `upto` include the row itself."""

    side: Side
    value: str | datetime | None
    id: ObjectId

    @property
    def backwards(self) -> bool:
        return self.side in {"before", "upto"}

    def conditions(self, key: str, *, ascending: bool) -> list[dict[str, Any]]:
        """Return the conditions of which a row on that side meets one.

        Each is a range of an index that ends with `key` and `_id` in the same direction. Rows
        without the key are before all others in that index, as if its value were null.
        """
        beyond = "$lt" if ascending == self.backwards else "$gt"
        border = f"{beyond}e" if self.side in {"from", "upto"} else beyond
        tie = {key: self.value, "_id": {border: self.id}}
        if self.value is None:
            return [tie] if beyond == "$lt" else [{key: {"$ne": None}}, tie]
        # Unlike $lt, "not $gte" matches rows without the key.
        further = {"$not": {"$gte": self.value}} if beyond == "$lt" else {"$gt": self.value}
        return [{key: further}, tie]


def encode(position: Position, *, binding: str) -> str:
    value = position.value
    plain = milliseconds(value) if isinstance(value, datetime) else value
    return seal([position.side, plain, str(position.id)], binding=binding)


def decode(cursor: str, *, binding: str) -> Position:
    """Return the position, or raise InvalidCursor if it was not made by us for this very list."""
    side, value, row_id = unseal(cursor, binding=binding)
    if isinstance(value, int):
        value = _EPOCH + timedelta(milliseconds=value)
    return Position(side, value, ObjectId(row_id))


def seal(values: list[Any], *, binding: str) -> str:
    """Return a cursor of JSON values, which unseal() takes with the same binding only."""
    text = base64.urlsafe_b64encode(orjson.dumps(values)).rstrip(b"=").decode()
    return f"{text}.{_SIGNER.signature(f'{text}.{binding}')}"


def unseal(cursor: str, *, binding: str) -> list[Any]:
    """Return what was sealed, or raise InvalidCursor."""
    text, _, signature = cursor.partition(".")
    try:
        if len(cursor) > MAX_CURSOR_CHARACTERS:
            raise InvalidCursor
        _SIGNER.unsign(f"{text}.{binding}.{signature}")
        values: list[Any] = orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (BadSignature, UnicodeError, binascii.Error, orjson.JSONDecodeError):
        raise InvalidCursor from None
    return values


def milliseconds(moment: datetime) -> int:
    """Return milliseconds since the epoch; a naive time, as PyMongo reads it, is UTC."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - _EPOCH) // timedelta(milliseconds=1)
