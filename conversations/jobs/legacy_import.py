"""Imports the monolith's conversations in batches, in `_id` order."""

from collections.abc import Iterator
from typing import Any

import bson
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.errors import InvalidBSON
from bson.raw_bson import RawBSONDocument
from pymongo.collection import Collection

from conversation_service.http.ndjson import batches
from conversation_service.mongodb.connection import Document
from conversations.jobs.legacy import Converted, convert
from conversations.queries import lookup
from conversations.writes.create import DUPLICATE_KEY, insert_all

BATCH = 500

_BEYOND = DatetimeConversion.DATETIME_AUTO  # a time outside Python's range is an issue
_STRICT: CodecOptions[Document] = CodecOptions(tz_aware=True, datetime_conversion=_BEYOND)
_LENIENT: CodecOptions[Document] = CodecOptions(
    datetime_conversion=_BEYOND, unicode_decode_error_handler="replace"
)
_UNDECODED: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)


def take_over(
    source: Collection[Any], *, after: Any = None, dry_run: bool = False
) -> Iterator[list[Converted]]:
    """Import conversations and yield each batch's results, after a majority has it.

    An existing conversation stays unchanged. With `dry_run`, nothing is written.
    """
    for batch in batches(read(source, after), BATCH):
        converted = []
        for row in batch:
            try:
                converted.append(convert(bson.decode(row.raw, _STRICT)))
            except InvalidBSON:
                converted.append(Converted(bson.decode(row.raw, _LENIENT)))
                converted[-1].refuse("", "not readable, contains invalid text")
        _find_existing(converted)
        if not dry_run:
            insert(converted)
        yield converted


def read(source: Collection[Any], after: Any) -> Iterator[RawBSONDocument]:
    rows = source.with_options(_UNDECODED).find(sort=[("_id", 1)], batch_size=BATCH)
    if after is None:
        yield from rows
        return
    # Unlike $gt, an index bound continues with the next type's ids.
    for row in rows.min([("_id", after)]).hint("_id_"):
        if row["_id"] != after:
            yield row


def _find_existing(converted: list[Converted]) -> None:
    wanted = {row.document["_id"]: row for row in converted if row.document}
    for id_, user_id in lookup.owners_of(wanted).items():
        wanted[id_].meet(user_id)


def insert(converted: list[Converted]) -> None:
    new = [result for result in converted if result.document]
    failed = insert_all([result.document for result in new if result.document]) if new else {}
    existing = []
    for index, code in failed.items():
        if code == DUPLICATE_KEY:
            existing.append(new[index])
        else:
            new[index].refuse("", "not accepted by the database")
    _find_existing(existing)
