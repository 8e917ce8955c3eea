"""Imported exports are equal to their originals, and existing conversations are kept."""

import json
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from datetime import timedelta
from typing import Any

import pytest
from bson import ObjectId

from conversation_service.http.ndjson import NDJSONParser
from conversation_service.mongodb.connection import collection
from conversations.jobs import importing
from tests.conversations.test_export import EXPORT, exported
from tests.factories import PATH, WIDE_NAMES, client_of, conversation

IMPORT = f"{PATH}/import"
NDJSON = "application/x-ndjson"


def post(client, body, **extra):
    return client.post(IMPORT, body, content_type=NDJSON, **extra)


def imported(client, lines):
    """Return the results of an import except the totals, which are checked."""
    body = lines if isinstance(lines, bytes) else "\n".join(map(json.dumps, lines)).encode()
    response = post(client, body)
    assert response.status_code == 200, response.content
    *results, end = map(json.loads, response.getvalue().splitlines())
    outcomes = ("created", "unchanged", "skipped", "failed")
    assert end["count"] == len(results) == sum(end[outcome] for outcome in outcomes)
    assert end["skipped"] == statuses(results).count(410)
    return results


def whole(client):
    return client.get(EXPORT).getvalue()


def outcome(result):
    return result["status"], result["code"], [(e["pointer"], e["code"]) for e in result["errors"]]


def statuses(results):
    return [result["status"] for result in results]


def forget_everything():
    """Delete all documents, as in another deployment or after tombstones have expired."""
    collection("conversations").delete_many({})


def id_of(moment, rest=b"\1" * 8):
    """Return an id for a conversation of that time."""
    return ObjectId(int(moment.timestamp()).to_bytes(4, "big") + rest)


def make_older():
    """Move all ids back by an hour: an import keeps only ids older than a minute."""
    for row in collection("conversations").find():
        collection("conversations").delete_one({"_id": row["_id"]})
        created = row["_id"].generation_time - timedelta(hours=1)
        row["_id"] = id_of(created, row["_id"].binary[4:])
        collection("conversations").insert_one(row)


@pytest.fixture
def past(alice):
    """One conversation of each kind for alice, as an export."""
    conversation(alice, title="Plain")
    conversation(alice, title="$user_id", tags=["a", "Ñandú"], custom={"z": "1", "a": "línea\n2"})
    conversation(alice, "pinned", "archived", settings={"temperature": 0, "stop_sequences": ["$x"]})
    conversation(alice, "archived", "deleted")
    conversation(alice, "deleted")
    edited = f"{PATH}/{conversation(alice, title=None)['id']}"
    alice.patch(edited, {"title": "New", "settings": {"top_p": 0.5, "stop_sequences": ["x"]}})
    alice.patch(edited, {"tags": ["b"], "custom": {"k": "v"}, "pinned": True})
    alice.patch(edited, {"tags": [], "custom": None, "pinned": False})
    alice.post(f"{edited}/duplicate", {})
    alice.post(f"{edited}/revert", {"version": 1, "fields": ["title"]})
    collection("conversations").update_one(
        {"title": "Plain"}, {"$set": {"metadata.message_count": 7, "metadata.total_tokens": 2**40}}
    )
    make_older()
    return whole(alice)


def test_an_imported_export_is_equal_in_every_byte(alice, past):
    forget_everything()

    results = imported(alice, past)

    assert statuses(results) == [201] * 7
    assert whole(alice) == past


def test_a_second_import_changes_nothing(alice, past):
    before = list(collection("conversations").find())

    results = imported(alice, past)

    assert statuses(results) == [200] * 7
    assert list(collection("conversations").find()) == before


def test_existing_conversations_are_not_overwritten(alice):
    created = conversation(alice, title="Then")
    line = {**exported(alice)[0], "title": "From a backup"}
    alice.patch(f"{PATH}/{created['id']}", {"title": "Now"})

    [result] = imported(alice, [line])

    assert (result["status"], result["id"]) == (200, created["id"])
    assert alice.get(f"{PATH}/{created['id']}").json()["title"] == "Now"


def test_imported_conversations_can_be_used(alice, past):
    forget_everything()
    imported(alice, past)
    by_title = {line["title"]: line for line in exported(alice)}

    listed = alice.get(PATH, {"sort": "title", "order": "asc"}).json()["conversations"]
    tagged = alice.get(PATH, {"tags": "ñandú"}).json()["conversations"]
    edited = max(by_title.values(), key=lambda line: line["version"])
    then = alice.get(f"{PATH}/{edited['id']}", {"as_of": 2}).json()
    trashed = [line for line in by_title.values() if line["status"] == "deleted"]

    assert [row["title"] for row in listed][0::3] == ["$user_id", "Plain"]
    assert [row["title"] for row in tagged] == ["$user_id"]
    assert (then["title"], then["settings"]["top_p"]) == ("New", 0.5)
    assert then["metadata"]["updated_at"] == edited["history"][-1]["at"]
    restored = {alice.post(f"{PATH}/{one['id']}/restore").json()["status"] for one in trashed}
    assert restored == {"active", "archived"}


def test_another_user_gets_the_conversations_with_other_ids(alice, bob, past):
    results = imported(bob, past)

    theirs, his = exported(alice), exported(bob)
    assert statuses(results) == [201] * 7
    assert [r["id"] for r in results] != [line["id"] for line in theirs]
    assert {line["id"] for line in theirs}.isdisjoint(line["id"] for line in his)
    by_id = {line["id"]: line for line in his}
    assert [by_id[r["id"]] | {"id": None, "user_id": None} for r in results] == [
        line | {"id": None, "user_id": None} for line in theirs
    ]
    assert {line["user_id"] for line in his} == {"bob"}
    assert whole(alice) == past


def test_replacement_ids_are_equal_in_the_next_import(alice, bob, past):
    first = imported(bob, past)

    second = imported(bob, past)

    assert statuses(second) == [200] * 7
    assert [r["id"] for r in second] == [r["id"] for r in first]


def test_replacement_ids_stay_when_the_first_id_is_free(alice, bob):
    conversation(alice)
    lines = exported(alice)
    [first] = imported(bob, lines)
    collection("conversations").delete_many({"user_id": "alice"})

    [second] = imported(bob, lines)

    assert (second["status"], second["id"]) == (200, first["id"])


def purge(client, *ids):
    for id_ in ids:
        client.delete(f"{PATH}/{id_}")
        assert client.delete(f"{PATH}/{id_}?mode=purge").status_code == 204


def test_a_purged_conversation_stays_purged(alice):
    gone, kept = conversation(alice), conversation(alice)
    lines = exported(alice)
    purge(alice, gone["id"])

    for _ in range(2):
        results = imported(alice, lines)
        assert [outcome(r)[:2] for r in results] == [(410, "CONVERSATION_PURGED"), (200, None)]
        assert results[0]["id"] is None
    assert [line["id"] for line in exported(alice)] == [kept["id"]]


def test_a_purged_conversation_with_a_replacement_id_stays_purged(alice, bob):
    conversation(alice)
    lines = exported(alice)
    [first] = imported(bob, lines)
    purge(bob, first["id"])

    [second] = imported(bob, lines)

    assert outcome(second)[:2] == (410, "CONVERSATION_PURGED")
    assert exported(bob) == []


def test_the_purge_of_one_user_does_not_stop_the_import_of_another(alice, bob):
    created = conversation(alice)
    lines = exported(alice)
    purge(alice, created["id"])

    [first], [second] = imported(bob, lines), imported(bob, lines)

    assert (first["status"], second["status"]) == (201, 200)
    assert first["id"] == second["id"] != created["id"]


def test_a_purged_conversation_that_an_earlier_release_imported_again_is_unchanged(alice, bob):
    created = conversation(alice)
    lines = exported(alice)
    purge(alice, created["id"])
    [again] = imported(bob, lines)
    derived = {"_id": ObjectId(again["id"])}
    collection("conversations").update_one(
        {"_id": ObjectId(created["id"])}, {"$set": {"user_id": "bob"}}
    )

    [result] = imported(bob, lines)

    assert (result["status"], result["id"]) == (200, again["id"])
    assert collection("conversations").count_documents(derived) == 1


def test_a_purged_conversation_is_imported_after_its_tombstone_has_expired(alice):
    created = conversation(alice)
    lines = exported(alice)
    purge(alice, created["id"])
    forget_everything()

    [result] = imported(alice, lines)

    assert result["status"] == 201


def test_a_purge_between_the_look_up_and_the_insert_is_final(alice, past, monkeypatch):
    """Another import creates the conversations, and the user purges them, in between."""
    forget_everything()
    insert_all = importing.insert_all

    def purged_before(rows):
        if not collection("conversations").count_documents({}):
            insert_all([dict(row) for row in rows])
            purge_all(alice)
        return insert_all(rows)

    monkeypatch.setattr(importing, "insert_all", purged_before)

    results = imported(alice, past)

    assert statuses(results) == [410] * 7
    assert exported(alice) == []


def purge_all(client):
    for action in ("trash", "purge"):
        status = "all" if action == "trash" else "deleted"
        body = {"action": action, "filter": {"status": status}}
        assert client.post(f"{PATH}/bulk", body).status_code == 200


def test_imports_beside_bulk_purges_leave_no_conversation(alice, past):
    def run_import():
        return post(client_of("alice"), past).getvalue()

    with ThreadPoolExecutor(2) as pool:
        imports = [pool.submit(run_import) for _ in range(6)]
        purges = [pool.submit(purge_all, client_of("alice")) for _ in range(6)]
        ends = [json.loads(each.result().splitlines()[-1]) for each in imports]
        assert [purge.result() for purge in purges] == [None] * 6
    purge_all(alice)

    assert {end.get("created", 0) for end in ends} == {0}
    assert statuses(imported(alice, past)) == [410] * 7
    assert exported(alice) == []


def test_a_line_without_a_free_id_fails_alone(alice):
    conversation(alice, title="One")
    conversation(alice, title="Two")
    lines = exported(alice)
    for _ in range(5):
        imported(alice, lines)
        collection("conversations").update_many({"title": "One"}, {"$set": {"user_id": "mallory"}})

    assert [outcome(r)[:2] for r in imported(alice, lines)] == [
        (409, "CONVERSATION_ID_TAKEN"),
        (200, None),
    ]


def test_a_repeated_line_is_one_conversation(alice, bob):
    conversation(alice)
    lines = exported(alice) * 3

    for client in (alice, bob):
        imported(client, lines)
        assert len(exported(client)) == 1


def test_concurrent_imports_create_each_line_once(alice, past):
    forget_everything()

    with ThreadPoolExecutor(4) as pool:
        several = list(pool.map(lambda _: post(client_of("alice"), past), range(4)))

    accepted = [response for response in several if response.status_code == 200]
    created = sum(json.loads(r.getvalue().splitlines()[-1])["created"] for r in accepted)
    assert created == 7
    assert {response.status_code for response in several} <= {200, 429}
    assert whole(alice) == past


def test_an_invalid_line_does_not_stop_others(alice):
    conversation(alice)
    [good] = exported(alice)
    forget_everything()
    body = b"\n".join(
        [b"{", b"", b"[]", json.dumps(good | {"title": ""}).encode(), json.dumps(good).encode()]
    )

    results = imported(alice, body)

    assert [(r["line"], *outcome(r)) for r in results] == [
        (1, 400, "VALIDATION_ERROR", []),
        (3, 400, "VALIDATION_ERROR", [("", "invalid")]),
        (4, 400, "VALIDATION_ERROR", [("/title", "blank")]),
        (5, 201, None, []),
    ]


@pytest.mark.parametrize(
    ("raw", "text", "column"),
    [
        (b'{"title": NaN}', "El cuerpo tiene NaN o Infinity", 11),
        (b'{"title": 1e400}', "El cuerpo tiene un n\u00famero", 11),
        (b"[" * 1_100 + b"]" * 1_100, "El cuerpo tiene demasiados niveles", 1_026),
        (b'{"id": "\\ud83d"}', "El cuerpo tiene la mitad", 9),
        (b'{"title": 1', "El cuerpo no es JSON", 12),
    ],
)
def test_a_line_that_is_not_json_names_the_fault_and_its_place(alice, raw, text, column):
    response = post(alice, b"{}\n\n" + raw, headers={"Accept-Language": "es"})

    result = json.loads(response.getvalue().splitlines()[1])
    assert (result["line"], result["status"]) == (3, 400)
    assert result["message"].startswith(text)
    assert f"(l\u00ednea 3, columna {column})" in result["message"]


def test_a_line_in_another_encoding_is_named(alice):
    [result] = imported(alice, '{"title": "ñ"}'.encode("latin-1"))

    assert result["message"] == "The body is not in UTF-8."


def test_a_repeated_key_in_a_line_is_named(alice):
    alice.patch(f"{PATH}/{conversation(alice)['id']}", {"title": "New: a", "custom": {"k": ":"}})
    line = json.dumps(exported(alice)[0])
    forget_everything()
    lines = [
        line.replace('"status":', '"status": "active", "status":'),
        line.replace('"k":', '"k": "", "k":', 1),
        line.replace('"after":', '"after": {}, "after":', 1),
        '{"character_id": "luna", "title": "a", "title": "b"}',
        '{"character_id": "luna", "title": "\\ud83d", "settings": {"extra": {"a": 1, "a": 1}}}',
        '{"object": "end", "count": 1, "count": 1}',
    ]

    results = imported(alice, "\n".join([*lines, line]).encode())

    assert [outcome(result) for result in results[:-1]] == [
        (400, "VALIDATION_ERROR", [(pointer, "repeated")])
        for pointer in (
            *("/status", "/custom/k", "/history/0/changes/title/after", "/title"),
            *("/settings/extra/a", "/count"),
        )
    ]
    assert results[-1]["status"] == 201


BAD: list[tuple[str, Any, str]] = [
    ("id", "x", "/id"),
    ("id", None, "/id"),
    ("character_id", "a b", "/character_id"),
    ("character_status", "known", "/character_status"),
    ("title", "x" * 201, "/title"),
    ("title", "bell\a", "/title"),
    ("tags", ["a,b"], "/tags/0"),
    ("custom", {"a.b": "x"}, "/custom/a.b"),
    ("custom", {"a/b": 1}, "/custom/a~1b"),
    ("settings.extra", {"a~b": "x"}, "/settings/extra/a~0b"),
    ("settings", {}, "/settings/temperature"),
    ("settings.temperature", None, "/settings/temperature"),
    ("settings.temperature", 2.1, "/settings/temperature"),
    ("settings.max_tokens", True, "/settings/max_tokens"),
    ("metadata.message_count", -1, "/metadata/message_count"),
    ("metadata.message_count", 2**53, "/metadata/message_count"),
    ("metadata.created_at", "2026-01-15T15:00:00", "/metadata/created_at"),
    ("metadata.created_at", None, "/metadata/created_at"),
    ("version", 0, "/version"),
    ("version", 2**64, "/version"),
    ("status", "purged", "/status"),
    ("status", "deleted", "/deleted_at"),
    ("status", "archived", "/archived_at"),
    ("is_archived", True, "/is_archived"),
    ("deleted_at", "2026-01-15T15:00:00Z", "/deleted_at"),
    ("forked_from", "x", "/forked_from"),
    ("object", "message", "/object"),
    ("extra", 1, "/extra"),
    ("history", [{}], "/history/0/version"),
    ("history.0.version", 9, "/history"),
    ("history.0.by", "x" * 200, "/history/0/by"),
    ("history.0.changes", {"user_id": {"before": "a", "after": "b"}}, "/history/0/changes/user_id"),
    ("history.0.changes.title", {"before": "a"}, "/history/0/changes/title"),
    ("history.0.changes.title.after", 1, "/history/0/changes/title/after"),
    (
        "history.0.changes",
        {"custom": {"before": {"ok": "x", "a/b": "x"}, "after": {}}},
        "/history/0/changes/custom/before/a~1b",
    ),
]


@pytest.mark.parametrize(("path", "value", "pointer"), BAD)
def test_a_line_is_validated_as_in_the_api(alice, path, value, pointer):
    alice.patch(f"{PATH}/{conversation(alice)['id']}", {"title": "New"})
    [line] = exported(alice)
    forget_everything()
    changed = inner = deepcopy(line)
    *parents, last = (int(step) if step.isdigit() else step for step in path.split("."))
    for step in parents:
        inner = inner[step]
    inner[last] = value

    [result] = imported(alice, [changed])

    assert result["status"] == 400
    assert result["id"] is None
    assert pointer in [error["pointer"] for error in result["errors"]]
    assert exported(alice) == []


BLANKS = [
    ("title", "two  blanks", "two blanks"),
    ("title", " two\nlines\u2028", "two lines"),
    ("title", "e\u0301", "\u00e9"),
    ("tags", ["two  blanks", "b", "B"], ["two blanks", "b"]),
    ("custom", {"k": "e\u0301"}, {"k": "\u00e9"}),
    ("settings.model", " large ", "large"),
    ("history.0.changes.title.before", "two \n lines", "two lines"),
]


@pytest.mark.parametrize(("path", "value", "stored"), BLANKS)
def test_titles_and_tags_are_normalised_as_by_the_api_and_named(alice, path, value, stored):
    created = conversation(alice)
    alice.patch(f"{PATH}/{created['id']}", {"title": "New"})
    make_older()
    [line] = exported(alice)
    forget_everything()
    *parents, last = (int(step) if step.isdigit() else step for step in path.split("."))
    inner = line
    for step in parents:
        inner = inner[step]
    inner[last] = value

    [result] = imported(alice, [line])

    assert result["status"] == 201
    assert result["adjusted"] == [f"{path}.k" if path == "custom" else path]
    inner[last] = stored
    assert exported(alice) == [line]


@pytest.mark.parametrize("text", ["\u3164", "\u115f\u1160", "\u17b4", "\u0301"])
def test_invisible_titles_and_tags_of_an_earlier_release_are_imported_unchanged(alice, text):
    alice.patch(f"{PATH}/{conversation(alice)['id']}", {"title": "New", "tags": ["new"]})
    make_older()
    [line] = exported(alice)
    forget_everything()
    line |= {"title": text, "tags": [text]}
    line["history"][0]["changes"]["tags"]["before"] = [text]

    [result] = imported(alice, [line])

    assert (result["status"], result["adjusted"]) == (201, [])
    assert exported(alice) == [line]


def test_wide_names_are_equal_in_an_export_and_its_import(alice, bob):
    by_tens = [WIDE_NAMES[at : at + 10] for at in range(0, len(WIDE_NAMES), 10)]
    for tags in by_tens:
        conversation(alice, title=tags[0], tags=tags)

    results = imported(bob, whole(alice))

    assert [(r["status"], r["adjusted"]) for r in results] == [(201, [])] * len(by_tens)
    for client in (alice, bob):
        # The copies of young conversations have derived ids, so they are in another order.
        shown = {line["title"]: line["tags"] for line in exported(client)}
        assert shown == {tags[0]: tags for tags in by_tens}
        counts = client.get("/api/v1/tags", {"limit": 200}).json()["tags"]
        assert {row["tag"]: row["count"] for row in counts} == dict.fromkeys(WIDE_NAMES, 1)


def test_an_unknown_field_has_its_own_code(alice):
    conversation(alice)

    [result] = imported(alice, [exported(alice)[0] | {"colour": "red"}])

    assert outcome(result) == (400, "UNKNOWN_FIELD", [("/colour", "unknown_field")])


def test_messages_are_in_the_language_of_the_caller(alice):
    response = post(alice, b"{", headers={"Accept-Language": "es"})

    assert json.loads(response.getvalue().splitlines()[0])["message"]


def test_results_of_several_batches_are_in_order(alice, bob):
    conversation(alice)
    [line] = exported(alice)
    lines = [line | {"id": str(ObjectId())} if n % 3 else line | {"version": 0} for n in range(450)]

    results = imported(bob, lines)

    assert [r["line"] for r in results] == list(range(1, 451))
    assert statuses(results) == [201 if n % 3 else 400 for n in range(450)]


def test_the_quota_ignores_trashed_conversations(alice, bob, settings):
    for steps in [(), ("deleted",), ("archived",), ()]:
        conversation(alice, *steps)
    settings.MAX_CONVERSATIONS_PER_USER = 2
    lines = exported(alice)

    first, second = imported(bob, lines), imported(bob, lines)

    assert statuses(first) == [201, 201, 201, 403]
    assert statuses(second) == [200, 200, 200, 403]
    assert first[3]["code"] == "QUOTA_EXCEEDED"


def test_an_import_is_a_new_change_in_the_feed(alice):
    conversation(alice)
    lines = exported(alice)
    collection("conversations").delete_many({})
    lines[0]["metadata"] |= {"updated_at": "2020-01-01T00:00:00.000Z"}

    imported(alice, lines)

    [stored] = collection("conversations").find()
    assert stored["changed_at"].year > 2020
    assert stored["metadata"]["updated_at"].year == 2020


@pytest.mark.parametrize(
    ("bound", "most"), [("max_bytes", 100), ("max_line_bytes", 100), ("max_lines", 1)]
)
def test_a_body_that_is_too_large_is_rejected_before_any_insert(
    alice, past, monkeypatch, bound, most
):
    forget_everything()
    monkeypatch.setattr(NDJSONParser, bound, most)

    response = post(alice, past)

    assert response.status_code == 413
    assert response.json()["error"]["code"] == "PAYLOAD_TOO_LARGE"
    assert exported(alice) == []


def test_a_last_line_at_the_start_of_a_chunk_is_counted(alice, monkeypatch):
    monkeypatch.setattr(NDJSONParser, "max_lines", 2)
    two_lines_of_64_kib = b"\n".rjust(65_535) + b"\n"

    response = post(alice, two_lines_of_64_kib + b"{}")

    assert response.status_code == 413
    assert response.json()["error"]["details"] == {"limit_lines": 2}


def test_a_large_body_is_accepted(alice):
    conversation(alice, custom={str(n): "😀" * 512 for n in range(16)})
    [line] = exported(alice)
    lines = [line | {"id": str(ObjectId())} for _ in range(100)]

    assert statuses(imported(alice, lines)) == [201] * 100


def test_only_ndjson_is_accepted(alice):
    response = alice.post(IMPORT, {}, format="json")

    assert response.status_code == 415


def test_an_idempotency_key_is_optional(alice, past):
    forget_everything()

    for _ in range(2):
        assert post(alice, past, headers={"Idempotency-Key": "k"}).getvalue()
    assert whole(alice) == past


def test_every_statement_is_limited_to_the_user(alice, past, commands):
    imported(alice, past)

    finds = [c for c in commands if "find" in c]
    assert finds
    assert all(c["filter"]["user_id"] == "alice" for c in finds)


def test_an_import_requires_a_token():
    client = client_of("alice")
    client.defaults.pop("HTTP_AUTHORIZATION")

    assert post(client, b"").status_code == 401
    assert client.get(EXPORT).status_code == 401


@pytest.mark.parametrize("body", [b"", b"\n"])
def test_an_empty_body_imports_no_conversation(alice, body):
    response = alice.generic("POST", f"{PATH}/import", body, content_type="application/x-ndjson")

    assert response.status_code == 200
    [end] = [json.loads(line) for line in response.getvalue().splitlines()]
    assert (end["object"], end["count"]) == ("end", 0)
