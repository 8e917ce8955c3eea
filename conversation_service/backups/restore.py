"""Copy a verified archive into the database."""

import hashlib
from collections.abc import Callable
from itertools import chain, islice

from bson.raw_bson import RawBSONDocument
from django.core.management.base import CommandError
from pymongo.errors import BulkWriteError

from conversation_service.backups.archive import Archive, Contents, Manifest, group, split
from conversation_service.backups.backup import MARKER, STOPPED, read
from conversation_service.commands import Unfinished
from conversation_service.mongodb.connection import database
from conversation_service.mongodb.drift import modify_collection

DUPLICATE_KEY = 11000
BATCH_BYTES = 8 * 1024**2
VALIDATION = ("validator", "validationLevel", "validationAction")

Advance = Callable[[int], None]


def verify(archive: Archive, manifest: Manifest, stopping: list[int], advance: Advance) -> None:
    """Raise CommandError unless every part has its checksum."""
    for contents in manifest.collections:
        for number, part in enumerate(contents.parts):
            archive.verify_part(contents, number)
            advance(part.documents)
            if stopping:
                raise Unfinished(STOPPED)


def _claim(archive: Archive, *, replace: bool) -> None:
    """Mark the database as unfinished, and drop its collections.

    A database with the mark of this archive is left as it is: the restore goes on. Raises
    CommandError for other documents, unless `replace`.
    """
    markers = database()[MARKER]
    checksum = archive.checksum()
    found = markers.find_one()
    if found is None or found["sha256"] != checksum:
        filled = [name for name in _names() if database()[name].find_one({}, ["_id"])]
        if filled and not replace:
            raise CommandError(
                f"The database {database().name} has documents, in {', '.join(filled[:5])}. "
                "--yes deletes them and all others of the database."
            )
        found = {"_id": "restore", "sha256": checksum, "cleared": False, "compared": False}
        markers.replace_one({"_id": "restore"}, found, upsert=True)
    if not found["cleared"]:
        for name in _names():
            if name != MARKER:
                database().drop_collection(name)
        markers.update_one({"_id": "restore"}, {"$set": {"cleared": True}})


def insert(
    archive: Archive,
    manifest: Manifest,
    replace: bool,
    stopping: list[int],
    advance: Advance,
) -> None:
    """Insert the documents, in their order, after those of an interrupted restore.

    Raises CommandError if the database has other documents, unless `replace`.
    """
    _claim(archive, replace=replace)
    if _is_compared():
        return
    existing = _names()
    for contents in manifest.collections:
        options = {key: each for key, each in contents.options.items() if key not in VALIDATION}
        if contents.name not in existing:
            database().create_collection(contents.name, check_exists=False, **options)
        stored = database()[contents.name].count_documents({})
        advance(stored)
        for number, part in enumerate(contents.parts):
            skipped = min(stored, part.documents)
            stored -= skipped
            if skipped < part.documents:
                documents = islice(archive.read_part(contents, number), skipped, None)
                for batch in group(documents, BATCH_BYTES):
                    if stopping:
                        raise Unfinished(STOPPED)
                    _insert_batch(contents, batch)
                    advance(len(batch))


def compare(manifest: Manifest, stopping: list[int], advance: Advance) -> None:
    """Read all documents back. Raises CommandError if any byte differs from the archive."""
    if _is_compared():
        return
    for contents in manifest.collections:
        documents = chain.from_iterable(map(split, read(database()[contents.name])))
        for part in contents.parts:
            digest = hashlib.sha256()
            for document in islice(documents, part.documents):
                digest.update(document)
            if digest.hexdigest() != part.bson_sha256:
                raise _differs(contents)
            advance(part.documents)
            if stopping:
                raise Unfinished(STOPPED)
        if next(documents, None) is not None:
            raise _differs(contents)
    database()[MARKER].update_one({}, {"$set": {"compared": True}})


def finish(manifest: Manifest, stopping: list[int], advance: Advance) -> None:
    """Create the indexes and the validators, and remove the mark.

    Not before the comparison: a TTL index deletes documents, and a validator can reject older ones.
    """
    for contents in manifest.collections:
        indexes = [index for index in contents.indexes if index["name"] != "_id_"]
        if indexes:
            database().command("createIndexes", contents.name, indexes=indexes)
        rules = {key: contents.options[key] for key in VALIDATION if key in contents.options}
        if rules:
            modify_collection(contents.name, rules)
        advance(len(contents.indexes))
        if stopping:
            raise Unfinished(STOPPED)
    database().drop_collection(MARKER)


def _is_compared() -> bool:
    """Return True if only indexes and validators are missing. TTL indexes may exist."""
    return database()[MARKER].find_one({"compared": True}) is not None


def _insert_batch(contents: Contents, batch: list[bytes]) -> None:
    try:
        database()[contents.name].insert_many(map(RawBSONDocument, batch))
    except BulkWriteError as error:
        if any(failed["code"] == DUPLICATE_KEY for failed in error.details["writeErrors"]):
            raise _differs(contents) from None
        raise


def _names() -> list[str]:
    names = database().list_collection_names(filter={"type": "collection"})
    return sorted(name for name in names if not name.startswith("system."))


def _differs(contents: Contents) -> CommandError:
    """Let the next run start anew, and return the error to end this one."""
    database()[MARKER].update_one({}, {"$set": {"cleared": False}})
    return CommandError(
        f"{contents.name} differs from the backup: another process has written to the database. "
        "Stop it, and run the restore again: it starts anew."
    )
