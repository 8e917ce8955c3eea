"""The folder of a backup.

- `NAME.00000.bson.gz`, a part: documents of a collection as the server stores them, by `_id`.
- `manifest.json`: the release and the snapshot; each collection's options, indexes and parts.
- `SHA256SUMS`: the checksums of all files, for `sha256sum --check`. It is written last: a folder
  without it holds an unfinished backup.
"""

import fcntl
import gzip
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from io import BufferedReader
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bson import Timestamp, json_util
from bson.raw_bson import RawBSONDocument
from django.core.management.base import CommandError

from conversation_service.mongodb.connection import Document

FORMAT = 1
MANIFEST, SUMS = "manifest.json", "SHA256SUMS"
PART, TEMPORARY = ".bson.gz", ".tmp"
PART_BYTES = 64 * 1024**2  # of BSON; an interrupted backup reads at most this again
LENGTH_BYTES = 4  # at the start of a BSON document
_JSON = json_util.JSONOptions(json_mode=json_util.JSONMode.RELAXED, tz_aware=False)


@dataclass(frozen=True)
class Part:
    documents: int
    last_id: Any
    sha256: str  # of the file
    bson_sha256: str  # of the documents


@dataclass
class Contents:
    """A collection. Equal ones have an equal structure.

    `uuid` changes if the collection is dropped and created again.
    """

    name: str
    uuid: str
    options: Document
    indexes: list[Document]
    complete: bool = field(default=False, compare=False)
    parts: list[Part] = field(default_factory=list, compare=False)

    @property
    def documents(self) -> int:
        return sum(part.documents for part in self.parts)


@dataclass
class Manifest:
    release: str
    database: str
    snapshot: Timestamp
    collections: list[Contents]
    format: int = FORMAT

    @property
    def documents(self) -> int:
        return sum(contents.documents for contents in self.collections)


class Archive:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Create the folder, and keep other processes from writing to it."""
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(self.folder, os.O_RDONLY)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CommandError(f"Another process writes to {self.folder}.") from None
        except OSError as error:
            raise CommandError(f"{self.folder}: {error.strerror}.") from None
        try:
            yield
        finally:
            os.close(descriptor)

    def is_complete(self) -> bool:
        return (self.folder / SUMS).exists()

    def load_unfinished(self) -> Manifest | None:
        """Return the manifest of an unfinished backup, or None if the folder is empty."""
        if (self.folder / MANIFEST).exists():
            return _parse((self.folder / MANIFEST).read_bytes())
        if any(not path.name.endswith(TEMPORARY) for path in self.folder.iterdir()):
            raise CommandError(f"{self.folder} has other files. Name a new or an empty folder.")
        return None

    def clear(self) -> None:
        """Delete the backup. From the first step on, the folder counts as unfinished."""
        (self.folder / SUMS).unlink(missing_ok=True)
        for pattern in (f"*{PART}", f"*{TEMPORARY}", MANIFEST):
            for path in self.folder.glob(pattern):
                path.unlink()

    def save(self, manifest: Manifest) -> None:
        text = json_util.dumps(asdict(manifest), json_options=_JSON, indent=1)
        with self._replacing(MANIFEST) as path:
            path.write_text(text, encoding="utf-8")

    def finish(self, manifest: Manifest) -> None:
        self.save(manifest)
        with self._replacing(SUMS) as path:
            path.write_text(_sums(self._digest(MANIFEST), manifest), encoding="utf-8")

    def write_part(
        self, contents: Contents, batches: Iterator[bytes], stopping: list[int]
    ) -> Part | None:
        """Write the next part: up to PART_BYTES, or to the batch at which the command is stopped.

        Returns None if there are no more batches.
        """
        first = next(batches, None)
        if first is None:
            return None
        digest, size, count = hashlib.sha256(), 0, 0
        name = _part_name(contents, len(contents.parts))
        with self._replacing(name) as path, gzip.open(path, "wb", compresslevel=1) as file:
            for batch in chain([first], batches):
                file.write(batch)
                digest.update(batch)
                size += len(batch)
                documents = list(split(batch))
                count += len(documents)
                if size >= PART_BYTES or stopping:
                    break
        last_id = RawBSONDocument(documents[-1])["_id"]
        return Part(count, last_id, self._digest(name), digest.hexdigest())

    def read_part(self, contents: Contents, number: int) -> Iterator[bytes]:
        """Yield the documents of a part that has been verified."""
        with gzip.open(self.folder / _part_name(contents, number)) as file:
            while length := file.read(LENGTH_BYTES):
                yield length + file.read(int.from_bytes(length, "little") - LENGTH_BYTES)

    def checksum(self) -> str:
        """Return a value that identifies the backup with all of its contents."""
        return self._digest(SUMS)

    def verified(self) -> Manifest:
        """Return the manifest after the check of its checksum. The parts are not verified yet."""
        if not self.is_complete():
            raise CommandError(f"{self.folder} is not a complete backup: it has no {SUMS}.")
        with self._open(SUMS) as sums_file, self._open(MANIFEST) as manifest_file:
            sums, text = sums_file.read(), manifest_file.read()
        digest = hashlib.sha256(text).hexdigest()
        if not sums.startswith(_line(digest, MANIFEST).encode()):
            raise self._corrupt(MANIFEST)
        manifest = _parse(text)
        if sums != _sums(digest, manifest).encode():
            raise self._corrupt(SUMS)
        return manifest

    def verify_part(self, contents: Contents, number: int) -> None:
        name = _part_name(contents, number)
        if self._digest(name) != contents.parts[number].sha256:
            raise self._corrupt(name)

    def _open(self, name: str) -> BufferedReader:
        try:
            return (self.folder / name).open("rb")
        except OSError as error:
            raise CommandError(f"The backup is incomplete: {name}: {error.strerror}.") from None

    def _digest(self, name: str) -> str:
        with self._open(name) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _corrupt(self, name: str) -> CommandError:
        return CommandError(f"The backup is corrupt: {name} does not have its checksum.")

    @contextmanager
    def _replacing(self, name: str) -> Iterator[Path]:
        """Give a temporary file, which gets the name when it is on the disk."""
        temporary = self.folder / f"{name}{TEMPORARY}"
        os.close(os.open(temporary, os.O_CREAT | os.O_TRUNC, 0o600))
        yield temporary
        _flush(temporary)
        temporary.replace(self.folder / name)
        _flush(self.folder)


def split(batch: bytes) -> Iterator[bytes]:
    """Yield the BSON documents of a batch."""
    start = 0
    while start < len(batch):
        end = start + int.from_bytes(batch[start : start + LENGTH_BYTES], "little")
        yield batch[start:end]
        start = end


def group(documents: Iterable[bytes], max_bytes: int) -> Iterator[list[bytes]]:
    """Yield lists of documents; only a list of one document can be larger than `max_bytes`."""
    listed: list[bytes] = []
    size = 0
    for document in documents:
        if listed and size + len(document) > max_bytes:
            yield listed
            listed, size = [], 0
        listed.append(document)
        size += len(document)
    if listed:
        yield listed


def _parse(text: bytes) -> Manifest:
    try:
        values = json_util.loads(text.decode(), json_options=_JSON)
        collections = [
            Contents(**{**each, "parts": [Part(**part) for part in each["parts"]]})
            for each in values["collections"]
        ]
        manifest = Manifest(**{**values, "collections": collections})
    except (ValueError, KeyError, TypeError):
        raise CommandError(f"{MANIFEST} is not a manifest of this command.") from None
    if manifest.format != FORMAT:
        raise CommandError(
            f"{MANIFEST} has the format {manifest.format}, and this release reads {FORMAT}. "
            f"Use release {manifest.release}."
        )
    return manifest


def _sums(digest: str, manifest: Manifest) -> str:
    lines = [
        _line(part.sha256, _part_name(contents, number))
        for contents in manifest.collections
        for number, part in enumerate(contents.parts)
    ]
    return "".join([_line(digest, MANIFEST), *lines])


def _line(digest: str, name: str) -> str:
    return f"{digest}  {name}\n"


def _part_name(contents: Contents, number: int) -> str:
    return f"{quote(contents.name, safe='')}.{number:05}{PART}"


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
