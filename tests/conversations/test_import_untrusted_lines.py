"""An import of one user does not harm the creates, the lists or the worker of others."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from bson import ObjectId
from django.core.management import call_command

from conversation_service import clock
from conversation_service.mongodb.connection import collection
from tests.conversations.test_export import exported
from tests.conversations.test_import import (
    forget_everything,
    id_of,
    imported,
    make_older,
    outcome,
    post,
    statuses,
)
from tests.factories import PATH, client_of, conversation

FAR = "9999-12-31T00:00:00.000Z"
ADJUSTED_TIMES = [
    *("metadata.first_message_at", "metadata.last_message_at", "metadata.last_activity"),
    *("metadata.created_at", "metadata.updated_at", "pinned_at"),
]


@pytest.fixture
def line(alice):
    """A line of an export with one revision. The conversation itself is deleted."""
    alice.patch(f"{PATH}/{conversation(alice)['id']}", {"title": "New"})
    make_older()
    [line] = exported(alice)
    forget_everything()
    return line


def put(line, path, value):
    *parents, last = (int(step) if step.isdigit() else step for step in path.split("."))
    for step in parents:
        line = line[step]
    line[last] = value


@pytest.mark.parametrize("seconds", [-50, 0, 30, 60, 3_600, 2**31])
def test_an_id_with_a_current_or_future_time_is_not_kept(alice, line, seconds):
    wanted = id_of(min(clock.now() + timedelta(seconds=seconds), datetime(2106, 2, 7, tzinfo=UTC)))

    [first] = imported(alice, [line | {"id": str(wanted)}])
    [second] = imported(alice, [line | {"id": str(wanted)}])

    assert (first["status"], second["status"]) == (201, 200)
    assert first["id"] == second["id"] != str(wanted)
    assert ObjectId(first["id"]).generation_time.year < 2004


def test_an_id_that_becomes_old_later_finds_its_conversation(alice, line, monkeypatch):
    young = str(id_of(clock.now()))
    [first] = imported(alice, [line | {"id": young}])
    now = clock.now
    monkeypatch.setattr(clock, "now", lambda: now() + timedelta(minutes=5))

    [second] = imported(alice, [line | {"id": young}])

    assert (second["status"], second["id"]) == (200, first["id"])


def test_the_highest_ids_are_not_kept(alice, line):
    lines = [line | {"id": f"{'f' * 20}{n:04x}"} for n in range(3)]

    results = imported(alice, lines)

    assert statuses(results) == [201] * 3
    assert not collection("conversations").find_one({"_id": {"$gt": id_of(clock.now())}})


def test_other_users_create_after_an_import_of_all_ids_of_the_next_minute(alice, bob, line):
    bobs = ObjectId(conversation(bob)["id"]).binary
    counter = int.from_bytes(bobs[9:])
    ids = [
        str(id_of(clock.now() + timedelta(seconds=s), bobs[4:9] + (counter + n).to_bytes(3)))
        for s in range(60)
        for n in range(1, 30)
    ]

    results = imported(alice, [line | {"id": id_} for id_ in ids])

    assert set(statuses(results)) == {201}
    for _ in range(20):
        conversation(bob)


def test_ids_that_release_0_1_0_derived_are_found_again(bob, line):
    former = ObjectId("7f03f289abb868f932b9a8ae")  # for bob, from the id below
    [first] = imported(bob, [line | {"id": "5b1c3c3c3c3c3c3c3c3c3c3c"}])
    stored = collection("conversations").find_one({"_id": ObjectId(first["id"])})
    forget_everything()
    collection("conversations").insert_one(stored | {"_id": former})

    [second] = imported(bob, [line | {"id": "5b1c3c3c3c3c3c3c3c3c3c3c"}])

    assert (second["status"], second["id"]) == (200, str(former))


@pytest.mark.parametrize("path", ADJUSTED_TIMES)
def test_a_time_in_the_future_becomes_the_current_time(alice, line, path, settings):
    settings.RETENTION_ARCHIVE_IDLE_DAYS = 30
    put(line, path, FAR)

    before = clock.now()
    [result] = imported(alice, [line])

    assert (result["status"], result["adjusted"]) == (201, [path])
    [stored] = exported(alice)
    for step in path.split("."):
        stored = stored[step]
    assert before <= datetime.fromisoformat(stored) <= clock.now()


def test_times_of_trash_and_history_are_adjusted(alice, line):
    trashed = {"status": "deleted", "deleted_at": FAR, "purge_at": FAR, "archived_at": FAR}
    line |= trashed
    [revision] = line["history"]
    revision |= {"at": FAR, "previous_at": FAR}
    revision["changes"] |= {
        "deleted_at": {"before": None, "after": FAR},
        "purge_at": {"before": None, "after": FAR},
    }

    [result] = imported(alice, [line])

    assert sorted(result["adjusted"]) == [
        "archived_at",
        "deleted_at",
        "history.0.at",
        "history.0.changes.deleted_at.after",
        "history.0.changes.purge_at.after",
        "history.0.previous_at",
        "purge_at",
    ]
    assert b"9999" not in json.dumps(exported(alice)).encode()
    for path in (PATH, f"{PATH}/overview", "/api/v1/changes", f"{PATH}?status=deleted"):
        assert alice.get(path).status_code == 200


@pytest.mark.parametrize("passed", ["2026-01-15T15:00:00.000Z", "1970-01-01T00:00:00.000Z", "now"])
def test_a_trashed_line_past_its_time_gets_the_whole_time_in_the_trash(
    alice, line, passed, settings
):
    now = clock.now()
    line |= {"status": "deleted", "deleted_at": "2025-12-16T15:00:00.000Z"}

    [result] = imported(
        alice, [line | {"purge_at": now.isoformat() if passed == "now" else passed}]
    )
    call_command("purge_trash")

    assert (result["status"], result["adjusted"]) == (201, ["purge_at"])
    trashed = alice.get(f"{PATH}/{result['id']}").json()
    assert trashed["deleted_at"] == line["deleted_at"]
    assert datetime.fromisoformat(trashed["purge_at"]) - now >= timedelta(settings.TRASH_DAYS)
    assert alice.post(f"{PATH}/{result['id']}/restore").json()["status"] == "active"


def test_a_trashed_line_before_its_time_keeps_it(alice, line):
    line |= {"status": "deleted", "deleted_at": "2025-12-16T15:00:00.000Z"}
    line["purge_at"] = (clock.now() + timedelta(minutes=1)).isoformat()

    [result] = imported(alice, [line])

    assert (result["status"], result["adjusted"]) == (201, [])


def test_a_time_slightly_ahead_is_kept(alice, line):
    line["metadata"]["last_activity"] = (clock.now() + timedelta(minutes=4)).isoformat()

    [result] = imported(alice, [line])

    assert (result["status"], result["adjusted"]) == (201, [])


@pytest.mark.parametrize("by", ["staff:admin", "service:message", "staff:" + "x" * 150, "User"])
def test_actors_of_an_imported_history_are_marked_as_imported(alice, line, by):
    line["history"][0]["by"] = by

    [result] = imported(alice, [line])
    [again] = exported(alice)
    forget_everything()
    [second] = imported(alice, [again])

    assert (result["status"], result["adjusted"]) == (201, ["history.0.by"])
    assert again["history"][0]["by"] == f"imported:{by}"
    assert (second["status"], second["adjusted"]) == (201, [])
    assert exported(alice) == [again]


@pytest.mark.parametrize("status", ["verified", "missing"])
def test_a_character_is_unverified_until_it_is_looked_up(alice, line, status):
    [result] = imported(alice, [line | {"character_status": status}])

    assert (result["status"], result["adjusted"]) == (201, ["character_status"])
    assert exported(alice)[0]["character_status"] == "unverified"


@pytest.mark.parametrize("version", [2**53 - 1, 2**53 + 5, 2**63 - 1])
def test_a_version_is_bounded_and_can_be_imported_again(alice, line, version):
    line |= {"version": version}
    line["history"][0]["version"] = version

    [result] = imported(alice, [line])
    alice.patch(f"{PATH}/{result['id']}", {"title": "Newer"})
    [risen] = exported(alice)
    forget_everything()
    [second] = imported(alice, [risen])

    assert (result["status"], result["adjusted"]) == (201, ["version"])
    assert [r["version"] for r in risen["history"]] == [2**52 + 1, 2**52]
    assert second["status"] == 201
    assert exported(alice)[0]["version"] == 2**52
    assert alice.get(f"{PATH}/{second['id']}", {"as_of": 2**52 - 1}).status_code == 200


def test_a_line_without_effect_is_not_adjusted(alice, line):
    line["metadata"]["last_activity"] = FAR
    imported(alice, [line])

    [result] = imported(alice, [line])

    assert (result["status"], result["adjusted"]) == (200, [])


@pytest.mark.parametrize("value", ["\x01" * 512, "😀" * 512, '"\\' * 256, "ñ" * 512, "," * 512])
def test_the_longest_exported_line_can_be_imported(alice, value):
    extra = {f"{key:064}": value for key in range(16)}
    created = conversation(alice, settings={"extra": extra})
    for n in range(51):
        even, odd = ([f"{key:063}{end}" for key in range(16)] for end in (0, 1))
        new, former = (odd, even) if n % 2 else (even, odd)
        fields = {
            "custom": dict.fromkeys(former) | dict.fromkeys(new, value),
            "settings": {
                "stop_sequences": [value[:63] + str(n)[-1]] * 10,
                "extra": {f"{0:064}": value[:511] + str(n)[-1]},
            },
            "tags": [f"{n}-{t}-".ljust(50, "\U00010400") for t in range(10)],
            "title": f"{n}".ljust(200, "\U00010400"),
        }
        response = alice.patch(f"{PATH}/{created['id']}", fields)
        assert response.status_code == 200, response.content
    make_older()
    [line] = exported(alice)
    assert len(line["history"]) == 50
    forget_everything()

    [result] = imported(alice, json.dumps(line, ensure_ascii=False).encode())

    assert (result["status"], result["adjusted"]) == (201, [])
    assert exported(alice) == [line]


@pytest.mark.parametrize(
    ("raw", "limit"),
    [
        ('{"tags": [' + "0," * 30_000 + "0]}", "limit_values"),
        ('{"history": [' + "{}," * 30_000 + "{}]}", "limit_values"),
        ('{"title": "' + "a" + "\u0315\u0300" * 50_000 + '"}', "limit_text_bytes"),
        ('{"user_id": [' + '{"":0},' * 20_000 + "0]}", "limit_texts"),
        ("{" + ",".join(f'"{n}":0' for n in range(30_000)) + "}", "limit_texts"),
        ('{"title": "' + "\\\\" * 100_000 + '"}', "limit_text_bytes"),
        ('{"": ' + "1" * 600_000 + "}", "limit_structure_bytes"),
        ("[" + '\\"[],' * 30_000 + '"]', "limit_values"),
    ],
    ids=lambda value: value[:40],
)
def test_a_line_with_too_many_values_is_rejected_before_it_is_parsed(alice, raw, limit, line):
    results = imported(alice, raw.encode() + b"\n" + json.dumps(line).encode())

    assert [outcome(result)[0] for result in results] == [413, 201]
    assert outcome(results[0])[1] == "PAYLOAD_TOO_LARGE"
    assert f"This line is too large: {limit} is " in results[0]["message"]


def test_the_first_message_is_not_later_than_the_last_one(alice, line):
    line["metadata"] |= {
        "first_message_at": "2026-02-01T00:00:00Z",
        "last_message_at": "2026-01-01T00:00:00Z",
    }

    [result] = imported(alice, [line])

    assert "metadata.first_message_at" in result["adjusted"]
    metadata = exported(alice)[0]["metadata"]
    assert metadata["first_message_at"] == metadata["last_message_at"] == "2026-01-01T00:00:00.000Z"


@pytest.mark.parametrize(
    ("changes", "pointer", "code"),
    [
        ({"tags": [0] * 5_000}, "/tags", "max_length"),
        ({"history": [{}] * 5_000}, "/history", "max_length"),
        ({"custom": {str(n): 0 for n in range(5_000)}}, "/custom", "max_length"),
        ({"title": "a" + "\u0315" * 300 + "\u0300" * 300}, "/title", "max_length"),
        ({"title": "x" * 801}, "/title", "max_length"),
        ({"id": "6" * 5_000}, "/id", "max_length"),
    ],
)
def test_a_list_or_text_that_is_too_long_is_one_error(alice, line, changes, pointer, code):
    [result] = imported(alice, [line | changes])

    assert outcome(result) == (400, "VALIDATION_ERROR", [(pointer, code)])


def test_a_line_has_at_most_fifty_errors(alice, line):
    [result] = imported(alice, [line | {f"unknown {n}": 0 for n in range(1_000)}])

    assert len(result["errors"]) == 50


def test_an_owner_or_a_retention_of_any_shape_is_ignored(alice, line):
    nested = json.loads("[" * 900 + "]" * 900)

    [result] = imported(alice, [line | {"user_id": nested, "retention": [nested]}])

    assert result["status"] == 201


def test_a_long_import_is_inserted_in_batches_of_bytes(alice, line, commands):
    lines = [
        line | {"id": f"{n:024x}", "custom": {str(k): "😀" * 512 for k in range(16)}}
        for n in range(1, 101)
    ]

    assert set(statuses(imported(alice, lines))) == {201}

    inserts = [len(command["documents"]) for command in commands if "insert" in command]
    assert sum(inserts) == 100
    assert len(inserts) >= 3


def test_a_second_concurrent_import_of_a_user_is_rejected(alice, bob, line):
    body = json.dumps(line).encode()
    running = post(alice, body)

    refused, other = post(client_of("alice"), body), post(bob, body)

    assert (refused.status_code, other.status_code) == (429, 200)
    assert refused.json()["error"]["code"] == "RATE_LIMIT_EXCEEDED"
    assert int(refused.headers["Retry-After"]) > 0
    running.close()
    other.close()
    next_one = post(alice, body)
    assert next_one.status_code == 200
    next_one.close()  # free the slot for the next test of this process
