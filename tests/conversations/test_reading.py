"""Reading one conversation."""

import pytest

from tests.factories import PATH, conversation


@pytest.mark.parametrize(
    "malformed", ["x", "65f0c0ffee65f0c0ffee65f", "65f0c0ffee65f0c0ffee65fg", "%00", "undefined"]
)
def test_a_malformed_id_is_404(alice, malformed):
    response = alice.get(f"{PATH}/{malformed}")

    assert response.status_code == 404
    assert response.json()["error"]["code"] == "CONVERSATION_NOT_FOUND"


def test_hex_digits_may_be_in_upper_case(alice):
    created = conversation(alice)

    assert alice.get(f"{PATH}/{created['id'].upper()}").json() == created


def test_paths_may_end_with_a_slash(alice):
    created = conversation(alice)

    assert alice.get(f"{PATH}/{created['id']}/").json() == created
    assert alice.get(f"{PATH}/").json()["conversations"] == [created]
    assert alice.post(f"{PATH}/{created['id']}/archive/").json()["is_archived"]


@pytest.mark.parametrize("path", ["{id}?includes=character", "{id}?x=1", "summary?x=1"])
def test_unknown_parameters_are_rejected(alice, path):
    created = conversation(alice)

    response = alice.get(f"{PATH}/{path.format(id=created['id'])}")

    assert response.status_code == 400
    assert response.json()["error"]["code"] == "UNKNOWN_FIELD"


@pytest.mark.parametrize(
    "body",
    [
        {"tags_add": ["x"]},
        {"tags_remove": ["x"]},
        {"custom": {"k": "v"}},
        {"title": "x"},
        {"settings": {"top_p": 0}},
    ],
)
def test_a_purged_conversation_is_404_for_every_user(alice, bob, body):
    purged = conversation(alice, "deleted")
    path = f"{PATH}/{purged['id']}"
    alice.delete(f"{path}?mode=purge")

    for client in (alice, bob):
        for headers in ({}, {"If-Match": '"v1"'}, {"Idempotency-Key": "k"}):
            response = client.patch(path, body, headers=headers)
            assert response.status_code == 404
            assert response.json()["error"]["code"] == "CONVERSATION_NOT_FOUND"


def test_a_missing_conversation_is_looked_up_once(alice, commands):
    commands.clear()

    assert alice.get(f"{PATH}/{'0' * 24}").status_code == 404
    assert [name for command in commands for name in command if name == "find"] == ["find"]
