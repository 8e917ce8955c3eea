"""Imports exported lines and lenient lines.

Each line has its own result. An import never overwrites a conversation, so it can be repeated. It
never brings back a purged one while the tombstone exists.
"""

import time
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b
from http import HTTPStatus
from typing import IO, Any

from bson import ObjectId
from django.conf import settings
from django.utils.translation import gettext as _
from rest_framework.exceptions import ValidationError

from conversation_service import clock
from conversation_service.errors import Message, PayloadTooLarge, ServiceError
from conversation_service.http import ndjson
from conversation_service.http.exception_handler import invalid_input
from conversation_service.http.rendering import replace_unpaired_surrogates
from conversation_service.mongodb.connection import Document
from conversations import documents
from conversations.documents import EDITABLE_FIELDS, PUBLIC
from conversations.exceptions import ConversationIdTaken, ConversationPurged, QuotaExceeded
from conversations.jobs import lenient
from conversations.jobs.adjusting import adjust
from conversations.jobs.concurrency import imports
from conversations.jobs.exporting import END
from conversations.queries import lookup
from conversations.serializers.transfer import transferred
from conversations.states import ACTIVE, ARCHIVED, DELETED, NOT_TRASHED, PURGED
from conversations.writes.create import DUPLICATE_KEY, insert_all

BATCH = 200  # lines
REPAIRABLE_BYTES = 1024 * 1024  # of a line with unpaired surrogates: 0.1 s
BATCH_BYTES = 2 * 1024 * 1024  # the last line can exceed this
ATTEMPTS = 5  # ids that are tried for each conversation
# An id contains its creation time. A server with a clock less than this behind can still create an
# id with that time, for any user.
OLD_ENOUGH = timedelta(minutes=1)


@dataclass(frozen=True)
class ImportResult:
    line: int
    id: ObjectId | None
    status: int
    code: str | None = None
    message: Message | None = None
    errors: Sequence[dict[str, str]] = ()
    adjusted: Sequence[str] = ()


def results(
    user_id: str, character_id: str | None, read_body: Callable[[], IO[bytes]]
) -> Generator[dict[str, Any]]:
    """Import each line and close the body. The last row counts the results.

    `character_id` is the default for lenient lines. Holds an `imports` slot until it ends. Raises
    RateLimitExceeded or TransfersExhausted before it reads the body.
    """
    statuses: Counter[int] = Counter()
    with imports.slot(user_id), read_body() as body:
        for batch in batches(user_id, character_id, body):
            for result in batch.results():
                statuses[result.status] += 1
                yield vars(result)
        created, unchanged = statuses[HTTPStatus.CREATED], statuses[HTTPStatus.OK]
        skipped = statuses[ConversationPurged.status]
        yield {
            "object": END,
            "count": statuses.total(),
            "created": created,
            "unchanged": unchanged,
            "skipped": skipped,
            "failed": statuses.total() - created - unchanged - skipped,
        }


def batches(user_id: str, character_id: str | None, body: Iterable[bytes]) -> Iterator["_Batch"]:
    batch = _Batch(user_id, character_id)
    for number, line in enumerate(body, start=1):
        time.sleep(0)  # under gevent, other requests run between two lines
        batch.add(number, line)
        if batch.is_full():
            yield batch
            batch = _Batch(user_id, character_id)
    yield batch


class _Batch:
    def __init__(self, user_id: str, character_id: str | None) -> None:
        self._user_id = user_id
        self._character_id = character_id
        self._now = clock.now()
        self._bytes = 0
        self._results: dict[int, ImportResult] = {}
        self._pending: dict[int, _Row] = {}

    def add(self, number: int, line: bytes) -> None:
        """Validate a line and keep its document. Skip empty lines and the end of an export.

        A line can start with a BOM: a body can consist of several files.
        """
        line = line.removeprefix(BOM_UTF8)
        if not line.strip():
            return
        try:
            value, sent = _parse(line, number)
            if isinstance(value, dict) and value.get("object") == END:
                return
            document, adjusted = self._read(value, sent)
        except ValidationError as invalid:
            self._reject(number, invalid_input(invalid))
            return
        except ServiceError as failure:
            self._reject(number, failure)
            return
        self._bytes += len(line)
        ids = _Ids.derive(self._user_id, document["_id"], self._now)
        self._pending[number] = _Row(document, ids, adjusted)

    def _read(self, value: Any, sent: Any) -> tuple[Document, Sequence[str]]:
        """Return the document for a line, and the paths of the values that were adjusted."""
        if lenient.is_lenient(value):
            return lenient.read(self._user_id, value, self._character_id, self._now, sent=sent)
        values = transferred.run_validation(value)
        adjusted = adjust(value, values, self._now)
        former = ARCHIVED if values["archived_at"] else ACTIVE
        given = {name: values[name] for name in ("character_id", *EDITABLE_FIELDS)}
        document = (
            documents.new(user_id=self._user_id, now=self._now, **given)
            | {name: values[name] for name in PUBLIC if name not in {"user_id", "settings"}}
            | {
                "_id": values["id"],
                "previous_status": former if values["status"] == DELETED else None,
                "revisions": [*reversed(values["history"])],
            }
        )
        return document, adjusted

    def is_full(self) -> bool:
        rows = len(self._pending) + len(self._results)
        return rows >= BATCH or self._bytes >= BATCH_BYTES

    def results(self, *, dry_run: bool = False) -> list[ImportResult]:
        """Import the lines. With `dry_run`, only return the results that they would have."""
        for attempt in range(1 if dry_run else ATTEMPTS):
            self.settle_known()
            self.reject_beyond_quota()
            if not self._pending:
                break
            self.insert(attempt, dry_run=dry_run)
        for number in [*self._pending]:
            self._reject(number, ConversationIdTaken())
        return [self._results[number] for number in sorted(self._results)]

    def settle_known(self) -> None:
        """Settle each line with a conversation that exists or was purged.

        A purge between this and the insert leaves a tombstone, so the insert fails, and the next
        attempt settles the line.
        """
        wanted = [id_ for row in self._pending.values() for id_ in row.ids.known]
        states = lookup.states_of(self._user_id, wanted)
        for number, row in [*self._pending.items()]:
            found = [id_ for id_ in row.ids.known if id_ in states]
            existing = [id_ for id_ in found if states[id_] != PURGED]
            if existing:
                self._settle(number, existing[0], HTTPStatus.OK)
            elif found:
                self._reject(number, ConversationPurged())

    def reject_beyond_quota(self) -> None:
        limit = settings.MAX_CONVERSATIONS_PER_USER
        counted = [n for n, row in self._pending.items() if row.document["status"] in NOT_TRASHED]
        if limit and counted:
            room = limit - lookup.count_up_to(self._user_id, limit)
            for number in counted[room:]:
                self._reject(number, QuotaExceeded(limit=limit))

    def insert(self, attempt: int, *, dry_run: bool) -> None:
        """Insert the pending rows. A row stays pending if its id is in use."""
        rows = [*self._pending.items()]
        for _number, row in rows:
            row.document["_id"] = row.ids.possible[attempt]
        failed = {} if dry_run else insert_all([row.document for _number, row in rows])
        for index, (number, row) in enumerate(rows):
            if index not in failed:
                self._settle(number, row.document["_id"], HTTPStatus.CREATED)
            elif failed[index] != DUPLICATE_KEY:
                self._reject(number, ServiceError(_("The database rejected this conversation.")))

    def _settle(self, number: int, id_: ObjectId, status: int) -> None:
        row = self._pending.pop(number)
        adjusted = row.adjusted if status == HTTPStatus.CREATED else ()
        self._results[number] = ImportResult(number, id_, status, adjusted=adjusted)

    def _reject(self, number: int, failure: ServiceError) -> None:
        self._pending.pop(number, None)
        errors = failure.details.get("errors", ())
        self._results[number] = ImportResult(
            number, None, failure.status, failure.code, failure.message, errors
        )


def _parse(line: bytes, number: int) -> tuple[Any, Any]:
    """Return the value of a line, and the value before unpaired surrogates were replaced.

    Only in a lenient line are they replaced, by U+FFFD. In the second value they are missing.
    """
    try:
        value = ndjson.loads(line, number)
    except PayloadTooLarge:
        raise
    except ServiceError:
        if len(line) > REPAIRABLE_BYTES:
            raise
        repaired = replace_unpaired_surrogates(line, rb"\ufffd")
        if repaired == line or not lenient.is_lenient(value := ndjson.loads(repaired, number)):
            raise
        return value, ndjson.loads(replace_unpaired_surrogates(line, b""), number)
    return value, value


@dataclass(frozen=True)
class _Row:
    """A valid line without a result. `adjusted` has the paths that adjust() changed."""

    document: Document
    ids: "_Ids"
    adjusted: Sequence[str]


@dataclass(frozen=True)
class _Ids:
    """The ids for a line.

    If the user has a conversation with a `known` id, the line is unchanged; if the user has purged
    it, the line is skipped. Otherwise the new conversation gets the first free `possible` id.
    """

    known: Sequence[ObjectId]
    possible: Sequence[ObjectId]

    @classmethod
    def derive(cls, user_id: str, id_: ObjectId, now: datetime) -> "_Ids":
        """Derive ids for this user from the id in the line; equal arguments give equal ids.

        The time in a derived id is before 2004, so no new conversation gets such an id. Release
        0.1.0 used the digests themselves.
        """
        key = user_id.encode()
        if len(key) > blake2b.MAX_KEY_SIZE:
            key = blake2b(key).digest()
        digests = [id_.binary]
        while len(digests) < ATTEMPTS:
            digests.append(blake2b(digests[-1], key=key, digest_size=12).digest())
        former = [ObjectId(digest) for digest in digests[1:]]
        derived = [ObjectId(bytes([digest[0] & 0x3F]) + digest[1:]) for digest in digests[1:]]
        first = id_ if id_.generation_time < now - OLD_ENOUGH else derived[0]
        return cls(known=[id_, *derived, *former], possible=[first, *derived])
