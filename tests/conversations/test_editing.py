"""PATCH: named fields only, in one statement, without lost updates."""

import itertools
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.factories import PATH, conversation


def patch(client, created, body, **headers):
    return client.patch(f"{PATH}/{created['id']}", body, headers=headers)


def test_a_new_title_increments_the_version_and_keeps_the_activity(alice):
    created = conversation(alice, title=None)

    response = patch(alice, created, {"title": "Mine"})

    body = response.json()
    assert response.status_code == 200
    assert response.headers["ETag"] == '"v2"'
    assert (body["title"], body["title_source"], body["version"]) == ("Mine", "user", 2)
    assert body["metadata"]["last_activity"] == created["metadata"]["last_activity"]
    assert body["metadata"]["created_at"] == created["metadata"]["created_at"]
    assert body["metadata"]["updated_at"] >= created["metadata"]["updated_at"]
    assert alice.get(f"{PATH}/{created['id']}").json() == body


@pytest.mark.parametrize(
    "same",
    [
        {},
        {"title": "Same"},
        {"settings": {"temperature": 0.7}},
        {"settings": None},
        {"tags": ["a"]},
        {"tags_add": ["A"]},
        {"tags_remove": ["b"]},
        {"custom": {"k": "v", "absent": None}},
        {"pinned": False},
        {"status": "active"},
    ],
)
def test_an_edit_without_effect_makes_no_new_version(alice, same):
    created = conversation(
        alice, title="Same", tags=["a"], custom={"k": "v"}, settings=same.get("settings")
    )

    response = patch(alice, created, same)

    assert response.status_code == 200
    assert response.json() == created


def test_settings_merge_field_by_field(alice):
    created = conversation(alice, settings={"temperature": 1.5, "max_tokens": 10})

    body = patch(alice, created, {"settings": {"top_p": 0.5, "max_tokens": None}}).json()

    assert body["settings"] == created["settings"] | {"top_p": 0.5, "max_tokens": 2048}


def test_custom_merges_by_key_and_null_removes_a_key(alice):
    created = conversation(alice, custom={"a": "1", "b": "2"})

    body = patch(alice, created, {"custom": {"b": None, "c": "$a"}}).json()

    assert body["custom"] == {"a": "1", "c": "$a"}
    assert patch(alice, created, {"custom": None}).json()["custom"] == {}


def test_tags_are_added_and_removed_in_one_patch(alice):
    created = conversation(alice, tags=["Río", "Sea"])

    body = patch(alice, created, {"tags_add": ["SEA", "sky"], "tags_remove": ["río"]}).json()

    assert body["tags"] == ["Sea", "sky"]
    assert alice.get(PATH, {"tags": "SKY"}).json()["conversations"] == [body]


@pytest.mark.parametrize(
    ("stored", "body", "expected"),
    [
        (["Work"], {"tags_remove": ["Work"], "tags_add": ["work"]}, ["work"]),
        (["Work", "sea"], {"tags_remove": ["work"], "tags_add": ["WORK"]}, ["sea", "WORK"]),
        (["work"], {"tags_remove": ["\uff37ork"], "tags_add": ["Work"]}, ["Work"]),
        ([], {"tags_remove": ["x"], "tags_add": ["x"]}, ["x"]),
        (["x"], {"tags_remove": ["x"], "tags_add": ["x"]}, ["x"]),
        (["a"], {"tags_remove": ["a", "b"], "tags_add": ["A", "c", "B"]}, ["c", "A", "B"]),
        (["c", "a"], {"tags_remove": ["a"], "tags_add": ["A", "C", "b"]}, ["c", "b", "A"]),
        ([*"0123456789"], {"tags_remove": ["9"], "tags_add": ["nine"]}, [*"012345678", "nine"]),
    ],
)
def test_a_tag_removed_and_added_has_its_new_spelling_once(alice, stored, body, expected):
    created = conversation(alice, tags=stored)

    edited = patch(alice, created, body).json()
    again = patch(alice, created, body)

    assert edited["tags"] == expected
    assert again.json() == edited
    for tag in edited["tags"]:
        assert alice.get(PATH, {"tags": tag}).json()["conversations"] == [edited]
        assert alice.get(PATH, {"search": tag}).json()["conversations"] == [edited]


VALUES: list[dict[str, Any]] = [
    {"title": "New"},
    {"title": "Same"},
    {"settings": {"temperature": 1.1, "max_tokens": None}},
    {"settings": None},
    {"custom": {"k": None, "new": "v"}},
    {"custom": None},
    {"tags": ["B", "a"]},
    {"tags": None},
    {"tags_add": ["A", "new"]},
    {"tags_remove": ["A", "b"]},
    {"pinned": True},
    {"pinned": False},
    {"status": "archived"},
    {"status": "active"},
]
PAIRS = [
    one | other
    for one, other in itertools.combinations(VALUES, 2)
    if not one.keys() & other.keys()
    and not ("tags" in one | other and {"tags_add", "tags_remove"} & (one | other).keys())
]


@pytest.mark.parametrize("body", PAIRS, ids=str)
def test_a_repeated_patch_of_any_two_fields_has_no_effect(alice, body):
    created = conversation(
        alice,
        title="Same",
        tags=["a", "B", "c"],
        custom={"k": "v"},
        settings={"temperature": 0.2, "max_tokens": 10},
    )

    edited = patch(alice, created, body)

    assert edited.status_code == 200
    assert patch(alice, created, body).json() == edited.json()


def test_null_empties_tags(alice):
    created = conversation(alice, tags=["a"])

    assert patch(alice, created, {"tags": None}).json()["tags"] == []


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        ({"tags": [str(n) for n in range(9)]}, {"tags_add": ["x", "y"]}),
        ({"custom": {str(n): "" for n in range(15)}}, {"custom": {"x": "", "y": ""}}),
    ],
)
def test_limits_apply_to_the_result(alice, fields, body):
    created = conversation(alice, **fields)

    response = patch(alice, created, body)

    assert response.status_code == 400
    errors = response.json()["error"]["details"]["errors"]
    assert [(e["pointer"], e["code"]) for e in errors] == [(f"/{next(iter(body))}", "max_length")]
    assert alice.get(f"{PATH}/{created['id']}").json() == created


def test_state_and_pin_can_be_patched(alice):
    created = conversation(alice)

    archived = patch(alice, created, {"status": "archived", "pinned": True}).json()
    active = patch(alice, created, {"status": "active", "pinned": False}).json()

    assert (archived["status"], archived["is_archived"], archived["version"]) == (
        "archived",
        True,
        2,
    )
    assert archived["archived_at"] == archived["pinned_at"] is not None
    assert (active["status"], active["archived_at"], active["pinned_at"]) == ("active", None, None)


def test_concurrent_patches_of_different_fields_both_apply(alice):
    created = conversation(alice)

    patch(alice, created, {"title": "From the phone"})
    body = patch(alice, created, {"settings": {"temperature": 0.1}}).json()

    assert (body["title"], body["settings"]["temperature"]) == ("From the phone", 0.1)


def test_if_match_rejects_a_stale_version_with_the_current_one(alice):
    created = conversation(alice)
    current = patch(alice, created, {"title": "Other"}).json()

    response = patch(alice, created, {"title": "Mine"}, **{"If-Match": '"v1"'})

    assert response.status_code == 412
    error = response.json()["error"]
    assert error["code"] == "CONVERSATION_VERSION_CONFLICT"
    assert error["details"]["current"] == current
    assert alice.get(f"{PATH}/{created['id']}").json() == current


@pytest.mark.parametrize("tags", ['"v1"', "*", 'W/"v1"', 'W/"x", "v1"', '"v7","v1"', ' "v1" '])
def test_if_match_accepts_the_current_version(alice, tags):
    created = conversation(alice)

    assert patch(alice, created, {"title": "New"}, **{"If-Match": tags}).status_code == 200


def test_if_match_accepts_high_versions(alice, mongo):
    created = conversation(alice)
    mongo["conversations"].update_one({}, {"$set": {"version": 10**15}})

    response = patch(alice, created, {"title": "New"}, **{"If-Match": f'"v{10**15}"'})

    assert response.json()["version"] == 10**15 + 1


@pytest.mark.parametrize("tags", ['W/"v2"', '"v2"', '"1"', '"v01234567890123456789"', '""'])
def test_if_match_with_another_value_fails(alice, tags):
    created = conversation(alice)

    assert patch(alice, created, {"title": "New"}, **{"If-Match": tags}).status_code == 412


@pytest.mark.parametrize("tags", ["v1", '"v1', "1", "", '"v1" "v2"'])
def test_if_match_must_be_entity_tags(alice, tags):
    created = conversation(alice)

    response = patch(alice, created, {"title": "New"}, **{"If-Match": tags})

    assert response.status_code == 400
    assert response.json()["error"]["code"] == "VALIDATION_ERROR"


@pytest.mark.parametrize("patch", [{"settings": {}}, {"custom": {}}, {"tags_add": []}], ids=str)
def test_an_edit_without_effect_writes_nothing_and_is_rejected_in_the_trash(alice, patch):
    kept, trashed = conversation(alice), conversation(alice, "deleted")

    unchanged = alice.patch(f"{PATH}/{kept['id']}", patch)
    rejected = alice.patch(f"{PATH}/{trashed['id']}", patch)

    assert (unchanged.status_code, unchanged.json()) == (200, kept)
    assert rejected.json()["error"]["code"] == "CONVERSATION_STATE_CONFLICT"


def test_a_trashed_conversation_cannot_be_edited(alice):
    created = conversation(alice, "deleted")

    response = patch(alice, created, {"title": "New"})

    assert response.status_code == 409
    error = response.json()["error"]
    assert (error["code"], error["details"]) == (
        "CONVERSATION_STATE_CONFLICT",
        {"status": "deleted", "allowed_from": ["active", "archived"]},
    )


def test_a_stale_version_is_reported_before_the_state(alice):
    created = conversation(alice, "deleted")

    assert patch(alice, created, {"title": "New"}, **{"If-Match": '"v1"'}).status_code == 412


dollars = st.text(st.sampled_from("$.{}[]: ROTuser_id\"'"), min_size=1, max_size=12)


@settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(title=dollars, value=dollars, sequence=dollars)
def test_values_like_expressions_are_not_evaluated(alice, title, value, sequence):
    created = conversation(alice)
    body = {
        "title": f"${title}",
        "custom": {"key": f"${value}"},
        "settings": {"stop_sequences": [f"$${sequence}"]},
    }

    stored = patch(alice, created, body).json()

    assert stored["title"] == re.sub("  +", " ", body["title"].strip())
    assert stored["custom"] == body["custom"]
    assert stored["settings"]["stop_sequences"] == body["settings"]["stop_sequences"]
