"""From the lines of an export to conversations.

Each line has a result of its own, whatever becomes of the others. Nothing that exists is ever
overwritten, so an import may be repeated.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b
from http import HTTPStatus
from typing import IO, Any

import orjson
from bson import ObjectId
from django.conf import settings
from django.utils.translation import gettext as _
from rest_framework.exceptions import ValidationError

from conversation_service import clock
from conversation_service.errors import Message, ServiceError
from conversation_service.exception_handler import invalid_input
from conversation_service.mongodb.connection import Document
from conversation_service.ndjson import batches
from conversations import documents, store
from conversations.documents import PUBLIC
from conversations.exceptions import ConversationIdTaken, QuotaExceeded
from conversations.transfer.exporting import END
from conversations.transfer.serializers import transferred

BATCH = 200
# Ids that are tried for a conversation whose own is somebody else's.
ATTEMPTS = 5


@dataclass(frozen=True)
class Result:
    line: int
    id: ObjectId | None
    status: int
    code: str | None = None
    message: Message | None = None
    errors: Sequence[dict[str, str]] = field(default_factory=list)


def results(user_id: str, body: IO[bytes]) -> Iterator[dict[str, Any]]:
    """Import line by line, and close the body; the last row says how many had which result."""
    statuses: Counter[int] = Counter()
    with body:
        for batch in batches(_numbered(body), BATCH):
            for result in _Batch(user_id, batch).results():
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


def _numbered(body: Iterable[bytes]) -> Iterator[tuple[int, Any]]:
    """Parse all lines but empty ones and the end of an export; None is no JSON."""
    for number, line in enumerate(body, start=1):
        time.sleep(0)  # under gevent, others have their turn between two lines
        if not line.strip():
            continue
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError:
            value = None
        if not (isinstance(value, dict) and value.get("object") == END):
            yield number, value


class _Batch:
    def __init__(self, user_id: str, lines: Iterable[tuple[int, Any]]) -> None:
        self._user_id = user_id
        self._results: dict[int, Result] = {}
        self._pending: dict[int, Document] = {}
        self._ids: dict[int, list[ObjectId]] = {}
        now = clock.now()
        for number, value in lines:
            try:
                document = _document(user_id, _validated(value), now)
            except ServiceError as failure:
                self._refuse(number, failure)
                continue
            self._pending[number] = document
            self._ids[number] = _ids(user_id, document["_id"])

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
        wanted = [id_ for number in self._pending for id_ in self._ids[number]]
        states = store.states_of(self._user_id, wanted)
        for number in [*self._pending]:
            there = [id_ for id_ in self._ids[number] if states.get(id_, "purged") != "purged"]
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
            document["_id"] = self._ids[number][attempt]
        failed = store.insert_all([*self._pending.values()])
        for index, number in enumerate(numbers):
            if index not in failed:
                self._settle(number, self._ids[number][attempt], HTTPStatus.CREATED)
            elif failed[index] != store.DUPLICATE_KEY:
                self._refuse(number, ServiceError(_("The database does not accept this.")))

    def _settle(self, number: int, id_: ObjectId, status: int) -> None:
        del self._pending[number]
        self._results[number] = Result(number, id_, status)

    def _refuse(self, number: int, failure: ServiceError) -> None:
        self._pending.pop(number, None)
        errors = failure.details.get("errors", [])
        self._results[number] = Result(
            number, None, failure.status, failure.code, failure.message, errors
        )


def _validated(value: Any) -> dict[str, Any]:
    if value is None:
        raise ServiceError(_("This line is not valid JSON."))
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


def _ids(user_id: str, id_: ObjectId) -> list[ObjectId]:
    """Return the id, and those that this user's import uses, always the same, if it is taken."""
    key = user_id.encode()
    if len(key) > blake2b.MAX_KEY_SIZE:  # shorter ids stay as they are: their imports repeat
        key = blake2b(key).digest()
    ids = [id_]
    while len(ids) < ATTEMPTS:
        digest = blake2b(ids[-1].binary, key=key, digest_size=12).digest()
        ids.append(ObjectId(digest))
    return ids
