"""A backup holds the database of one moment, and a restore changes nothing in it."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from threading import Event, Thread
from typing import cast

import pytest
from bson import (
    Binary,
    Code,
    DBRef,
    Decimal128,
    Int64,
    MaxKey,
    MinKey,
    ObjectId,
    Regex,
    Timestamp,
    encode,
    json_util,
)
from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from django_mongodb_backend.base import DatabaseWrapper
from pymongo.database import Database

from conversation_service import clock
from conversation_service.backups import archive, backup, restore
from tests.factories import PATH, conversation
from tests.failpoints import failing

DATA = Path(__file__).parents[1] / "data" / "0.1.0"
RELEASE_0_1_0 = [
    json_util.loads(line, json_options=json_util.JSONOptions(tz_aware=False))
    for line in (DATA / "conversations.ndjson").read_text().splitlines()
]
WITHOUT_DOCUMENTS = {"cache", "django_session"}
MOMENT = datetime.fromisoformat("2026-11-28T09:30:00.123")
VALUES = [
    *(1, Int64(1), 1.0, -0.0, float("nan"), float("inf"), 2**31 - 1, Int64(2**63 - 1)),
    *(Decimal128("1.50"), Decimal128("NaN"), b"\x00\xff", Binary(b"old", 2), Binary(b"u" * 16, 4)),
    *(
        datetime.fromisoformat("2026-11-28T09:30:00.123"),
        datetime.fromisoformat("0001-01-01"),
        Timestamp(1, 2),
    ),
    *("", "\x00", "e\u0301", "\U0001f525", None, True, [], {}, [[{"a": [None]}]], {"b": 1, "a": 2}),
    *(ObjectId(), Regex("^a", "i"), Code("x"), Code("x", {"y": 1}), MinKey(), MaxKey()),
    *(DBRef("a", 1), {"$set": 1, "a.b": 2, "": 3}),
]
IDS = [
    *range(40),
    Int64(2**40),
    1.5,
    "a",
    "b",
    {"a": 1},
    b"\x01",
    ObjectId(),
    datetime.fromisoformat("2026-01-01"),
]


@pytest.fixture
def source(mongo, alice) -> Iterator[Database]:
    """The database of the tests with documents of every kind."""
    for number in range(30):
        conversation(alice, title=f"Conversation {number}")
    # Not expired: a TTL index would delete them during the test.
    in_use = {"expires_at": clock.now() + timedelta(days=1)}
    mongo["conversations"].insert_many(
        row | in_use if row["status"] == "purged" else row for row in RELEASE_0_1_0
    )
    User.objects.create_superuser("admin", password="one for the tests")
    mongo["django_session"].insert_one({"_id": ObjectId(), "session_key": "secret"})
    mongo["cache"].insert_one({"_id": "attempts", "value": 5})
    mongo["of every type"].insert_many(
        {"_id": id_, "value": VALUES[number % len(VALUES)], "rest": "x" * 100}
        for number, id_ in enumerate(IDS)
    )
    mongo["of every type"].create_index("value", name="partial", partialFilterExpression={"a": 1})
    mongo.create_collection("empty", collation={"locale": "es"}, check_exists=False)
    yield mongo
    for name in ("of every type", "empty"):
        mongo.drop_collection(name)


@pytest.fixture
def other(mongo) -> Iterator[Database]:
    """An empty database."""
    empty = mongo.client[f"{mongo.name}_restored"]
    mongo.client.drop_database(empty)
    yield empty
    mongo.client.drop_database(empty)


@pytest.fixture
def small_parts(monkeypatch):
    """Parts and batches of a few documents, so that each collection has several."""
    monkeypatch.setattr(archive, "PART_BYTES", 500)
    monkeypatch.setattr(backup, "BATCH", 4)
    monkeypatch.setattr(restore, "BATCH_BYTES", 3_000)


@contextmanager
def used(database: Database) -> Iterator[None]:
    """Let the service use another database."""
    wrapper = cast(DatabaseWrapper, connection)
    former, wrapper.database = wrapper.database, database
    try:
        yield
    finally:
        wrapper.database = former


def back_up(folder: Path, *options: str) -> None:
    call_command("backup", str(folder), *options)


def restored(folder: Path, database: Database, *options: str) -> None:
    with used(database):
        call_command("restore", str(folder), *options)


def documents(database: Database) -> dict[str, list[bytes]]:
    """Return each document of each collection as the server stores it."""
    return {
        name: list(archive.split(b"".join(database[name].find_raw_batches(sort=[("_id", 1)]))))
        for name in database.list_collection_names()
    }


def structure(database: Database) -> dict[str, tuple]:
    return {
        each["name"]: (
            each["options"],
            {index["name"]: dict(index) for index in database[each["name"]].list_indexes()},
        )
        for each in database.list_collections()
    }


def without_transient(stored: dict[str, list[bytes]]) -> dict[str, list[bytes]]:
    return stored | {name: [] for name in WITHOUT_DOCUMENTS}


@contextmanager
def refused(code: int, text: str) -> Iterator[None]:
    with pytest.raises(CommandError, match=text) as error:
        yield
    assert error.value.returncode == code, error.value


def test_every_document_index_and_validator_is_restored(source, other, tmp_path, alice, capsys):
    before = documents(source)

    back_up(tmp_path / "backup")
    restored(tmp_path / "backup", other)

    assert documents(other) == without_transient(before)
    assert sum(map(len, before.values())) > 200
    assert structure(other) == structure(source)
    with used(other):
        call_command("migrate", "--check", verbosity=0)
        call_command("setup_indexes", "--check", verbosity=0)
        titles = {item["title"] for item in alice.get(PATH, {"limit": 100}).json()["conversations"]}
    assert "Conversation 29" in titles
    assert User.objects.get(username="admin").check_password("one for the tests")
    assert capsys.readouterr().out.startswith("Backup: ")


@pytest.mark.usefixtures("small_parts")
def test_many_parts_are_restored_equally(source, other, tmp_path):
    before = documents(source)

    back_up(tmp_path / "backup")
    restored(tmp_path / "backup", other)

    assert len(list((tmp_path / "backup").glob("conversations.*"))) > 10
    assert documents(other) == without_transient(before)


def test_documents_that_the_validator_rejects_are_restored(mongo, other, tmp_path):
    mongo.command("collMod", "conversations", validationLevel="off")
    mongo["conversations"].insert_one({"_id": 1, "of": "an older release"})
    mongo.command("collMod", "conversations", validationLevel="moderate")

    back_up(tmp_path / "backup")
    restored(tmp_path / "backup", other)

    assert documents(other)["conversations"] == documents(mongo)["conversations"]


def test_other_tools_can_check_a_backup_that_only_its_owner_reads(source, tmp_path):
    folder = tmp_path / "backup"

    back_up(folder)

    checked = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"],  # noqa: S607
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert {line.split(": ")[0] for line in checked.stdout.splitlines()} == {
        path.name for path in folder.iterdir() if path.name != "SHA256SUMS"
    }
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def damages(folder: Path) -> Iterator[tuple[str, int | None]]:
    """Yield the name and the position of each bit to flip, or None to cut the last byte off."""
    for path in folder.iterdir():
        size = path.stat().st_size
        for position in {*range(min(size, 12)), size // 3, size // 2, size - 1}:
            yield path.name, position
        yield path.name, None


def test_a_damaged_backup_is_rejected_before_anything_changes(source, other, tmp_path):
    folder = tmp_path / "backup"
    back_up(folder)
    other["conversations"].insert_one({"_id": "kept"})
    before = documents(other)
    tried = set()

    for name, position in damages(folder):
        path = folder / name
        content = path.read_bytes()
        if position is None:
            path.write_bytes(content[:-1])
        else:
            flip(path, position)
        with refused(1, r"The backup is corrupt: \S+ does not have its checksum"):
            restored(folder, other, "--yes")
        tried.add(name)
        path.unlink()
        with refused(1, f"{name}(: No such file|.$)"):
            restored(folder, other, "--yes")
        path.write_bytes(content)

    assert len(tried) > 8
    assert documents(other) == before
    restored(folder, other, "--yes")


def test_parts_of_two_backups_are_rejected(source, other, tmp_path, alice):
    back_up(tmp_path / "first")
    conversation(alice)
    back_up(tmp_path / "second")

    for name in ("manifest.json", "SHA256SUMS", "conversations.00000.bson.gz"):
        path = tmp_path / "first" / name
        content = path.read_bytes()
        path.write_bytes((tmp_path / "second" / name).read_bytes())
        with refused(1, "The backup is corrupt"):
            restored(tmp_path / "first", other)
        path.write_bytes(content)

    assert other.list_collection_names() == []


def test_a_folder_that_is_no_backup_is_rejected(other, tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        with refused(1, "is not a complete backup"):
            restored(folder, other)


def test_a_dry_run_verifies_and_changes_nothing(source, other, tmp_path, capsys):
    back_up(tmp_path / "backup", "--dry-run")
    assert not (tmp_path / "backup").exists()
    back_up(tmp_path / "backup")

    restored(tmp_path / "backup", other, "--dry-run")

    assert other.list_collection_names() == []
    assert "verified" in capsys.readouterr().out
    flip(tmp_path / "backup" / "conversations.00000.bson.gz", 40)
    with refused(1, "corrupt"):
        restored(tmp_path / "backup", other, "--dry-run")


def test_nothing_is_overwritten_without_yes(source, other, tmp_path):
    folder = tmp_path / "backup"
    back_up(folder)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    other["django_session"].insert_one({"_id": "kept"})

    with refused(1, "complete backup; --yes"):
        back_up(folder)
    with refused(1, "has documents, in django_session"):
        restored(folder, other)

    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
    assert documents(other) == {"django_session": [next(archive.split(encoded("kept")))]}
    source["conversations"].delete_many({})
    back_up(folder, "--yes")
    restored(folder, other, "--yes")
    assert documents(other) == without_transient(documents(source))
    assert other["django_session"].count_documents({}) == 0


def encoded(id_: str) -> bytes:
    return encode({"_id": id_})


def test_a_folder_with_other_files_is_left_as_it_is(tmp_path):
    (tmp_path / "letter.txt").touch()

    for options in ((), ("--yes",)):
        with refused(1, "has other files"):
            back_up(tmp_path, *options)

    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_an_empty_database_is_no_successful_backup(other, tmp_path):
    with used(other), refused(1, f"{other.name} has no collections"):
        back_up(tmp_path / "backup")

    assert not (tmp_path / "backup").exists()


def test_a_folder_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "file").touch()

    with refused(1, "nowhere/backup: No such file or directory"):
        back_up(tmp_path / "nowhere" / "backup")
    with refused(1, "file: File exists"):
        back_up(tmp_path / "file")
    with archive.Archive(tmp_path / "backup").locked(), refused(1, "Another process writes to"):
        back_up(tmp_path / "backup")


class Crashed(Exception):
    """The process ends here."""


def stop_by_signal() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def crash() -> None:
    raise Crashed


def after(calls: int, action, function):
    """Return a function that takes an action after some of its calls."""
    numbers = count(1)

    def called(*arguments, **options):
        result = function(*arguments, **options)
        if next(numbers) == calls:
            action()
        return result

    return called


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("action", [stop_by_signal, crash])
def test_an_interrupted_backup_goes_on_with_its_snapshot(
    source, other, tmp_path, monkeypatch, alice, action
):
    before = documents(source)
    folder = tmp_path / "backup"
    write_part = archive.Archive.write_part

    for calls in (4, 12, 7, 1):
        monkeypatch.setattr(archive.Archive, "write_part", after(calls, action, write_part))
        with pytest.raises((Crashed, CommandError)) as error:
            back_up(folder)
        assert action is crash or error.value.returncode == 4
        with refused(1, "not a complete backup"):
            restored(folder, other)
        conversation(alice)
        source["of every type"].delete_one({})
    monkeypatch.setattr(archive.Archive, "write_part", write_part)
    done = len(list(folder.glob("*.gz")))
    back_up(folder)
    restored(folder, other)

    assert done > 5
    assert documents(other) == without_transient(before)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("action", [stop_by_signal, crash])
def test_an_interrupted_restore_goes_on(source, other, tmp_path, monkeypatch, action):
    folder = tmp_path / "backup"
    back_up(folder)
    other["conversations"].insert_one({"_id": "replaced"})
    insert_batch = restore._insert_batch

    for calls in (1, 5, 9):
        monkeypatch.setattr(restore, "_insert_batch", after(calls, action, insert_batch))
        with pytest.raises((Crashed, CommandError)) as error:
            restored(folder, other, *(["--yes"] if calls == 1 else []))
        assert action is crash or error.value.returncode == 4
        with used(other), refused(1, "unfinished restore"):
            back_up(tmp_path / "other")
    stored = sum(map(len, documents(other).values()))
    monkeypatch.setattr(restore, "_insert_batch", insert_batch)
    restored(folder, other)

    assert stored > 40
    assert documents(other) == without_transient(documents(source))
    assert structure(other) == structure(source)


def test_a_restore_goes_on_after_a_ttl_index_has_deleted_documents(source, other, tmp_path):
    back_up(tmp_path / "backup")
    with failing(times=1, commands=["collMod"], errorCode=11601), refused(4, "Run it again"):
        restored(tmp_path / "backup", other)
    expired = {"status": "purged"}
    assert other["conversations"].delete_many(expired).deleted_count > 0

    restored(tmp_path / "backup", other)

    assert structure(other) == structure(source)
    stored = source["conversations"].count_documents({"status": {"$ne": "purged"}})
    assert other["conversations"].count_documents({}) == stored


def test_another_backup_does_not_go_on_with_an_interrupted_restore(source, other, tmp_path, alice):
    back_up(tmp_path / "first")
    conversation(alice)
    back_up(tmp_path / "second")
    with (
        used(other),
        failing(times=1, commands=["insert"], errorCode=11601),
        refused(4, "Run it again"),
    ):
        call_command("restore", str(tmp_path / "first"))

    with refused(1, "has documents, in .*unfinished_restore"):
        restored(tmp_path / "second", other)
    restored(tmp_path / "second", other, "--yes")

    assert documents(other) == without_transient(documents(source))


@pytest.mark.parametrize("code", [239, 246])
def test_a_backup_without_its_snapshot_starts_anew(source, other, tmp_path, code):
    folder = tmp_path / "backup"
    with (
        failing(times=1, commands=["find"], errorCode=code),
        refused(4, "minSnapshotHistoryWindowInSeconds"),
    ):
        back_up(folder)

    assert list(folder.iterdir()) == []
    back_up(folder)
    restored(folder, other)


@pytest.mark.usefixtures("small_parts")
def test_an_unfinished_backup_of_another_structure_starts_anew(source, other, tmp_path):
    folder = tmp_path / "backup"
    with failing(times=1, commands=["getMore"], errorCode=11601), suppress(CommandError):
        back_up(folder)
    source["of every type"].create_index("rest", name="new")

    back_up(folder)
    restored(folder, other)

    assert documents(other) == without_transient(documents(source))
    assert structure(other) == structure(source)


@pytest.mark.usefixtures("small_parts")
def test_writes_during_a_backup_do_not_tear_it(mongo, other, tmp_path, monkeypatch):
    """A writer confirms each number in the last collection before it writes it to the first one."""
    first, last = mongo["a"], mongo["z"]
    stopped, numbers = Event(), count(1)

    def write() -> None:
        while not stopped.is_set():
            number = next(numbers)
            for collection in (last, first):
                collection.insert_one({"_id": number, "rest": "x" * 50})
                collection.update_one({"_id": 0}, {"$set": {"n": number}}, upsert=True)

    writer = Thread(target=write)
    writer.start()
    try:
        while first.estimated_document_count() < 50:
            pass
        confirmed = first.find_one({"_id": 0})["n"]
        back_up(tmp_path / "backup")
        written = last.find_one({"_id": 0})["n"]
    finally:
        stopped.set()
        writer.join()
        for collection in (first, last):
            collection.drop()
    restored(tmp_path / "backup", other)

    ids = {name: {row["_id"] for row in other[name].find()} - {0} for name in ("a", "z")}
    latest = {name: other[name].find_one({"_id": 0})["n"] for name in ("a", "z")}
    assert ids["a"] == set(range(1, len(ids["a"]) + 1))
    assert len(ids["z"]) - len(ids["a"]) in {0, 1}
    for name in ("a", "z"):
        assert len(ids[name]) - latest[name] in {0, 1}
    assert confirmed <= latest["a"] < written


def test_errors_contain_no_documents(source, other, tmp_path, capsys, log, caplog):
    source["of every type"].insert_one({"_id": "zz", "title": "MY MOST PRIVATE WORDS"})
    back_up(tmp_path / "backup")
    errors = []
    for how in ({"errorCode": 11601}, {"writeConcernError": {"code": 64, "errmsg": "x"}}):
        with (
            used(other),
            failing(times=1, commands=["insert"], **how),
            pytest.raises(CommandError) as error,
        ):
            call_command("restore", str(tmp_path / "backup"))
        assert error.value.returncode == 4
        errors.append(str(error.value))
    # Another process writes meanwhile.
    other["of every type"].insert_one({"_id": "zz"})
    with refused(1, "of every type differs from the backup"):
        restored(tmp_path / "backup", other)

    said = "".join([*errors, *capsys.readouterr(), log.getvalue(), caplog.text])
    assert "PRIVATE" not in said
    restored(tmp_path / "backup", other)
    assert documents(other) == without_transient(documents(source))


def test_a_full_disk_is_reported_and_the_backup_goes_on(source, other, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device", "part")

    with monkeypatch.context() as patched, refused(4, "part: No space left on device"):
        patched.setattr(archive.Archive, "write_part", full)
        back_up(tmp_path / "backup")

    back_up(tmp_path / "backup")
    restored(tmp_path / "backup", other)
