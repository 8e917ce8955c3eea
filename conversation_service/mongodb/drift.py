"""The differences between a database and the declared collections, and their repair."""

import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from threading import Thread

import bson
from pymongo import IndexModel
from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError, OperationFailure

from conversation_service.mongodb.collections import CollectionSchema
from conversation_service.mongodb.connection import Document, database

NAMESPACE_EXISTS, INDEX_NOT_FOUND, INDEX_BUILD_RUNNING = 48, 27, 12587
VALIDATOR = "validator"
EXPIRY = "expireAfterSeconds"
POLL_S = 0.1


class State(StrEnum):
    KEPT = "kept"
    MISSING = "missing"
    CHANGED = "changed"
    CONFLICT = "conflict"
    EXTRA = "extra"


@dataclass(frozen=True)
class IndexDrift:
    """The state of an index or validator.

    `stored_as` is the stored index's name, if any. In a conflict it can differ from the declared
    name, with the same definition.
    """

    collection: str
    name: str
    state: State
    stored_as: str = ""


def compare(schema: CollectionSchema) -> list[IndexDrift]:
    """Return the state of each index and validator, declared or stored."""
    stored: dict[str, Document] = {
        index["name"]: dict(index)
        for index in database()[schema.name].list_indexes()
        if index["name"] != "_id_"
    }
    findings = [compare_index(schema, index, stored) for index in schema.indexes]
    known = {finding.name for finding in findings} | {finding.stored_as for finding in findings}
    if not schema.migrated:
        extra = [name for name in stored if name not in known]
        findings += [IndexDrift(schema.name, name, State.EXTRA, name) for name in extra]
    if schema.validator is not None:
        findings.append(compare_validator(schema))
    return findings


def repair(schema: CollectionSchema, findings: Sequence[IndexDrift], *, builds: int = 1) -> None:
    """Repair these differences.

    Splits the missing indexes into `builds` concurrent builds. Each reads the whole collection and
    uses a CPU core in MongoDB. Concurrent runs are safe. A replaced index serves no query and
    enforces no uniqueness until its build ends.

    Raises DuplicateKeyError for an index that cannot be unique; no index of its build exists then.
    """
    declared = {index.document["name"]: index for index in schema.indexes}
    to_build = []
    for finding in findings:
        if finding.name == VALIDATOR:
            with _tolerated(NAMESPACE_EXISTS):
                database().create_collection(schema.name, check_exists=False)
            modify_collection(schema.name, _validation(schema))
        elif finding.state is State.CHANGED:
            change = {"name": finding.name, EXPIRY: declared[finding.name].document[EXPIRY]}
            modify_collection(schema.name, {"index": change})
        else:
            if finding.stored_as:
                with _tolerated(INDEX_NOT_FOUND):
                    database()[schema.name].drop_index(finding.stored_as)
            to_build += [declared[finding.name]] if finding.name in declared else []
    shares = [to_build[number::builds] for number in range(min(builds, len(to_build)))]
    running = [_start_build(database()[schema.name], share) for share in shares]
    wait(running)
    for build in running:
        build.result()


def _start_build(collection: Collection[Document], indexes: list[IndexModel]) -> Future[None]:
    """Build indexes in a daemon thread, for which an interrupted process does not wait."""
    build: Future[None] = Future()

    def run() -> None:
        try:
            collection.create_indexes(indexes)
        except BaseException as error:  # noqa: BLE001 - raised by result()
            build.set_exception(error)
        else:
            build.set_result(None)

    Thread(target=run, daemon=True).start()
    return build


def building(name: str) -> tuple[int, int] | None:
    """Return the progress of the index builds in a collection: done and total.

    A build reads documents, and then writes keys. Returns None if no build runs, or if the account
    may not list operations.
    """
    wanted = {"command.createIndexes": name, "progress.total": {"$gt": 0}}
    stages: list[Document] = [{"$currentOp": {"allUsers": True}}, {"$match": wanted}]
    try:
        running = database().client.admin.aggregate(stages).to_list()
    except OperationFailure:
        return None
    progress = [op["progress"] for op in running]
    if not progress:
        return None
    return sum(part["done"] for part in progress), sum(part["total"] for part in progress)


def failed_index(error: DuplicateKeyError) -> str:
    """Return the name of the index that cannot be built. The rest of the error is user data."""
    named = re.search(r" index: (\S+) ", str((error.details or {}).get("errmsg", "")))
    return named[1] if named else "a unique index"


def compare_index(
    schema: CollectionSchema, index: IndexModel, stored: dict[str, Document]
) -> IndexDrift:
    name = index.document["name"]
    wanted = _definition(index.document)
    if name in stored:
        found = _definition(stored[name], like=wanted)
        state = State.CONFLICT
        if found == wanted:
            state = State.KEPT
        elif EXPIRY in wanted and _identity(found) == _identity(wanted):
            state = State.CHANGED
        return IndexDrift(schema.name, name, state, name)
    for other, document in stored.items():
        if _identity(_definition(document, like=wanted)) == _identity(wanted):
            return IndexDrift(schema.name, name, State.CONFLICT, other)
    return IndexDrift(schema.name, name, State.MISSING)


def _identity(definition: Document) -> Document:
    """Return the definition without the expiry, the only option that can be changed in place.

    MongoDB rejects two indexes with the same identity.
    """
    return {option: value for option, value in definition.items() if option != EXPIRY}


def _definition(index: Document, like: Document | None = None) -> Document:
    """Return an index's definition without its name, for comparisons.

    MongoDB adds its defaults to a collation: keep only the parts in `like`.
    """
    definition = _as_stored(index)
    for option in ("name", "v", "ns", "background"):
        definition.pop(option, None)
    definition["key"] = list(definition["key"].items())  # keeps the order
    if like and "collation" in like and "collation" in definition:
        parts = definition["collation"]
        definition["collation"] = {part: parts[part] for part in like["collation"] if part in parts}
    return definition


def _as_stored(document: Document) -> Document:
    """Return the document as the database returns it: tuples become lists, times naive."""
    return bson.decode(bson.encode(document))


def compare_validator(schema: CollectionSchema) -> IndexDrift:
    wanted = _as_stored(_validation(schema))
    options = database()[schema.name].options()
    if not options.get("validator"):
        return IndexDrift(schema.name, VALIDATOR, State.MISSING)
    found = {option: options.get(option) for option in wanted}
    return IndexDrift(schema.name, VALIDATOR, State.KEPT if found == wanted else State.CHANGED)


def modify_collection(name: str, change: Document) -> None:
    """Run collMod, after a concurrent index build has ended."""
    while True:
        try:
            database().command("collMod", name, **change)
            return
        except OperationFailure as failure:
            if failure.code != INDEX_BUILD_RUNNING:
                raise
        time.sleep(POLL_S)


def _validation(schema: CollectionSchema) -> Document:
    return {
        "validator": schema.validator,
        # Older documents must stay writable if a rule becomes stricter.
        "validationLevel": "moderate",
        "validationAction": "error",
    }


@contextmanager
def _tolerated(code: int) -> Iterator[None]:
    """Ignore this failure: another run has done the work."""
    try:
        yield
    except OperationFailure as failure:
        if failure.code != code:
            raise
