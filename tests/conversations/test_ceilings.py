"""The ceilings of LLM settings bound new values, and stored values stay valid."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.test import Client

from tests.conversations.admin.browser import staff, url_of
from tests.conversations.test_export import EXPORT
from tests.conversations.test_import import forget_everything, imported, make_older
from tests.conversations.test_internal import AUTHORIZE, service_with
from tests.factories import PATH, NewConversation, client_of, conversation

HIGH = {"max_tokens": 4000, "context_window": 8000}


@pytest.fixture
def stored(alice, settings):
    """A conversation from before the ceilings were lowered; its version 1 has high values."""
    created = conversation(alice, title="First", settings=HIGH)
    settings.MAX_TOKENS_CEILING, settings.CONTEXT_WINDOW_CEILING = 1024, 2048
    return created


def patch(client, stored, body, **headers):
    return client.patch(f"{PATH}/{stored['id']}", body, headers=headers)


def faults(response):
    assert response.status_code == 400, response.json()
    return [(e["pointer"], e["code"]) for e in response.json()["error"]["details"]["errors"]]


def test_stored_values_above_the_ceiling_are_read_listed_and_edited(alice, stored):
    edited = patch(alice, stored, {"title": "Second", "tags_add": ["x"]}).json()

    assert edited["settings"] == stored["settings"]
    assert alice.get(f"{PATH}/{stored['id']}").json() == edited
    assert alice.get(PATH).json()["conversations"] == [edited]
    assert alice.get(f"{PATH}/{stored['id']}?as_of=1").json()["settings"] == stored["settings"]


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "k"}, {"If-Match": '"v1"'}])
def test_an_unchanged_value_is_accepted_in_a_patch(alice, stored, headers):
    body = {"title": "Second", "settings": HIGH | {"temperature": 1}}

    response = patch(alice, stored, body, **headers)

    assert response.status_code == 200
    assert response.json()["settings"] == stored["settings"] | {"temperature": 1}
    assert response.json()["version"] == 2
    assert patch(alice, stored, {"settings": HIGH}).json()["version"] == 2


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "k"}, {"If-Match": '"v1"'}])
@pytest.mark.parametrize("value", [1025, 3999, 4001, 2**31 - 1])
def test_a_new_value_above_the_ceiling_is_rejected_in_a_patch(alice, stored, value, headers):
    response = patch(alice, stored, {"title": "x", "settings": {"max_tokens": value}}, **headers)

    assert faults(response) == [("/settings/max_tokens", "max_value")]
    assert "1024" in response.json()["error"]["details"]["errors"][0]["message"]
    assert alice.get(f"{PATH}/{stored['id']}").json() == stored


def test_all_exceeded_limits_of_a_patch_are_named(alice, stored):
    too_many = [str(n) for n in range(10)]
    patch(alice, stored, {"tags": ["x"]})

    response = patch(
        alice,
        stored,
        {"tags_add": too_many, "settings": {"max_tokens": 2000, "context_window": 3000}},
    )

    assert sorted(faults(response)) == [
        ("/settings/context_window", "max_value"),
        ("/settings/max_tokens", "max_value"),
        ("/tags_add", "max_length"),
    ]


def test_a_value_that_was_lowered_cannot_be_raised_above_the_ceiling_again(alice, stored):
    assert patch(alice, stored, {"settings": {"max_tokens": 1024}}).status_code == 200

    response = patch(alice, stored, {"settings": {"max_tokens": 4000}})

    assert faults(response) == [("/settings/max_tokens", "max_value")]


def test_null_puts_back_a_default_within_the_ceiling(alice, stored):
    edited = patch(alice, stored, {"settings": {"max_tokens": None}}).json()
    reset = patch(alice, stored, {"settings": None}).json()

    assert edited["settings"] == stored["settings"] | {"max_tokens": 1024}
    assert reset["settings"] == stored["settings"] | {"max_tokens": 1024, "context_window": 2048}


def test_a_new_conversation_keeps_within_the_ceilings(alice, stored):
    created = conversation(alice)
    response = alice.post(PATH, NewConversation(title="\n", settings=HIGH))

    assert (created["settings"]["max_tokens"], created["settings"]["context_window"]) == (
        1024,
        2048,
    )
    assert {pointer for pointer, _ in faults(response)} == {
        "/title",
        "/settings/max_tokens",
        "/settings/context_window",
    }


def test_a_copy_has_the_settings_of_the_original(alice, stored):
    copy = alice.post(f"{PATH}/{stored['id']}/duplicate", {})

    assert copy.status_code == 201
    assert copy.json()["settings"] == stored["settings"]


def test_a_revert_brings_back_values_above_the_ceiling(alice, stored):
    patch(alice, stored, {"settings": {"max_tokens": 10, "context_window": 10}})

    reverted = alice.post(
        f"{PATH}/{stored['id']}/revert", {"version": 1, "fields": ["settings", "title"]}
    )

    assert reverted.status_code == 200
    assert reverted.json()["settings"] == stored["settings"]


def test_a_revert_in_the_console_brings_back_values_above_the_ceiling(alice, stored):
    patch(alice, stored, {"settings": None, "title": "Second"})

    response = staff(role="operator").post(url_of(stored["id"], "revert", "1"))

    assert response.status_code == 302
    assert alice.get(f"{PATH}/{stored['id']}").json()["settings"] == stored["settings"]


def test_an_export_can_be_imported_again(alice, bob, stored):
    patch(alice, stored, {"settings": {"max_tokens": 10}})
    patch(alice, stored, {"title": "Third"})
    make_older()
    body = alice.get(EXPORT).getvalue()

    assert [result["status"] for result in imported(bob, body)] == [201]
    forget_everything()
    assert [result["status"] for result in imported(alice, body)] == [201]
    assert alice.get(EXPORT).getvalue() == body
    [row] = alice.get(PATH).json()["conversations"]
    reverted = alice.post(f"{PATH}/{row['id']}/revert", {"version": 1, "fields": ["settings"]})
    assert reverted.json()["settings"] == stored["settings"]


def test_the_schema_shows_the_ceilings_of_this_deployment(stored):
    schemas = json.loads(Client().get("/api/schema").content)["components"]["schemas"]

    requested, imported_ = schemas["LLMSettingsInput"], schemas["TransferredSettings"]
    assert requested["properties"]["max_tokens"]["maximum"] == 1024
    assert requested["properties"]["context_window"]["maximum"] == 2048
    assert imported_["properties"]["max_tokens"]["maximum"] == 2**31 - 1


BY_MODEL = {
    "gpt-4o": {"max_tokens": 3000, "context_window": 9000},
    "gpt-*": {"max_tokens": 2000},
    "gpt-4*": {"max_tokens": 100},
    "Å/x:free": {"max_tokens": 5000},
    "$user_id": {"max_tokens": 5},
}
# The ceilings of max_tokens and context_window for a model.
EXPECTED = [
    (None, 1024, 4096),
    ("other", 1024, 4096),
    ("gpt", 1024, 4096),
    ("GPT-4o", 1024, 4096),
    ("xgpt-4o", 1024, 4096),
    ("gpt-", 2000, 4096),
    ("gpt-3.5", 2000, 4096),
    ("gpt-4", 100, 4096),
    ("gpt-4o", 3000, 9000),
    ("gpt-4o-mini", 100, 4096),
    ("gpt-*", 2000, 4096),
    ("A\u030a/x:free", 5000, 4096),
    ("$user_id", 5, 4096),
]


@pytest.fixture
def by_model(settings):
    settings.MAX_TOKENS_CEILING, settings.CONTEXT_WINDOW_CEILING = 1024, 4096
    settings.MODEL_CEILINGS = BY_MODEL


@pytest.mark.parametrize(("model", "tokens", "window"), EXPECTED)
def test_a_create_has_the_ceilings_of_its_model(alice, by_model, model, tokens, window):
    highest = {"model": model, "max_tokens": tokens, "context_window": window}
    created = conversation(alice, settings=highest)

    assert created["settings"]["max_tokens"] == tokens
    for name in ("max_tokens", "context_window"):
        body = NewConversation(settings=highest | {name: highest[name] + 1})
        assert faults(alice.post(PATH, body)) == [(f"/settings/{name}", "max_value")]
    defaults = conversation(alice, settings={"model": model})["settings"]
    assert (defaults["max_tokens"], defaults["context_window"]) == (min(2048, tokens), 4000)


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "k"}, {"If-Match": '"v1"'}])
@pytest.mark.parametrize("is_sent", [True, False])
@pytest.mark.parametrize(("model", "tokens", "window"), EXPECTED)
def test_a_patch_has_the_ceilings_of_the_model_afterwards(
    alice, by_model, model, tokens, window, is_sent, headers
):
    before = "gpt-4o" if is_sent and model != "gpt-4o" else model
    created = conversation(alice, settings={"model": before, "max_tokens": 1, "context_window": 1})
    sent = {"model": model} if is_sent else {}

    for name, ceiling in (("max_tokens", tokens), ("context_window", window)):
        response = patch(alice, created, {"settings": sent | {name: ceiling + 1}}, **headers)
        assert faults(response) == [(f"/settings/{name}", "max_value")]
        message = response.json()["error"]["details"]["errors"][0]["message"]
        assert message.endswith(f" {ceiling}.")
    assert alice.get(f"{PATH}/{created['id']}").json() == created
    both = sent | {"max_tokens": tokens, "context_window": window}
    response = patch(alice, created, {"settings": both}, **headers)
    assert response.status_code == 200
    after = response.json()["settings"]
    assert (after["max_tokens"], after["context_window"]) == (tokens, window)


@pytest.mark.parametrize("is_sent", [True, False])
@pytest.mark.parametrize(("model", "tokens", "window"), EXPECTED)
def test_null_puts_back_a_default_within_the_ceiling_of_the_model(
    alice, by_model, model, tokens, window, is_sent
):
    created = conversation(
        alice, settings={"model": None if is_sent else model, "max_tokens": 1, "context_window": 1}
    )
    sent = {"model": model} if is_sent else {}

    body = patch(
        alice, created, {"settings": sent | {"max_tokens": None, "context_window": None}}
    ).json()

    assert body["settings"]["max_tokens"] == min(2048, tokens)
    assert body["settings"]["context_window"] == min(4000, window)
    everything = patch(alice, created, {"settings": None}).json()["settings"]
    assert (everything["model"], everything["max_tokens"]) == (None, 1024)


def test_a_new_model_keeps_stored_values_above_its_ceilings(alice, by_model):
    created = conversation(alice, settings={"model": "gpt-4o", "max_tokens": 3000})

    changed = patch(alice, created, {"settings": {"model": "gpt-4"}}).json()
    repeated = patch(alice, created, {"settings": {"model": "gpt-4", "max_tokens": 3000}})
    other = patch(alice, created, {"settings": {"max_tokens": 2999}})

    assert changed["settings"] == created["settings"] | {"model": "gpt-4"}
    assert repeated.json()["settings"] == changed["settings"]
    assert faults(other) == [("/settings/max_tokens", "max_value")]
    copy = alice.post(f"{PATH}/{created['id']}/duplicate", {})
    assert copy.json()["settings"] == changed["settings"]


def test_devices_at_once_never_store_a_value_above_the_ceiling_of_the_model(alice, by_model):
    created = conversation(alice, settings={"model": "gpt-4o", "max_tokens": 1})

    def attempt(number):
        client = client_of("alice")
        models = ("gpt-4", "gpt-4o")
        if number % 2:
            return patch(client, created, {"settings": {"model": models[number // 2 % 2]}})
        return patch(client, created, {"settings": {"max_tokens": 1000 + number}})

    with ThreadPoolExecutor(8) as devices:
        statuses = {response.status_code for response in devices.map(attempt, range(64))}
    assert statuses <= {200, 400}

    revisions = alice.get(f"{PATH}/{created['id']}/history", {"limit": 50}).json()["revisions"]
    for revision in revisions:
        if "settings.max_tokens" in revision["changes"]:
            url = f"{PATH}/{created['id']}?as_of={revision['version']}"
            assert alice.get(url).json()["settings"]["model"] == "gpt-4o"


def test_the_schema_shows_the_ceilings_by_model(by_model):
    schemas = json.loads(Client().get("/api/schema").content)["components"]["schemas"]

    tokens, window = (
        schemas["LLMSettingsInput"]["properties"][name] for name in ("max_tokens", "context_window")
    )
    assert tokens["maximum"] == 5000
    assert tokens["x-ceilings"] == {"*": 1024} | {
        model: maxima["max_tokens"] for model, maxima in BY_MODEL.items()
    }
    assert (window["maximum"], window["x-ceilings"]) == (9000, {"gpt-4o": 9000, "*": 4096})


def test_authorize_returns_settings_within_the_ceilings(alice, bob, by_model, settings, commands):
    ids = [
        conversation(client, settings={"model": model, "max_tokens": 1000, "top_p": 0.5})["id"]
        for client, model in ((alice, None), (alice, "gpt-4o"), (alice, "gpt-3.5"), (bob, None))
    ]
    service = service_with("conversations:authorize")
    body = {"user_id": "alice", "ids": ids}

    before = service.post(AUTHORIZE, body).json()["results"]
    settings.MAX_TOKENS_CEILING, settings.CONTEXT_WINDOW_CEILING = 10, 20
    settings.MODEL_CEILINGS = {"gpt-4o": {"max_tokens": 999}, "gpt-*": {"context_window": 4000}}
    commands.clear()
    after = service.post(AUTHORIZE, body).json()["results"]

    assert len(commands) == 1
    assert [result["clamped"] for result in before] == [[], [], [], None]
    assert [result["clamped"] for result in after] == [
        ["max_tokens", "context_window"],
        ["max_tokens"],
        ["max_tokens"],
        None,
    ]
    expected = zip(after[:3], ids[:3], (10, 999, 10), (20, 4000, 4000), strict=True)
    for result, id_, tokens, window in expected:
        stored = alice.get(f"{PATH}/{id_}").json()
        lowered = {"max_tokens": tokens, "context_window": window}
        assert result["settings"] == stored["settings"] | lowered
        assert result["settings_given"] == stored["settings_given"]
    assert (after[3]["settings"], after[3]["settings_given"]) == (None, None)
