from functools import partial
from pathlib import Path
from typing import Any

from conversation_service.backups import restore
from conversation_service.backups.archive import Archive
from conversation_service.commands import JobResult
from conversation_service.management.archives import ArchiveCommand

HELP = """
Restore a backup of manage.py backup from DIRECTORY, byte for byte, with its indexes and validators.
Stop the service first, or restore into a database that it does not use.

First it verifies the checksums of the whole backup: a corrupt or incomplete one changes nothing.
Then it inserts the documents and reads all of them back, and creates the indexes last. Run migrate
and setup_indexes afterwards, for what a later release declares. Staff has to log in again.

It can be run again after an interruption, and goes on. Ctrl-C and SIGTERM end it after the current
batch.
"""


class Command(ArchiveCommand):
    help = HELP
    example = "restore /backups/2026-11-28"
    exit_0 = "all documents are restored and equal to the backup"
    exit_1 = "it could not run, the backup is corrupt, or the database has documents"
    exit_4 = "interrupted before the end, or MongoDB is unavailable"
    directory_help = "of a complete backup"
    yes_help = "delete all collections of a database that has documents"

    def run(self, *, directory: Path, yes: bool, dry_run: bool, **options: Any) -> JobResult:
        archive = Archive(directory)
        manifest = archive.verified()
        total = manifest.documents
        indexes = sum(len(contents.indexes) for contents in manifest.collections)
        steps = [("Verified", total, partial(restore.verify, archive, manifest))]
        if not dry_run:
            steps += [
                ("Restored", total, partial(restore.insert, archive, manifest, yes)),
                ("Compared", total, partial(restore.compare, manifest)),
                ("Indexed", indexes, partial(restore.finish, manifest)),
            ]
        done: dict[str, int] = {}
        for what, size, step in steps:
            done[what], error = self.attempt(step, total=size, what=what)
            if error:
                break
        text = ", ".join(f"{what.lower()} {count:,}" for what, count in done.items())
        taken = f"{manifest.snapshot.as_datetime():%Y-%m-%d %H:%M:%S} UTC"
        numbers = {"total": total, "documents": done.get("Restored", 0), "taken_at": taken}
        text = f"Backup of {taken}, release {manifest.release}, {total:,} documents: {text}."
        return numbers, text, error
