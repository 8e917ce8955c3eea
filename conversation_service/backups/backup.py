"""Copy the database, as it was at one cluster time, into an archive."""

from collections.abc import Callable, Iterator
from typing import Any

from bson import Timestamp
from django.conf import settings
from django.contrib.sessions.models import Session
from django.core.management.base import CommandError
from pymongo.collection import Collection
from pymongo.errors import OperationFailure
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import SecondaryPreferred

from conversation_service.backups.archive import Archive, Contents, Manifest, split
from conversation_service.commands import Unfinished
from conversation_service.mongodb.connection import Document, database

# Collections with indexes but without documents in a backup: sessions of staff must not become
# valid again, and the cache has statistics and counters of failed logins, which expire in minutes.
TRANSIENT = {Session._meta.db_table, settings.CACHES["default"]["LOCATION"]}
MARKER = "unfinished_restore"
SNAPSHOT_TOO_OLD, SNAPSHOT_UNAVAILABLE = 239, 246
# A secondary further behind would delay the backup: it responds when it has the snapshot.
MAX_STALENESS_S = 120
BATCH = 1_000  # documents

GO_ON = "Run it again to go on."
STOPPED = f"Stopped. {GO_ON}"
SNAPSHOT_GONE = (
    "MongoDB no longer has the snapshot of this backup. Run it again: it starts anew. If a backup "
    "takes longer than minSnapshotHistoryWindowInSeconds, a parameter of mongod (default 300 s), "
    "raise it on each member."
)


class SnapshotAt(ReadConcern):
    """Read the data of a cluster time. PyMongo's sessions choose a time, and cannot take one."""

    def __init__(self, time: Timestamp) -> None:
        super().__init__("snapshot")
        self._time = time

    @property
    def document(self) -> dict[str, Any]:
        return {**super().document, "atClusterTime": self._time}


def back_up(archive: Archive, stopping: list[int], advance: Callable[[int], None]) -> None:
    """Complete the backup in the archive's folder, or begin one.

    `advance` gets the number of documents of each finished part. Raises PyMongoError, OSError, and
    Unfinished if a signal came or the snapshot is gone.
    """
    found = structure()
    manifest = archive.load_unfinished()
    if manifest is None or manifest.collections != found:
        archive.clear()
        manifest = Manifest(settings.VERSION, database().name, _now(), found)
        archive.save(manifest)
    advance(manifest.documents)
    try:
        for contents in manifest.collections:
            _copy(archive, manifest, contents, stopping, advance)
    except OperationFailure as error:
        if error.code not in {SNAPSHOT_TOO_OLD, SNAPSHOT_UNAVAILABLE}:
            raise
        archive.clear()
        raise Unfinished(SNAPSHOT_GONE) from None
    archive.finish(manifest)


def structure() -> list[Contents]:
    """Return all collections of the database without their documents."""
    collections = sorted(database().list_collections(), key=lambda each: each["name"])
    if not collections:
        raise CommandError(f"The database {database().name} has no collections to back up.")
    if any(each["name"] == MARKER for each in collections):
        raise CommandError("The database has an unfinished restore. Run manage.py restore again.")
    return [
        Contents(
            each["name"],
            each["info"]["uuid"].hex(),
            each["options"],
            [dict(index) for index in database()[each["name"]].list_indexes()],
            complete=each["name"] in TRANSIENT,
        )
        for each in collections
        if each["type"] == "collection" and not each["name"].startswith("system.")
    ]


def read(collection: Collection[Document], **find: Any) -> Iterator[bytes]:
    """Yield a collection's documents by `_id`, in batches of at most BATCH and of 16 MB."""
    by_id = {"_id": 1}
    yield from collection.find_raw_batches(sort=by_id, hint=by_id, batch_size=BATCH, **find)


def _copy(
    archive: Archive,
    manifest: Manifest,
    contents: Contents,
    stopping: list[int],
    advance: Callable[[int], None],
) -> None:
    batches = _remaining(manifest, contents)
    while not contents.complete:
        part = archive.write_part(contents, batches, stopping)
        if part:
            contents.parts.append(part)
            advance(part.documents)
        else:
            contents.complete = True
        archive.save(manifest)
        if stopping:
            raise Unfinished(STOPPED)


def _remaining(manifest: Manifest, contents: Contents) -> Iterator[bytes]:
    """Yield the batches after the last part."""
    collection = database()[contents.name].with_options(
        read_concern=SnapshotAt(manifest.snapshot),
        read_preference=SecondaryPreferred(max_staleness=MAX_STALENESS_S),
    )
    if not contents.parts:
        yield from read(collection)
        return
    # Unlike $gt, it includes ids of other types. The bound is inclusive.
    batches = read(collection, min={"_id": contents.parts[-1].last_id})
    first = next(batches)
    rest = first[len(next(split(first))) :]
    if rest:
        yield rest
    yield from batches


def _now() -> Timestamp:
    """Return a cluster time with all writes that were confirmed before."""
    with database().client.start_session() as session:
        database().client.admin.command("ping", session=session)
        time = session.operation_time
    if time is None:
        raise CommandError("MongoDB is not a replica set, which a snapshot needs.")
    return time
