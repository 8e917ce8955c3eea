"""The conversations of the monolith are imported; each change is reported."""

import io
import json
import signal
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

import pytest
from bson import Decimal128, Int64, ObjectId, encode
from bson.datetime_ms import DatetimeMS
from bson.raw_bson import RawBSONDocument
from django.conf import settings
from django.core.management import CommandError, call_command
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from conversation_service import clock
from conversation_service.mongodb.connection import collection, database
from conversations import documents, limits
from conversations.jobs.legacy_import import take_over
from tests.conversations.test_export import exported
from tests.external_ids import IDS
from tests.factories import PATH, client_of

ROOT = Path(__file__).resolve().parents[2]
MONOLITH = "test_monolith"
CREATED = datetime(2024, 5, 6, 7, 8, 9, 123000, tzinfo=UTC)
UPDATED = datetime(2024, 6, 7, 8, 9, 10, 456000, tzinfo=UTC)


@pytest.fixture
def monolith(mongo):
    """The monolith's collection, as another database of the same server."""
    source = mongo.client[MONOLITH]["conversations"]
    source.drop()
    yield source
    mongo.client.drop_database(MONOLITH)


@pytest.fixture
def run(monolith, tmp_path, capsys):
    """Run the command; return its exit code, its totals and the lines of its report."""

    def command(*arguments):
        report = tmp_path / "report.ndjson"
        report.unlink(missing_ok=True)
        options = ["--from", settings.DATABASES["default"]["HOST"], "--database", MONOLITH]
        code = 0
        try:
            call_command("import_legacy", *options, "--json", "--report", str(report), *arguments)
        except CommandError as error:
            code = error.returncode
        printed = capsys.readouterr().out
        lines = [json.loads(line) for line in report.read_text().splitlines()]
        return code, json.loads(printed) if printed else None, lines

    return command


def old(**fields):
    """Return a valid document of the monolith; None leaves a field out."""
    whole = {
        "_id": ObjectId(),
        "user_id": "alice",
        "character_id": "luna",
        "title": "Noche con Luna",
        "is_archived": False,
        "message_count": 15,
        "total_tokens": 1250,
        "tags": ["casual"],
        "settings": {
            "temperature": 0.8,
            "max_tokens": 1000,
            "context_window": 2000,
            "top_p": 1,
            "frequency_penalty": 0.5,
            "presence_penalty": 0,
            "stop_sequences": ["END"],
        },
        "created_at": CREATED,
        "updated_at": UPDATED,
    } | fields
    return {name: value for name, value in whole.items() if value is not None}


def taken_over(run, monolith, **fields):
    """Import one document; return its resource, its repairs and its line in the report."""
    monolith.insert_one(old(**fields))
    code, totals, report = run()
    assert (code, totals["taken"], totals["not_taken"]) == (0, 1, 0), totals
    [line] = exported(client_of("alice"))
    return line, totals["repairs"], report


def test_a_valid_conversation_is_imported_completely(run, monolith):
    id_ = ObjectId()

    line, repairs, report = taken_over(run, monolith, _id=id_)

    assert line == {
        "id": str(id_),
        "object": "conversation",
        "user_id": "alice",
        "character_id": "luna",
        "character_status": "unverified",
        "title": "Noche con Luna",
        "title_source": "user",
        "status": "active",
        "is_archived": False,
        "pinned_at": None,
        "settings": documents.DEFAULTS["settings"] | old()["settings"],
        "settings_given": [*old()["settings"]],
        "tags": ["casual"],
        "custom": {},
        "metadata": {
            "message_count": 15,
            "total_tokens": 1250,
            "total_input_tokens": 0,
            "total_output_tokens": 0,
            "first_message_at": None,
            "last_message_at": None,
            "last_activity": "2024-06-07T08:09:10.456Z",
            "created_at": "2024-05-06T07:08:09.123Z",
            "updated_at": "2024-06-07T08:09:10.456Z",
        },
        "archived_at": None,
        "deleted_at": None,
        "purge_at": None,
        "forked_from": None,
        "version": 1,
        "retention": None,
        "history": [],
    }
    assert (repairs, report) == ({}, [])


def test_an_archived_one_has_its_last_change_as_archive_time(run, monolith):
    line, repairs, _ = taken_over(run, monolith, is_archived=True)

    assert (line["status"], line["archived_at"]) == ("archived", line["metadata"]["updated_at"])
    assert repairs == {}


def test_imported_conversations_can_be_used(run, monolith):
    line, *_ = taken_over(run, monolith)
    alice = client_of("alice")

    changed = alice.patch(f"{PATH}/{line['id']}", {"title": "Otra noche", "tags_add": ["x"]})

    assert changed.json()["version"] == 2
    assert [c["id"] for c in alice.get(PATH, {"tags": "CASUAL"}).json()["conversations"]] == [
        line["id"]
    ]


def test_ids_of_users_and_characters_become_text(run, monolith):
    user, character = ObjectId(), ObjectId()
    monolith.insert_one(old(user_id=user, character_id=character))

    assert run()[0] == 0

    [line] = exported(client_of(str(user)))
    assert (line["user_id"], line["character_id"]) == (str(user), str(character))


@pytest.mark.parametrize("id_", IDS, ids=ascii)
def test_every_id_is_kept(run, monolith, id_):
    monolith.insert_one(old(user_id=id_, character_id=id_, title=None))

    assert run()[0] == 0

    [line] = exported(client_of(id_))
    assert (line["user_id"], line["character_id"], line["title"]) == (id_, id_, id_[:200])


REPAIRED = [
    ("title", None, "title", "luna"),
    ("title", "  \n ", "title", "luna"),
    ("title", "  two\nlines\x00 ", "title", "two lines"),
    ("title", "e\u0301", "title", "é"),
    ("title", 42, "title", "42"),
    ("character_id", 7, "character_id", "7"),
    ("is_archived", None, "status", "active"),
    ("is_archived", 1, "status", "archived"),
    ("is_archived", "True", "status", "archived"),
    ("is_archived", "no", "status", "active"),
    ("message_count", None, "metadata.message_count", 0),
    ("message_count", "12", "metadata.message_count", 12),
    ("message_count", 12.0, "metadata.message_count", 12),
    ("message_count", Decimal128("12"), "metadata.message_count", 12),
    ("message_count", 12.5, "metadata.message_count", 0),
    ("message_count", -1, "metadata.message_count", 0),
    ("message_count", True, "metadata.message_count", 0),
    ("total_tokens", Int64(2**60), "metadata.total_tokens", 0),
    ("total_tokens", float("nan"), "metadata.total_tokens", 0),
    ("tags", None, "tags", []),
    ("tags", "a,b", "tags", ["a", "b"]),
    ("tags", {"a": 1}, "tags", []),
    ("tags", ["a", "A", "a,b", "", None, 7], "tags", ["a", "a b", "7"]),
    ("tags", ["x" * 60], "tags", ["x" * 50]),
    ("tags", ["\u200b", "a"], "tags", ["a"]),
    ("title", "\u3164", "title", "luna"),
    ("tags", [str(n) for n in range(12)], "tags", [str(n) for n in range(10)]),
    ("settings", None, "settings", documents.with_defaults({})),
    ("settings", [], "settings", documents.with_defaults({})),
    ("settings", {"temperature": 1}, "settings", documents.with_defaults({"temperature": 1})),
    ("settings.temperature", 9, "settings.temperature", 2.0),
    ("settings.temperature", "0.5", "settings.temperature", 0.5),
    ("settings.temperature", "hot", "settings.temperature", 0.7),
    ("settings.temperature", False, "settings.temperature", 0.7),
    ("settings.temperature", float("inf"), "settings.temperature", 0.7),
    ("settings.max_tokens", 2**40, "settings.max_tokens", 2**31 - 1),
    ("settings.max_tokens", 0, "settings.max_tokens", 1),
    ("settings.max_tokens", 10.5, "settings.max_tokens", 10),
    ("settings.model", "gpt", "settings.temperature", 0.8),
    ("settings.stop_sequences", "END", "settings.stop_sequences", []),
    ("settings.stop_sequences", ["a", "", 1, "x" * 65], "settings.stop_sequences", ["a"]),
    ("settings.stop_sequences", ["a"] * 11, "settings.stop_sequences", ["a"] * 10),
    ("created_at", "2024-01-15", "metadata.created_at", "2024-01-15T00:00:00.000Z"),
    (
        "created_at",
        "2024-01-15T10:00:00.5+02:00",
        "metadata.created_at",
        "2024-01-15T08:00:00.500Z",
    ),
    ("created_at", "2024-01-15T10:00:00", "metadata.created_at", "2024-01-15T10:00:00.000Z"),
    ("created_at", 1705312800, "metadata.created_at", "2024-01-15T10:00:00.000Z"),
    ("created_at", 1705312800000, "metadata.created_at", "2024-01-15T10:00:00.000Z"),
    ("updated_at", None, "metadata.updated_at", "2024-05-06T07:08:09.123Z"),
    ("updated_at", "yesterday", "metadata.updated_at", "2024-05-06T07:08:09.123Z"),
    ("model", "gpt", "title", "Noche con Luna"),
]


@pytest.mark.parametrize(("path", "value", "shown", "becomes"), REPAIRED)
def test_invalid_values_are_repaired_and_reported(run, monolith, path, value, shown, becomes):
    field, _, setting = path.partition(".")
    fields = {field: old()[field] | {setting: value}} if setting else {field: value}

    line, repairs, report = taken_over(run, monolith, **fields)

    for step in shown.split("."):
        line = line[step]
    assert line == becomes
    assert any(name.startswith(path) for name in repairs)
    [reported] = report
    assert reported["taken"]
    if value is not None:
        assert any("was" in repair for repair in reported["repairs"]) or field == "settings"


def test_a_missing_time_is_taken_from_the_id(run, monolith):
    id_ = ObjectId.from_datetime(CREATED)

    line, repairs, _ = taken_over(run, monolith, _id=id_, created_at=None, updated_at=None)

    assert line["metadata"]["created_at"] == "2024-05-06T07:08:09.000Z"
    assert repairs == {
        "created_at: missing, taken from the id": 1,
        "updated_at: missing, taken from created_at": 1,
    }


def test_a_time_after_the_year_9999_is_ignored(run, monolith):
    monolith.insert_one(old(updated_at=DatetimeMS(10**15)))

    code, totals, _ = run()

    assert (code, totals["taken"]) == (0, 1)
    assert totals["repairs"] == {"updated_at: no time, taken from created_at": 1}


def test_a_long_title_is_kept_beside_its_short_form(run, monolith):
    title = "Ñ" * 700

    line, _, report = taken_over(run, monolith, title=title)

    assert line["title"] == "Ñ" * limits.TITLE_LENGTH
    assert line["custom"] == {"legacy_title": "Ñ" * limits.CUSTOM_VALUE_LENGTH}
    assert report[0]["repairs"] == [
        {"field": "title", "kind": "cut, and kept in custom.legacy_title", "was": title}
    ]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"_id": "x"}, "_id: no ObjectId"),
        ({"_id": str(ObjectId())}, "_id: no ObjectId"),
        ({"user_id": None}, "user_id: missing"),
        ({"user_id": ""}, "user_id: no id that can be kept"),
        ({"user_id": "a b"}, "user_id: no id that can be kept"),
        ({"user_id": "x" * 256}, "user_id: no id that can be kept"),
        ({"character_id": None}, "character_id: missing"),
        ({"character_id": {"$oid": "x"}}, "character_id: no id that can be kept"),
    ],
)
def test_rejected_conversations_are_listed_with_reasons(run, monolith, fields, reason):
    monolith.insert_many([old(), old(**fields)])

    code, totals, report = run()

    assert code == 1
    assert (totals["read"], totals["taken"], totals["not_taken"]) == (2, 1, 1)
    assert totals["reasons"] == {reason: 1}
    [line] = report
    assert not line["taken"]
    assert [f"{r['field']}: {r['kind']}" for r in line["reasons"]] == [reason]


def test_text_that_is_not_utf_8_is_listed(run, monolith):
    id_ = ObjectId()
    monolith.insert_one(RawBSONDocument(encode(old(_id=id_)).replace(b"Noche", b"Noch\xff")))

    code, _, report = run()

    assert code == 1
    assert report[0]["id"] == str(id_)


def test_the_report_is_readable_only_by_its_owner(run, monolith, tmp_path):
    monolith.insert_one(old(title=""))

    run()

    assert stat.S_IMODE((tmp_path / "report.ndjson").stat().st_mode) == 0o600


def test_a_second_run_changes_nothing(run, monolith):
    monolith.insert_many([old(), old(title="")])
    run()
    before = list(collection("conversations").find())

    code, totals, report = run()

    assert code == 0
    assert (totals["taken"], totals["already_there"], totals["repairs"]) == (0, 2, {})
    assert report == []
    assert list(collection("conversations").find()) == before


def test_purged_conversations_stay_purged(run, monolith):
    alice = client_of("alice")
    line, *_ = taken_over(run, monolith)
    alice.delete(f"{PATH}/{line['id']}")
    alice.delete(f"{PATH}/{line['id']}?mode=purge")

    _, totals, _ = run()

    assert totals["already_there"] == 1
    assert exported(alice) == []


def test_an_id_of_another_user_is_rejected(run, monolith):
    line, *_ = taken_over(run, monolith)
    collection("conversations").update_one(
        {"_id": ObjectId(line["id"])}, {"$set": {"user_id": "b"}}
    )

    code, totals, _ = run()

    assert code == 1
    assert totals["reasons"] == {"_id: taken by another user's conversation": 1}


def test_a_dry_run_prints_the_same_and_changes_nothing(run, monolith):
    monolith.insert_many([old(), old(title=""), old(user_id="a b")])

    dry_run = run("--dry-run")
    nothing = collection("conversations").count_documents({})
    done = run()

    assert nothing == 0
    for _, totals, _ in (dry_run, done):
        del totals["dry_run"], totals["seconds"]
    assert dry_run == done


def test_a_run_continues_after_an_id(run, monolith):
    rows = [old() for _ in range(5)]
    monolith.insert_many(rows)

    _, totals, _ = run("--after", str(rows[1]["_id"]))

    assert totals["taken"] == 3
    assert totals["last_id"] == str(rows[4]["_id"])


def test_several_batches_are_imported(run, monolith):
    monolith.insert_many([old() for _ in range(1_200)])

    assert run()[1]["taken"] == collection("conversations").count_documents({}) == 1_200


def test_concurrent_runs_import_each_conversation_once(monolith):
    monolith.insert_many([old() for _ in range(2_000)])

    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: list(chain(*take_over(monolith))), range(2)))

    for one, other in zip(*both, strict=True):
        assert {one.already_there, other.already_there} == {True, False}
        assert not one.reasons
        assert not other.reasons


def test_the_output_lists_all_outcomes(monolith, capsys, tmp_path):
    monolith.insert_many([old(), old(title="")])

    call_command(
        "import_legacy",
        *("--from", settings.DATABASES["default"]["HOST"], "--database", MONOLITH),
        *("--report", str(tmp_path / "r")),
    )

    printed = capsys.readouterr().out
    assert "2 imported, 1 of them repaired" in printed
    assert "1 title: empty, named after the character" in printed


def test_a_log_has_lines_of_progress(monolith, tmp_path, monkeypatch):
    monkeypatch.setattr("conversation_service.progress.LINE_EVERY_S", 0)
    monolith.insert_one(old())
    errors = io.StringIO()

    call_command(
        "import_legacy",
        *("--from", settings.DATABASES["default"]["HOST"], "--database", MONOLITH),
        *("--report", str(tmp_path / "r")),
        stderr=errors,
    )

    assert "Read: 1 of about 1, " in errors.getvalue()


@pytest.mark.parametrize(
    ("arguments", "problem", "code"),
    [
        (["--from", "mongodb://x:y:z"], "--from: ", 1),
        (
            ["--from", "mongodb://localhost:1"],
            "^The MongoDB in --from cannot be used: localhost:1: .*Connection refused. Nothing was",
            3,
        ),
        (["--database", ""], "^--from names no database. Add it to the URI, as in", 1),
        (["--database", "a b"], "^--database or --collection: ", 1),
        (["--collection", "$x"], "^--database or --collection: ", 1),
        (["--from", "http://localhost"], "^--from: Invalid URI", 1),
        (["--database", "test_nothing"], "contains no documents", 1),
        (["--database", "test_conversation_service"], "is the collection of this service", 1),
        (["--after", "x"], "24 hexadecimal digits", 1),
        (["--report", "/nowhere/report"], "--report: ", 1),
    ],
)
def test_errors_state_why_the_command_cannot_run(
    arguments, problem, code, monolith, tmp_path, monkeypatch
):
    monkeypatch.setattr("conversations.management.commands.import_legacy.CONNECT_MS", 100)
    collection("conversations").insert_one(
        documents.new(user_id="alice", character_id="luna", now=clock.now())
    )
    monolith.insert_one(old())
    defaults = ["--from", settings.DATABASES["default"]["HOST"], "--report", str(tmp_path / "r")]
    defaults += ["--database", MONOLITH]

    with pytest.raises(CommandError, match=problem) as failure:
        call_command("import_legacy", *defaults, *arguments)

    assert failure.value.returncode == code
    assert ".." not in str(failure.value)


def test_a_signal_ends_the_run_after_the_batch_with_the_id_to_resume(monolith, tmp_path):
    monolith.insert_many([old() for _ in range(20_000)])
    url = settings.DATABASES["default"]["HOST"]
    process = subprocess.Popen(
        [
            *(sys.executable, "manage.py", "import_legacy", "--from", url),
            *("--database", MONOLITH, "--report", str(tmp_path / "r")),
        ],
        cwd=ROOT,
        env={"ENVIRONMENT": "test", "MONGODB_URL": url, "PATH": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not collection("conversations").find_one():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)

    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)

    taken = collection("conversations").count_documents({})
    last = collection("conversations").find_one(sort=[("_id", -1)])["_id"]
    assert process.returncode == 4
    assert 0 < taken < 20_000
    assert f"--after {last}" in errors


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
    | st.datetimes()
    | st.binary(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", *documents.SETTINGS]), inner)
    ),
    max_leaves=12,
)
FIELDS = [name for name in old() if name not in {"_id", "user_id", "character_id"}]


@hypothesis_settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(fields=st.dictionaries(st.sampled_from(FIELDS), ANYTHING))
def test_any_document_of_the_monolith_is_imported(run, monolith, fields):
    monolith.delete_many({})
    database()["conversations"].delete_many({})
    monolith.insert_one(old() | fields)

    code, totals, _ = run()

    assert (code, totals["taken"]) == (0, 1), totals
