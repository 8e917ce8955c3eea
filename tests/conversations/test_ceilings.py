"""The ceilings of LLM settings bound new values, and stored values stay valid."""

import json

import pytest
from django.test import Client

from tests.conversations.admin.browser import staff, url_of
from tests.conversations.test_export import EXPORT
from tests.conversations.test_import import forget_everything, imported, make_older
from tests.factories import PATH, NewConversation, conversation

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
