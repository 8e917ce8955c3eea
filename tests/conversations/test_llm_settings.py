"""The LLM settings `model`, `reasoning_effort` and `extra`."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pymongo.errors import WriteError

from conversations.limits import MAX_COUNT
from tests.conversations.admin.browser import staff, text, url_of
from tests.conversations.test_bad_input import refused
from tests.conversations.test_export import EXPORT
from tests.conversations.test_import import forget_everything, imported, make_older
from tests.factories import PATH, client_of, conversation

LATER: dict[str, Any] = {
    "model": "meta-llama/Llama-3.1:free@eu",
    "reasoning_effort": "minimal",
    "extra": {
        "seed": 7,
        "min_p": 0.05,
        "tier": "$flex",
        "parallel": False,
        "gbnf": "a\nb",
        "e": "",
    },
}
DEFAULTS: dict[str, Any] = {"model": None, "reasoning_effort": None, "extra": {}}


def later(body):
    return {name: body["settings"][name] for name in DEFAULTS}


def settings(client, created, value, status=200, **headers):
    """Send a PATCH of settings and return the conversation or the errors."""
    response = client.patch(f"{PATH}/{created['id']}", {"settings": value}, headers=headers)
    assert response.status_code == status, response.json()
    return response.json() if status == 200 else refused(response)


@pytest.fixture
def created(alice):
    return conversation(alice, settings=LATER)


def test_the_settings_are_stored_and_read(alice, created):
    assert later(created) == LATER
    assert alice.get(f"{PATH}/{created['id']}").json() == created
    assert alice.get(PATH).json()["conversations"] == [created]
    assert later(conversation(alice)) == DEFAULTS
    nulls = dict.fromkeys(DEFAULTS)
    assert later(conversation(alice, settings=nulls)) == DEFAULTS
    assert later(conversation(alice, settings={"extra": {"a": None, "b": 1}}))["extra"] == {"b": 1}


REJECTED = [
    ({"model": ""}, "/model", "blank"),
    ({"model": " \t"}, "/model", "blank"),
    ({"model": "x" * 129}, "/model", "max_length"),
    ({"model": "two\nlines"}, "/model", "control"),
    ({"model": 4}, "/model", "invalid"),
    ({"model": {"$gt": ""}}, "/model", "invalid"),
    ({"reasoning_effort": ""}, "/reasoning_effort", "blank"),
    ({"reasoning_effort": "x" * 65}, "/reasoning_effort", "max_length"),
    ({"reasoning_effort": True}, "/reasoning_effort", "invalid"),
    ({"extra": []}, "/extra", "invalid"),
    ({"extra": "seed"}, "/extra", "invalid"),
    ({"extra": {"a": []}}, "/extra/a", "invalid"),
    ({"extra": {"a": {"b": 1}}}, "/extra/a", "invalid"),
    ({"extra": {"a": "x" * 513}}, "/extra/a", "max_length"),
    ({"extra": {"a": "\0"}}, "/extra/a", "control"),
    ({"extra": {"a": MAX_COUNT + 1}}, "/extra/a", "invalid"),
    ({"extra": {"a": 2**64 - 1}}, "/extra/a", "invalid"),
    ({"extra": {"a": -1e300}}, "/extra/a", "invalid"),
    ({"extra": {"a.b": 1}}, "/extra/a.b", "key"),
    ({"extra": {"$set": 1}}, "/extra/$set", "key"),
    ({"extra": {"a~/b": []}}, "/extra/a~0~1b", "key"),
    ({"extra": {"": 1}}, "/extra/", "key"),
    ({"extra": {"k" * 65: 1}}, f"/extra/{'k' * 65}", "key"),
    ({"extra": {str(n): n for n in range(17)}}, "/extra", "max_length"),
    ({"extra": dict.fromkeys(map(str, range(5_000)))}, "/extra", "max_length"),
]


@pytest.mark.parametrize(("value", "pointer", "code"), REJECTED)
def test_create_and_patch_reject_the_same_values(alice, created, value, pointer, code):
    response = alice.post(PATH, {"character_id": "luna", "settings": value})

    assert refused(response) == {f"/settings{pointer}": code}
    assert settings(alice, created, value, 400) == {f"/settings{pointer}": code}
    assert alice.get(PATH).json()["conversations"] == [created]


@pytest.mark.parametrize("length", [1, 128])
def test_a_model_has_up_to_128_characters(alice, created, length):
    assert settings(alice, created, {"model": "ñ" * length})["settings"]["model"] == "ñ" * length


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "k"}, {"If-Match": '"v1"'}])
@pytest.mark.parametrize(
    ("patch", "after"),
    [
        ({"extra": {"seed": 8}}, {"extra": LATER["extra"] | {"seed": 8}}),
        ({"extra": {"new": True, "e": None, "absent": None}}, None),
        ({"extra": None}, {"extra": {}}),
        ({"extra": dict.fromkeys(LATER["extra"])}, {"extra": {}}),
        ({"model": None}, {"model": None}),
        ({"model": "$user_id", "reasoning_effort": None}, None),
        (None, DEFAULTS),
    ],
)
def test_a_patch_merges_by_key_and_null_removes(alice, created, patch, after, headers):
    expected = LATER | (after or {})
    if after is None and "extra" in patch:
        extra = {k: v for k, v in LATER["extra"].items() if k != "e"}
        expected = LATER | {"extra": extra | {"new": True}}
    elif after is None:
        expected = LATER | patch

    body = settings(alice, created, patch, **headers)

    assert (later(body), body["version"]) == (expected, 2)
    assert alice.get(f"{PATH}/{created['id']}").json() == body
    assert later(alice.get(f"{PATH}/{created['id']}?as_of=1").json()) == LATER
    assert settings(alice, created, patch)["version"] == 2


def test_the_bound_of_extra_applies_to_the_result(alice, created):
    more = {f"more{n}": n for n in range(10)}

    assert len(settings(alice, created, {"extra": more})["settings"]["extra"]) == 16
    assert settings(alice, created, {"extra": {"one": 1}}, 400) == {"/settings/extra": "max_length"}
    replaced = {"seed": 1, "e": None, "one": 1}
    assert settings(alice, created, {"extra": replaced})["settings"]["extra"]["one"] == 1
    settings(alice, created, {"extra": {"one": None}})
    everything = dict.fromkeys([*LATER["extra"], *more]) | {f"n{n}": n for n in range(16)}
    whole = settings(alice, created, {"extra": everything})["settings"]["extra"]
    assert whole == {f"n{n}": n for n in range(16)}


def test_devices_that_change_different_keys_and_settings_do_not_conflict(alice):
    created = conversation(alice)
    patches: list[Any] = [{"extra": {f"k{n}": n}} for n in range(8)]
    patches += [{"model": "m"}, {"reasoning_effort": "low"}, {"top_p": 0.5}, {"max_tokens": 9}]

    with ThreadPoolExecutor(len(patches)) as devices:
        sent = devices.map(lambda patch: settings(client_of("alice"), created, patch), patches)
        versions = {body["version"] for body in sent}

    assert versions == set(range(2, 2 + len(patches)))
    after = alice.get(f"{PATH}/{created['id']}").json()
    assert later(after) == {
        "model": "m",
        "reasoning_effort": "low",
        "extra": {f"k{n}": n for n in range(8)},
    }
    assert (after["settings"]["top_p"], after["settings"]["max_tokens"]) == (0.5, 9)


def test_history_revert_and_duplicate_have_the_settings(alice, created):
    path = f"{PATH}/{created['id']}"
    settings(alice, created, {"model": "other", "extra": {"seed": None}})
    settings(alice, created, None)

    newest, older = alice.get(f"{path}/history").json()["revisions"]
    assert newest["changes"]["settings.model"] == {"before": "other", "after": None}
    assert newest["changes"]["settings.extra"]["after"] == {}
    assert older["changes"]["settings.extra"]["before"] == LATER["extra"]
    for version, model in ((2, "other"), (1, LATER["model"]), (3, None)):
        revert = {"version": version, "fields": ["settings"]}
        reverted = alice.post(f"{path}/revert", revert).json()
        assert reverted["settings"]["model"] == model
        copy = alice.post(f"{path}/duplicate", {}).json()
        assert copy["settings"] == reverted["settings"]


def test_an_export_is_imported_with_every_setting(alice, bob, created):
    settings(alice, created, {"model": None, "extra": {"seed": None}})
    conversation(alice, settings={"extra": {f"k{n}": "\u0001" * 512 for n in range(16)}})
    make_older()
    body = alice.get(EXPORT).getvalue()
    forget_everything()

    assert [result["status"] for result in imported(alice, body)] == [201, 201]
    assert alice.get(EXPORT).getvalue() == body
    assert [result["status"] for result in imported(bob, body)] == [201, 201]


def test_an_import_rejects_the_same_values(alice, created):
    make_older()
    line = json.loads(alice.get(EXPORT).getvalue().splitlines()[0])
    lines = [line | {"settings": line["settings"] | value} for value, _, _ in REJECTED]
    forget_everything()

    for (_, pointer, code), result in zip(REJECTED, imported(alice, lines), strict=True):
        errors = [(error["pointer"], error["code"]) for error in result["errors"]]
        assert errors == [(f"/settings{pointer}", code)]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("settings.model", ""),
        ("settings.model", "x" * 129),
        ("settings.model", 1),
        ("settings.reasoning_effort", "x" * 65),
        ("settings.extra", None),
        ("settings.extra", {"a.b": 1}),
        ("settings.extra", {"a": None}),
        ("settings.extra", {"a": [1]}),
        ("settings.extra", {"a": "x" * 513}),
        ("settings.extra", {"a": float("nan")}),
        ("settings.extra", {"a": float("inf")}),
        ("settings.extra", {str(n): n for n in range(17)}),
    ],
)
def test_the_database_rejects_the_same_values(mongo, created, path, value):
    with pytest.raises(WriteError, match="failed validation"):
        mongo["conversations"].update_one({}, [{"$set": {path: {"$literal": value}}}])


def test_a_document_has_no_default_of_a_later_setting(alice, mongo, created):
    """Pods of 0.1.0 cannot revert settings if the document has a setting they do not know."""
    conversation(alice, settings=dict.fromkeys(LATER))
    settings(alice, created, dict.fromkeys(LATER))
    alice.post(f"{PATH}/{created['id']}/duplicate", {})
    make_older()
    body = alice.get(EXPORT).getvalue()
    forget_everything()
    imported(alice, body)

    stored = mongo["conversations"].find().to_list()
    assert len(stored) == 3
    assert [row["settings"].keys() & DEFAULTS.keys() for row in stored] == [set()] * 3


def test_the_console_shows_the_settings(alice, created):
    shown = text(staff(role="operator").get(url_of(created["id"])))

    assert "meta-llama/Llama-3.1:free@eu" in shown
    assert "seed: 7, min_p: 0.05, tier: $flex, parallel: no" in shown
