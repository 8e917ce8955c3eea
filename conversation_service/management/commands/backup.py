from pathlib import Path
from typing import Any

from django.core.management.base import CommandError

from conversation_service.backups.archive import Archive
from conversation_service.backups.backup import TRANSIENT, back_up, structure
from conversation_service.commands import JobResult
from conversation_service.management.archives import ArchiveCommand
from conversation_service.mongodb.connection import database

HELP = f"""
Back up the database to DIRECTORY: BSON in gzip files, a manifest, and SHA256SUMS. A directory
without SHA256SUMS holds an unfinished backup. manage.py restore restores it.

All documents are as at one moment, the start, with every write that was confirmed before. The
service goes on meanwhile. The backup needs a replica set, and fails if it takes longer than MongoDB
keeps a snapshot: minSnapshotHistoryWindowInSeconds of mongod, by default 300 s.

Of {" and ".join(sorted(TRANSIENT))}, it has the indexes only: sessions of staff, and counters that
expire. Keep it as safe as the database: it has the conversations, and the hashes of passwords.

It can be run again after an interruption: it goes on while MongoDB has the snapshot, and else
starts anew. Ctrl-C and SIGTERM end it after the current batch.
"""


class Command(ArchiveCommand):
    help = HELP
    example = "backup /backups/2026-11-28"
    exit_0 = "the backup is complete"
    exit_1 = "it could not run, or DIRECTORY is in use"
    exit_4 = "interrupted before the end, or MongoDB is unavailable"
    directory_help = "a new or empty directory, or an unfinished backup"
    yes_help = "replace a complete backup in DIRECTORY"

    def run(self, *, directory: Path, yes: bool, dry_run: bool, **options: Any) -> JobResult:
        archive = Archive(directory)
        if archive.is_complete() and not yes:
            raise CommandError(f"{directory} has a complete backup; --yes replaces it.")
        names = [contents.name for contents in structure() if not contents.complete]
        total = sum(database()[name].estimated_document_count() for name in names)
        done, error = 0, None
        if not dry_run:
            with archive.locked():
                if archive.is_complete():
                    archive.clear()
                done, error = self.attempt(
                    lambda *progress: back_up(archive, *progress), total=total, what="Backup"
                )
        about = f"about {total:,}" if dry_run else f"{done:,}"
        text = f"Backup: {about} documents of {len(names)} collections."
        return {"total": total, "documents": done, "collections": len(names)}, text, error
