"""`settings_given` names the LLM settings that the user set."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from conversations import documents
from tests.conversations.admin.browser import staff, text, url_of
from tests.conversations.test_export import EXPORT
from tests.conversations.test_import import forget_everything, imported, make_older
from tests.factories import PATH, client_of, conversation

OF_0_1_0 = ["temperature", "max_tokens", "context_window", "top_p", "frequency_penalty"]
OF_0_1_0 += ["presence_penalty", "stop_sequences"]
EVERY: dict[str, Any] = {
    "temperature": 1,
    "max_tokens": 7,
    "context_window": 7,
    "top_p": 0.1,
    "frequency_penalty": 1,
    "presence_penalty": 1,
    "stop_sequences": ["x"],
    "model": "m",
    "reasoning_effort": "low",
    "extra": {"seed": 7},
}


def patch(client, created, body, **headers):
    response = client.patch(f"{PATH}/{created['id']}", body, headers=headers)
    assert response.status_code == 200, response.json()
    return response.json()


@pytest.mark.parametrize(
    ("sent", "given"),
    [
        ({}, []),
        ({"settings": None}, []),
        ({"settings": {}}, []),
        ({"settings": {"top_p": 0.9, "temperature": None}}, ["top_p"]),
        (
            {"settings": {"extra": {}, "stop_sequences": [], "model": "m"}},
            ["stop_sequences", "model", "extra"],
        ),
        ({"settings": dict(reversed(EVERY.items()))}, [*EVERY]),
        ({"settings": dict.fromkeys(EVERY)}, []),
    ],
)
def test_a_create_gives_the_names_with_a_value(alice, sent, given):
    created = conversation(alice, **sent)

    assert created["settings_given"] == given
    assert alice.get(f"{PATH}/{created['id']}").json() == created
    assert alice.get(PATH).json()["conversations"] == [created]


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "k"}, {"If-Match": '"v1"'}])
@pytest.mark.parametrize(
    ("settings", "given"),
    [
        ({"model": "m"}, ["temperature", "top_p", "model"]),
        ({"temperature": 0.7}, ["temperature", "top_p"]),
        ({"top_p": None}, ["temperature"]),
        ({"top_p": None, "stop_sequences": []}, ["temperature", "stop_sequences"]),
        ({"temperature": None, "top_p": None}, []),
        ({"extra": {"seed": 7}}, ["temperature", "top_p", "extra"]),
        (EVERY, [*EVERY]),
        (None, []),
        (dict.fromkeys(EVERY), []),
        ({"model": None}, ["temperature", "top_p"]),
    ],
)
def test_a_patch_adds_and_removes_names(alice, settings, given, headers):
    created = conversation(alice, settings={"top_p": 0.9, "temperature": 0.5})

    body = patch(alice, created, {"settings": settings}, **headers)

    assert body["settings_given"] == given
    assert alice.get(f"{PATH}/{created['id']}").json() == body
    assert patch(alice, created, {"settings": settings})["version"] == body["version"]


def test_a_value_equal_to_the_default_is_given_in_a_new_version(alice):
    created = conversation(alice)

    body = patch(alice, created, {"settings": {"temperature": 0.7}})

    assert (body["settings"], body["version"]) == (created["settings"], 2)
    [revision] = alice.get(f"{PATH}/{created['id']}/history").json()["revisions"]
    assert revision["changes"] == {"settings_given": {"before": [], "after": ["temperature"]}}


def test_edits_of_other_fields_keep_the_names(alice):
    created = conversation(alice, settings={"top_p": 0.5})

    for body in ({"title": "x"}, {"custom": {"a": "b"}}, {"settings": {}}):
        assert patch(alice, created, body)["settings_given"] == ["top_p"]


def test_clients_cannot_set_the_names_themselves(alice):
    created = conversation(alice)
    body = {"settings_given": ["model"]}

    assert alice.patch(f"{PATH}/{created['id']}", body).status_code == 400
    assert alice.post(PATH, {"character_id": "luna"} | body).status_code == 400


def test_devices_that_change_different_settings_lose_no_name(alice):
    created = conversation(alice)

    def device(name):
        return patch(client_of("alice"), created, {"settings": {name: EVERY[name]}})

    with ThreadPoolExecutor(len(EVERY)) as devices:
        versions = {body["version"] for body in devices.map(device, EVERY)}

    after = alice.get(f"{PATH}/{created['id']}").json()
    assert (after["settings_given"], len(versions)) == ([*EVERY], len(EVERY))
    with ThreadPoolExecutor(len(EVERY)) as devices:
        [*devices.map(lambda n: patch(client_of("alice"), created, {"settings": {n: None}}), EVERY)]
    assert alice.get(f"{PATH}/{created['id']}").json()["settings_given"] == []


def test_a_revert_of_settings_restores_the_names(alice):
    created = conversation(alice, settings={"top_p": 0.5})
    path = f"{PATH}/{created['id']}"
    patch(alice, created, {"settings": {"model": "m", "top_p": None}, "title": "Second"})

    assert alice.get(f"{path}?as_of=1").json()["settings_given"] == ["top_p"]
    title = alice.post(f"{path}/revert", {"version": 1, "fields": ["title"]}).json()
    assert title["settings_given"] == ["model"]
    reverted = alice.post(f"{path}/revert", {"version": 1, "fields": ["settings"]}).json()
    assert reverted["settings_given"] == ["top_p"]
    assert reverted["settings"] == created["settings"]


def test_a_duplicate_has_the_names_of_its_original(alice):
    created = conversation(alice, settings={"extra": {"seed": 1}})

    copy = alice.post(f"{PATH}/{created['id']}/duplicate", {}).json()

    assert copy["settings_given"] == ["extra"]


def test_an_import_keeps_the_names_and_adds_those_of_an_older_export(alice):
    created = conversation(alice, settings={"extra": {"seed": 1}, "top_p": 1})
    patch(alice, created, {"settings": {"top_p": None, "model": "m"}})
    make_older()
    body = alice.get(EXPORT).getvalue()
    forget_everything()

    assert [result["status"] for result in imported(alice, body)] == [201]
    assert alice.get(EXPORT).getvalue() == body
    forget_everything()
    line = json.loads(body.splitlines()[0])
    older = {name: value for name, value in line.items() if name != "settings_given"}
    shuffled = line | {"settings_given": ["extra", "model", "extra"]}
    wrong = [line | {"settings_given": value} for value in (["x"], "model", [1], None)]
    for sent, given in ((older, OF_0_1_0), (shuffled, ["model", "extra"])):
        assert [result["status"] for result in imported(alice, [sent])] == [201]
        assert alice.get(PATH).json()["conversations"][0]["settings_given"] == given
        forget_everything()
    assert [result["status"] for result in imported(alice, wrong)] == [400] * len(wrong)


def test_a_conversation_from_before_the_field_gives_the_settings_of_its_release(alice, mongo):
    created = conversation(alice)
    mongo["conversations"].update_one({}, {"$unset": {"settings_given": 1}})
    path = f"{PATH}/{created['id']}"

    assert alice.get(path).json()["settings_given"] == OF_0_1_0
    assert patch(alice, created, {"settings": {"temperature": 0.7}})["version"] == 1
    body = patch(alice, created, {"settings": {"top_p": None, "model": "m"}})
    assert body["settings_given"] == [name for name in OF_0_1_0 if name != "top_p"] + ["model"]
    assert alice.get(f"{path}?as_of=1").json()["settings_given"] == OF_0_1_0


def test_names_of_a_newer_release_stay(alice, mongo):
    created = conversation(alice, settings={"top_p": 0.5})
    stored = {"$set": {"settings_given": ["newer", "top_p"]}}
    mongo["conversations"].update_one({}, stored)

    body = patch(alice, created, {"settings": {"temperature": 1, "top_p": None}})

    assert body["settings_given"] == ["temperature", "newer"]
    assert patch(alice, created, {"settings": None})["settings_given"] == ["newer"]


def test_the_console_shows_the_names(alice):
    created = conversation(alice, settings={"top_p": 0.5, "model": "m"})
    patch(alice, created, {"settings": {"top_p": None}})

    ops = staff(role="operator")
    shown = text(ops.get(url_of(created["id"])))
    reverting = text(ops.get(url_of(created["id"], "revert", "1")))

    label = documents.FIELDS["settings_given"].field.verbose_name
    assert f"{label} model" in shown
    assert str(label) in reverting
