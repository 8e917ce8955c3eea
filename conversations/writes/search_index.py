"""Derives the stored values by which titles and tags are searched, sorted and compared."""

from collections.abc import Iterable, Iterator
from typing import Any

from bson import ObjectId
from pymongo import UpdateOne

from conversation_service.mongodb.connection import Document
from conversations import documents, words
from conversations.collection import ID_INDEX, NOT_PURGED, conversations

BATCH = 500


def batches(after: ObjectId) -> Iterator[list[Document]]:
    """Yield titles, tags and the values derived from them, in batches by `_id`."""
    while batch := _read({"_id": {"$gt": after}}):
        yield batch
        after = batch[-1]["_id"]


def reindex(rows: Iterable[Document], *, dry_run: bool) -> int:
    """Write the derived values that differ; return how many conversations were outdated.

    A conversation with a title or tags that changed meanwhile is read again. Versions and times
    stay as they are.
    """
    outdated = {row["_id"]: row for row in rows if not row.items() >= _derived(row).items()}
    if dry_run or not outdated:
        return len(outdated)
    statements = [
        UpdateOne(
            {
                "_id": id_,
                **NOT_PURGED,
                "title": row.get("title"),  # None matches a document without a title
                "tags": {"$eq": row.get("tags")},
            },
            {"$set": _derived(row)},
            hint=ID_INDEX,
        )
        for id_, row in outdated.items()
    ]
    written = conversations().bulk_write(statements, ordered=False).matched_count
    if written < len(statements):
        written += reindex(_read({"_id": {"$in": [*outdated]}}), dry_run=False)
    return written


def _read(where: dict[str, Any]) -> list[Document]:
    names = ["title", "tags", *words.derived("", ())]
    cursor = conversations().find({**where, **NOT_PURGED}, names, hint=ID_INDEX).sort("_id")
    return cursor.limit(BATCH).to_list()


def _derived(row: Document) -> dict[str, Any]:
    known = documents.DEFAULTS | row
    return words.derived(known["title"], known["tags"])
