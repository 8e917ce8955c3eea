"""An import accepts lines from other programs, and names each value that it adjusts."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from conversation_service import clock
from conversation_service.mongodb.connection import collection
from conversations import documents
from tests.conversations.test_export import exported
from tests.conversations.test_import import (
    IMPORT,
    NDJSON,
    imported,
    outcome,
    post,
    purge,
    statuses,
)
from tests.factories import PATH, WIDE_NAMES, client_of, conversation

THEN = datetime(2024, 5, 6, 7, 8, 9, 123000, tzinfo=UTC)
WRITTEN = "2024-05-06T07:08:09.123Z"
INVISIBLE = [
    "\u200b",
    "\u3164",
    "\u202e",
    "\u2800",
    "\u00ad",
    "\ufeff\u200b",
    "\u0301",
    "\ufffe",
    "\ufdd0",
]


def read(client, line):
    """Import one line; return what it adjusted and the conversation."""
    [result] = imported(client, [line])
    assert result["status"] == 201, result
    return result["adjusted"], client.get(f"{PATH}/{result['id']}").json()


def test_a_line_needs_only_a_character(alice):
    adjusted, created = read(alice, {"character_id": "luna"})

    new = conversation(alice, "pinned", character_id="luna", title=None)
    assert adjusted == []
    assert (created["title"], created["title_source"]) == ("luna", "auto")
    assert created["character_status"] == "unverified"
    assert created["settings"] == new["settings"]
    assert created["status"] == "active"
    assert created["version"] == 1


def test_a_line_can_have_all_fields(alice):
    adjusted, created = read(
        alice,
        {
            "character_id": "luna",
            "external_id": "7f3c",
            "title": "Tea",
            "created_at": "2024-05-06T09:08:09.123+02:00",
            "last_activity": "2024-06-07T08:09:10Z",
            "status": "archived",
            "pinned": True,
            "tags": ["a"],
            "settings": {"temperature": 0.1, "max_tokens": 2048.0, "top_p": None},
            "custom": {"k": "v"},
        },
    )

    assert adjusted == []
    assert created["metadata"]["created_at"] == created["metadata"]["updated_at"] == WRITTEN
    assert created["metadata"]["last_activity"] == "2024-06-07T08:09:10.000Z"
    assert created["archived_at"] == created["pinned_at"] == "2024-06-07T08:09:10.000Z"
    assert (created["title"], created["tags"], created["custom"]) == ("Tea", ["a"], {"k": "v"})
    assert created["settings"]["temperature"] == 0.1
    assert created["settings"]["max_tokens"] == 2048
    assert created["settings"]["top_p"] == 0.9
    [again] = imported(alice, exported(alice))
    assert again["status"] == 200


def test_a_null_is_as_good_as_an_absent_value(alice):
    names = ["external_id", "title", "created_at", "last_activity", "status", "pinned", "settings"]

    adjusted, created = read(alice, {"character_id": "luna"} | dict.fromkeys([*names, "tags"]))

    assert adjusted == []
    assert created["title"] == "luna"


def test_the_query_has_the_character_for_lines_without_one(alice):
    lines = [{"title": "A"}, {"title": "B", "character_id": "sol"}, {"character_id": None}]
    body = "\n".join(map(json.dumps, lines))

    response = post(alice, body, QUERY_STRING="character_id=luna")

    assert json.loads(response.getvalue().splitlines()[-1])["created"] == 3
    assert sorted(line["character_id"] for line in exported(alice)) == ["luna", "luna", "sol"]
    assert alice.post(f"{IMPORT}?character_id=a%20b", b"", content_type=NDJSON).status_code == 400
    assert alice.post(f"{IMPORT}?character=a", b"", content_type=NDJSON).status_code == 400


@pytest.mark.parametrize(
    ("value", "adjusted"),
    [
        (WRITTEN, []),
        (THEN.timestamp(), []),
        (THEN.timestamp() * 1000, ["created_at"]),
        (int(THEN.timestamp() * 1000), ["created_at"]),
    ],
)
def test_a_time_is_text_or_a_number(alice, value, adjusted):
    found, created = read(alice, {"character_id": "luna", "created_at": value})

    assert found == adjusted
    metadata = created["metadata"]
    assert metadata["created_at"] == metadata["last_activity"] == WRITTEN


def test_a_missing_creation_time_is_not_after_the_last_activity(alice):
    _, created = read(alice, {"character_id": "luna", "last_activity": WRITTEN})

    assert created["metadata"]["created_at"] == WRITTEN


def test_times_in_the_future_or_in_the_wrong_order_are_adjusted(alice):
    adjusted, created = read(
        alice,
        {"character_id": "luna", "created_at": WRITTEN, "last_activity": "2099-01-01T00:00:00Z"},
    )
    assert adjusted == ["last_activity"]
    assert created["metadata"]["last_activity"] < "2099"

    adjusted, created = read(
        alice, {"character_id": "luna", "created_at": WRITTEN, "last_activity": 1}
    )
    assert adjusted == ["last_activity"]
    assert created["metadata"]["last_activity"] == WRITTEN


@pytest.mark.parametrize(
    ("line", "path", "value"),
    [
        ({"title": "x" * 60_000}, "title", "x" * 200),
        ({"title": "two  blanks"}, "title", "two blanks"),
        ({"title": "two\u2028lines"}, "title", "two lines"),
        ({"title": " two \n lines\0 "}, "title", "two lines"),
        ({"title": " \n"}, "title", "luna"),
        *[({"title": text}, "title", "luna") for text in INVISIBLE],
        ({"title": "\u200b" * 200 + "x"}, "title", "luna"),
        *[({"tags": [text, "a"]}, "tags", ["a"]) for text in INVISIBLE],
        ({"title": "e\u0301" * 300}, "title", "\u00e9" * 200),
        ({"title": "a" + "\u0301" * 1_000}, "title", "\u00e1" + "\u0301" * 199),
        ({"title": "\u0958" * 200}, "title", "\u0915\u093c" * 100),
        ({"tags": ["a", "A", "b,c", ""]}, "tags", ["a", "b c"]),
        ({"tags": [f"t{n}" for n in range(500)]}, "tags", [f"t{n}" for n in range(10)]),
        ({"tags": ["x" * 60_000]}, "tags", ["x" * 50]),
        *[({"tags": [f"two{c}lines"]}, "tags", ["two lines"]) for c in "\n\r\t\u2028\x85\0,"],
        ({"settings": {"temperature": 2.1}}, "settings.temperature", 0.7),
        ({"settings": {"max_tokens": -1}}, "settings.max_tokens", 2048),
        ({"settings": {"max_tokens": 2**63}}, "settings.max_tokens", 2048),
        ({"settings": {"stop_sequences": ["x" * 65, "y"]}}, "settings.stop_sequences", ["y"]),
        ({"settings": {"max_tokens": 20.5}}, "settings.max_tokens", 2048),
        ({"settings": {"top_p": -0.1}}, "settings.top_p", 0.9),
        ({"settings": {"stop_sequences": ["y"] * 11}}, "settings.stop_sequences", ["y"] * 10),
        ({"settings": {"stop_sequences": ["", "\0", "y"]}}, "settings.stop_sequences", ["y"]),
        ({"settings": {"model": "m" * 129}}, "settings.model", None),
        ({"settings": {"model": "m\nn"}}, "settings.model", None),
        ({"settings": {"model": ""}}, "settings.model", None),
        ({"settings": {"reasoning_effort": "x" * 60_000}}, "settings.reasoning_effort", None),
        ({"settings": {"extra": {"seed": 1, "s": "x" * 513}}}, "settings.extra.s", None),
        ({"settings": {"extra": {"seed": 2**53}}}, "settings.extra.seed", None),
        (
            {"settings": {"extra": {"logit_bias": {"50256": -100}}}},
            "settings.extra.logit_bias",
            None,
        ),
        ({"settings": {"extra": {"a b": 1}}}, "settings.extra.a b", None),
        ({"custom": {"k": "x" * 60_000}}, "custom.k", "x" * 512),
        ({"custom": {"k": "e\u0301" * 600}}, "custom.k", "\u00e9" * 512),
        ({"custom": {"k": "e\u0301"}}, "custom.k", "\u00e9"),
        ({"settings": {"model": " large "}}, "settings.model", "large"),
        ({"custom": {"k": "nul\0"}}, "custom.k", "nul"),
        ({"custom": {"k": 1.5}}, "custom.k", "1.5"),
        ({"custom": {"k": True}}, "custom.k", "true"),
        ({"custom": {"k": ["x"], "l": "y"}}, "custom.k", None),
        ({"custom": {"$k": "x"}}, "custom.$k", None),
        ({"custom": {"k" * 200: "x"}}, "custom." + "k" * 93, None),
    ],
)
def test_a_value_beyond_a_limit_is_adjusted(alice, line, path, value):
    adjusted, created = read(alice, {"character_id": "luna"} | line)

    assert adjusted == [path]
    found = created
    for name in path.split("."):
        found = found.get(name) if isinstance(found, dict) else found
    assert found == value
    names = documents.names_given(dict.fromkeys(line.get("settings", {}), 1))
    defaults = documents.DEFAULTS["settings"]
    given = [name for name in names if path != f"settings.{name}" or found != defaults[name]]
    assert created["settings_given"] == given


def test_the_first_entries_of_an_object_are_kept_and_the_others_named(alice):
    values = {f"k{n}": "v" for n in range(18)}
    many = {f"k{n}": "v" for n in range(5_000)}

    adjusted, created = read(
        alice,
        {"character_id": "luna", "custom": {"none": None} | values, "settings": {"extra": values}},
    )
    assert adjusted == ["custom.k16", "custom.k17", "settings.extra.k16", "settings.extra.k17"]
    assert list(created["custom"]) == list(created["settings"]["extra"]) == [*values][:16]
    adjusted, created = read(alice, {"character_id": "luna", "custom": many})
    assert adjusted == [f"custom.k{n}" for n in range(16, 66)]


@pytest.mark.parametrize("value", [0, -1, -1.5, 1e300, 10**21, "1969-12-31T23:59:59Z"])
def test_a_time_before_1970_or_out_of_range_counts_as_absent_and_is_named(alice, value):
    before = clock.now()

    adjusted, created = read(alice, {"character_id": "luna", "created_at": value})

    assert adjusted == ["created_at"]
    assert datetime.fromisoformat(created["metadata"]["created_at"]) >= before
    adjusted, created = read(
        alice, {"character_id": "luna", "created_at": WRITTEN, "last_activity": value}
    )
    assert adjusted == ["last_activity"]
    assert created["metadata"]["last_activity"] == WRITTEN


@pytest.mark.parametrize("unit", [10**3, 10**6, 10**9])
def test_a_time_in_a_shorter_unit_is_named(alice, unit):
    adjusted, created = read(alice, {"character_id": "luna", "created_at": 1700000000 * unit})

    assert adjusted == ["created_at"]
    assert created["metadata"]["created_at"] == "2023-11-14T22:13:20.000Z"


HALF = "\\ud83d"


@pytest.mark.parametrize(
    ("fields", "adjusted", "values"),
    [
        (f'"title": "cut {HALF}"', ["title"], {"title": "cut \ufffd"}),
        (f'"title": "{HALF}\\ude80 {HALF}x\\ude80"', ["title"], {"title": "🚀 \ufffdx\ufffd"}),
        (f'"tags": ["a", "b{HALF}"], "title": "T"', ["tags"], {"tags": ["a", "b\ufffd"]}),
        (
            f'"custom": {{"k": "{HALF}", "l": "x"}}',
            ["custom.k"],
            {"custom": {"k": "\ufffd", "l": "x"}},
        ),
        (f'"settings": {{"model": "m{HALF}"}}', ["settings.model"], {}),
        (f'"title": "\\{HALF}\\{HALF}"', [], {"title": "\\ud83d\\ud83d"}),
    ],
)
def test_half_an_emoji_is_replaced_and_named(alice, fields, adjusted, values):
    [result] = imported(alice, f'{{"character_id": "luna", {fields}}}'.encode())

    assert (result["status"], result["adjusted"]) == (201, adjusted)
    [line] = exported(alice)
    assert line.items() >= values.items()


@pytest.mark.parametrize("name", ["external_id", "character_id", "id", "tit\\ud800le"])
def test_half_an_emoji_in_an_id_or_a_name_is_rejected(alice, name):
    text = f'{{"character_id": "luna", "{name}": "x{HALF}"}}'

    [result] = imported(alice, text.encode())

    assert result["status"] == 400


@pytest.mark.parametrize("name", WIDE_NAMES)
def test_a_wide_name_is_imported_unchanged(alice, name):
    adjusted, created = read(alice, {"character_id": "luna", "title": name, "tags": [name]})

    assert (adjusted, created["title"], created["tags"]) == ([], name, [name])


@pytest.mark.parametrize(
    ("line", "code", "pointer"),
    [
        ({"character_id": "a b"}, "VALIDATION_ERROR", "/character_id"),
        ({"character_id": 5}, "VALIDATION_ERROR", "/character_id"),
        ({"character_id": None}, "VALIDATION_ERROR", "/character_id"),
        ({"titel": "x"}, "UNKNOWN_FIELD", "/titel"),
        ({"title": 5}, "VALIDATION_ERROR", "/title"),
        ({"title": ["x"]}, "VALIDATION_ERROR", "/title"),
        ({"created_at": "yesterday"}, "VALIDATION_ERROR", "/created_at"),
        ({"created_at": "2024-05-06T07:08:09"}, "VALIDATION_ERROR", "/created_at"),
        ({"created_at": "1700000000"}, "VALIDATION_ERROR", "/created_at"),
        ({"created_at": True}, "VALIDATION_ERROR", "/created_at"),
        ({"last_activity": {}}, "VALIDATION_ERROR", "/last_activity"),
        ({"tags": "a"}, "VALIDATION_ERROR", "/tags"),
        ({"tags": [1]}, "VALIDATION_ERROR", "/tags/0"),
        ({"tags": [[]]}, "VALIDATION_ERROR", "/tags/0"),
        ({"settings": []}, "VALIDATION_ERROR", "/settings"),
        ({"settings": {"temperature": "0.5"}}, "VALIDATION_ERROR", "/settings/temperature"),
        ({"settings": {"temperature": True}}, "VALIDATION_ERROR", "/settings/temperature"),
        ({"settings": {"colour": 1}}, "UNKNOWN_FIELD", "/settings/colour"),
        ({"settings": {"stop_sequences": [1]}}, "VALIDATION_ERROR", "/settings/stop_sequences/0"),
        ({"settings": {"extra": [1]}}, "VALIDATION_ERROR", "/settings/extra"),
        ({"settings": {"model": 5}}, "VALIDATION_ERROR", "/settings/model"),
        ({"custom": "x"}, "VALIDATION_ERROR", "/custom"),
        ({"status": "deleted"}, "VALIDATION_ERROR", "/status"),
        ({"pinned": 1}, "VALIDATION_ERROR", "/pinned"),
        ({"external_id": ""}, "VALIDATION_ERROR", "/external_id"),
        ({"external_id": 5}, "VALIDATION_ERROR", "/external_id"),
        ({"external_id": "x" * 256}, "VALIDATION_ERROR", "/external_id"),
        ({"user_id": "bob"}, "UNKNOWN_FIELD", "/user_id"),
    ],
)
def test_a_value_without_a_meaning_is_rejected(alice, line, code, pointer):
    [result] = imported(alice, [{"character_id": "luna"} | line])

    assert (result["status"], result["code"]) == (400, code)
    assert pointer in [error["pointer"] for error in result["errors"]]
    assert exported(alice) == []


@pytest.mark.parametrize("literal", ["NaN", "Infinity", '"\\ud83d"', "1" * 5_000])
def test_a_value_that_json_does_not_have_is_rejected(alice, literal):
    [result] = imported(alice, f'{{"character_id": "luna", "created_at": {literal}}}'.encode())

    assert result["status"] == 400


def test_a_second_import_with_external_ids_changes_nothing(alice, bob):
    lines = [{"character_id": "luna", "external_id": f"é/{n}"} for n in range(3)]

    first, second = imported(alice, lines), imported(alice, lines)
    others = imported(bob, lines)

    assert statuses(first) == [201] * 3
    assert statuses(second) == [200] * 3
    assert [r["id"] for r in first] == [r["id"] for r in second]
    assert statuses(others) == [201] * 3
    assert {r["id"] for r in first}.isdisjoint(r["id"] for r in others)


def test_a_repeated_external_id_in_a_body_is_one_conversation(alice):
    lines = [{"character_id": "luna", "external_id": "x", "title": t} for t in ("A", "B")]

    assert sorted(statuses(imported(alice, lines))) == [200, 201]
    assert len(exported(alice)) == 1


def test_a_line_without_external_id_is_created_by_each_import(alice):
    lines = [{"character_id": "luna"}] * 2

    assert statuses(imported(alice, lines)) + statuses(imported(alice, lines)) == [201] * 4
    assert len(exported(alice)) == 4


def test_a_changed_conversation_stays_as_the_user_left_it(alice):
    line = {"character_id": "luna", "external_id": "x", "title": "Old"}
    [first] = imported(alice, [line])
    alice.patch(f"{PATH}/{first['id']}", {"title": "Mine"})
    alice.delete(f"{PATH}/{first['id']}")

    [second] = imported(alice, [line])

    assert (second["status"], second["id"]) == (200, first["id"])
    assert alice.get(f"{PATH}/{first['id']}").json()["title"] == "Mine"


def test_a_purged_conversation_stays_purged(alice, bob):
    lines = [{"character_id": "luna", "external_id": name} for name in ("x", "y")]
    [first, second] = imported(alice, lines)
    purge(alice, first["id"])

    results = imported(alice, lines)

    assert [(r["status"], r["code"]) for r in results] == [
        (410, "CONVERSATION_PURGED"),
        (200, None),
    ]
    assert [line["id"] for line in exported(alice)] == [second["id"]]
    assert statuses(imported(bob, lines)) == [201, 201]


def test_concurrent_imports_create_each_external_id_once(alice, monkeypatch):
    monkeypatch.setattr("conversations.jobs.concurrency.imports.per_user", 4)
    body = "\n".join(
        json.dumps({"character_id": "luna", "external_id": str(n)}) for n in range(200)
    )

    with ThreadPoolExecutor(4) as pool:
        several = list(pool.map(lambda _: post(client_of("alice"), body), range(4)))

    ends = [json.loads(response.getvalue().splitlines()[-1]) for response in several]
    assert sum(end["created"] for end in ends) == 200
    assert sum(end["unchanged"] for end in ends) == 600
    assert collection("conversations").count_documents({}) == 200


def test_exported_and_lenient_lines_can_be_mixed(alice, bob):
    conversation(alice)
    [line] = exported(alice)

    results = imported(bob, [line, {"character_id": "luna"}, {"object": "end", "count": 1}])

    assert statuses(results) == [201, 201]


def test_an_incomplete_exported_line_is_no_lenient_line(alice):
    conversation(alice)
    [line] = exported(alice)
    del line["metadata"]

    [result] = imported(alice, [line])

    assert outcome(result) == (400, "VALIDATION_ERROR", [("/metadata", "required")])


def test_ceilings_of_this_deployment_do_not_apply(alice, settings):
    settings.MAX_TOKENS_CEILING = 100

    adjusted, created = read(alice, {"character_id": "luna", "settings": {"max_tokens": 5_000}})

    assert (adjusted, created["settings"]["max_tokens"]) == ([], 5_000)


def test_an_imported_title_and_tag_are_found(alice):
    imported(alice, [{"character_id": "luna", "title": "Café con Luna", "tags": ["Viaje"]}])

    for query in ({"search": "caf"}, {"tags": "viaje"}):
        [row] = alice.get(PATH, query).json()["conversations"]
        assert row["title"] == "Café con Luna"
