"""From the lines of an export to conversations.

Each line has a result of its own, whatever becomes of the others. Nothing that exists is ever
overwritten, so an import may be repeated.
"""

import time
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

from conversation_service import clock, ndjson
from conversation_service.errors import Message, ServiceError
from conversation_service.exception_handler import invalid_input
from conversation_service.mongodb.connection import Document
from conversations import documents, store
from conversations.documents import PUBLIC
from conversations.exceptions import ConversationIdTaken, QuotaExceeded
from conversations.transfer.adjusting import adjust
from conversations.transfer.concurrency import imports
from conversations.transfer.exporting import END
from conversations.transfer.serializers import transferred

# Conversations that are inserted together, and the bytes of their lines: a batch takes one line
# more at most.
BATCH = 200
BATCH_BYTES = 2 * 1024 * 1024
# Ids that are tried for a conversation whose own cannot be kept.
ATTEMPTS = 5
# An id holds the time when it was made. Younger ones may be those of the next conversations, of
# any user, on a server whose clock is behind.
OLD_ENOUGH = timedelta(minutes=1)


@dataclass(frozen=True)
class Result:
    line: int
    id: ObjectId | None
    status: int
    code: str | None = None
    message: Message | None = None
    errors: Sequence[dict[str, str]] = ()
    adjusted: Sequence[str] = ()


def results(user_id: str, read_body: Callable[[], IO[bytes]]) -> Generator[dict[str, Any]]:
    """Import line by line, and close the body; the last row says how many had which result.

    Holds a slot of `imports` until it ends. Raises RateLimitExceeded or TransfersExhausted
    before it reads the body.
    """
    statuses: Counter[int] = Counter()
    with imports.slot(user_id), read_body() as body:
        for batch in _batches(user_id, body):
            for result in batch.results():
                statuses[result.status] += 1
                yield vars(result)
        created, unchanged = statuses[HTTPStatus.CREATED], statuses[HTTPStatus.OK]
        yield {
            "object": END,
            "count": statuses.total(),
            "created": created,
            "unchanged": unchanged,
            "failed": statuses.total() - created - unchanged,
        }


def _batches(user_id: str, body: Iterable[bytes]) -> Iterator["_Batch"]:
    batch = _Batch(user_id)
    for number, line in enumerate(body, start=1):
        time.sleep(0)  # under gevent, other requests run between two lines
        batch.add(number, line)
        if batch.is_full():
            yield batch
            batch = _Batch(user_id)
    yield batch


class _Batch:
    def __init__(self, user_id: str) -> None:
        self._user_id = user_id
        self._now = clock.now()
        self._bytes = 0
        self._results: dict[int, Result] = {}
        self._pending: dict[int, Document] = {}
        self._adjusted: dict[int, list[str]] = {}
        self._ids: dict[int, _Ids] = {}

    def add(self, number: int, line: bytes) -> None:
        """Validate a line and keep its document; empty lines and the end of an export have none."""
        if not line.strip():
            return
        try:
            value = ndjson.loads(line)
            if isinstance(value, dict) and value.get("object") == END:
                return
            values = _validated(value)
        except ServiceError as failure:
            self._refuse(number, failure)
            return
        self._bytes += len(line)
        self._adjusted[number] = adjust(values, self._now)
        self._ids[number] = _Ids.of(self._user_id, values["id"], self._now)
        self._pending[number] = _document(self._user_id, values, self._now)

    def is_full(self) -> bool:
        rows = len(self._pending) + len(self._results)
        return rows >= BATCH or self._bytes >= BATCH_BYTES

    def results(self) -> list[Result]:
        for attempt in range(ATTEMPTS):
            self._settle_those_there()
            self._refuse_those_beyond_quota()
            if not self._pending:
                break
            self._insert_under(attempt)
        for number in [*self._pending]:
            self._refuse(number, ConversationIdTaken())
        return [self._results[number] for number in sorted(self._results)]

    def _settle_those_there(self) -> None:
        wanted = [id_ for number in self._pending for id_ in self._ids[number].known]
        states = store.states_of(self._user_id, wanted)
        for number in [*self._pending]:
            known = self._ids[number].known
            there = [id_ for id_ in known if states.get(id_, "purged") != "purged"]
            if there:
                self._settle(number, there[0], HTTPStatus.OK)

    def _refuse_those_beyond_quota(self) -> None:
        limit = settings.MAX_CONVERSATIONS_PER_USER
        counted = [n for n, row in self._pending.items() if row["status"] != "deleted"]
        if limit and counted:
            room = limit - store.count_up_to(self._user_id, limit)
            for number in counted[room:]:
                self._refuse(number, QuotaExceeded(limit=limit))

    def _insert_under(self, attempt: int) -> None:
        """Insert what is pending; what stays pending has an id that is taken.

        A tombstone's is taken too: for other devices and services that conversation is gone.
        """
        numbers = [*self._pending]
        for number, document in self._pending.items():
            document["_id"] = self._ids[number].possible[attempt]
        failed = store.insert_all([*self._pending.values()])
        for index, number in enumerate(numbers):
            if index not in failed:
                self._settle(number, self._ids[number].possible[attempt], HTTPStatus.CREATED)
            elif failed[index] != store.DUPLICATE_KEY:
                self._refuse(number, ServiceError(_("The database does not accept this.")))

    def _settle(self, number: int, id_: ObjectId, status: int) -> None:
        del self._pending[number]
        adjusted = self._adjusted[number] if status == HTTPStatus.CREATED else ()
        self._results[number] = Result(number, id_, status, adjusted=adjusted)

    def _refuse(self, number: int, failure: ServiceError) -> None:
        self._pending.pop(number, None)
        errors = failure.details.get("errors", ())
        self._results[number] = Result(
            number, None, failure.status, failure.code, failure.message, errors
        )


def _validated(value: Any) -> dict[str, Any]:
    try:
        values: dict[str, Any] = transferred.run_validation(value)
    except ValidationError as invalid:
        raise invalid_input(invalid) from None
    return values


def _document(user_id: str, values: dict[str, Any], now: datetime) -> Document:
    """Return what the line's conversation was, but for whose it is and when it last changed."""
    given = {name: values[name] for name in ("character_id", "title", "settings", "tags", "custom")}
    return (
        documents.new(user_id=user_id, now=now, **given)
        | {name: values[name] for name in PUBLIC if name != "user_id"}
        | {
            "_id": values["id"],
            "previous_status": _status_before_the_trash(values),
            "revisions": [*reversed(values["history"])],
        }
    )


def _status_before_the_trash(values: dict[str, Any]) -> str | None:
    if values["status"] != "deleted":
        return None
    return "archived" if values["archived_at"] else "active"


@dataclass(frozen=True)
class _Ids:
    """The ids that one line may have: each `known` one is the line's, if the user has it.

    A new conversation gets the first of the `possible` ones that is free.
    """

    known: Sequence[ObjectId]
    possible: Sequence[ObjectId]

    @classmethod
    def of(cls, user_id: str, id_: ObjectId, now: datetime) -> "_Ids":
        """Derive ids for this user from the one in the line, always the same ones.

        Derived ids lie before 2004, so that they are nobody's future ids. Release 0.1.0 used
        the digests themselves.
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
