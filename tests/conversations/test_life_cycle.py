"""States: active, archived, in the trash, purged."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from conversations import states
from tests.factories import PATH, client_of, conversation


def act(client, created, action, **headers):
    return client.post(f"{PATH}/{created['id']}/{action}", headers=headers)


def read(client, created):
    return client.get(f"{PATH}/{created['id']}").json()


def test_archive_and_restore_set_the_state(alice):
    created = conversation(alice)

    archived = act(alice, created, "archive").json()
    restored = act(alice, created, "restore").json()

    assert (archived["status"], archived["is_archived"], archived["version"]) == (
        "archived",
        True,
        2,
    )
    assert archived["archived_at"] is not None
    assert (restored["status"], restored["archived_at"], restored["version"]) == ("active", None, 3)


@pytest.mark.parametrize("status", states.EDITABLE)
@pytest.mark.parametrize("before", [[], ["archived"]])
def test_a_patch_sets_each_state_in_which_edits_are_possible(alice, status, before):
    created = conversation(alice, *before)

    response = alice.patch(f"{PATH}/{created['id']}", {"status": status})

    assert response.json()["status"] == status
    assert read(alice, created)["status"] == status


@pytest.mark.parametrize("status", sorted({*states.EDITABLE} - {states.ACTIVE}))
def test_get_or_create_returns_no_conversation_that_is_no_longer_active(alice, status):
    path, body = f"{PATH}?get_or_create=character", {"character_id": "luna"}
    first = alice.post(path, body).json()
    assert alice.patch(f"{PATH}/{first['id']}", {"status": status}).status_code == 200

    second = alice.post(path, body)

    assert second.status_code == 201
    assert second.json()["id"] != first["id"]


@pytest.mark.parametrize("action", ["archive", "pin"])
def test_a_repeated_action_changes_nothing(alice, action):
    created = conversation(alice)
    once = act(alice, created, action).json()

    twice = act(alice, created, action)

    assert twice.status_code == 200
    assert twice.json() == once


@pytest.mark.parametrize("action", ["restore", "unpin"])
def test_undo_of_an_absent_state_changes_nothing(alice, action):
    created = conversation(alice)

    assert act(alice, created, action).json() == created


@pytest.mark.parametrize("states", [[], ["archived"], ["archived", "pinned"]])
def test_a_restore_from_the_trash_returns_the_previous_state(alice, states):
    before = conversation(alice, *states)

    trashed = alice.delete(f"{PATH}/{before['id']}").json()
    restored = act(alice, before, "restore").json()

    assert (trashed["status"], trashed["is_archived"]) == ("deleted", False)
    assert trashed["deleted_at"] < trashed["purge_at"]
    assert restored == before | {
        "version": before["version"] + 2,
        "metadata": restored["metadata"],
    }
    assert restored["metadata"]["last_activity"] == before["metadata"]["last_activity"]


def test_a_second_trash_changes_nothing(alice):
    trashed = conversation(alice, "archived", "deleted")

    assert alice.delete(f"{PATH}/{trashed['id']}").json() == trashed
    assert act(alice, trashed, "restore").json()["status"] == "archived"


@pytest.mark.parametrize("action", ["archive", "pin", "unpin"])
def test_a_trashed_conversation_rejects_other_actions(alice, action):
    trashed = conversation(alice, "deleted")

    response = act(alice, trashed, action)

    assert response.status_code == 409
    assert response.json()["error"]["code"] == "CONVERSATION_STATE_CONFLICT"
    assert read(alice, trashed) == trashed


def test_delete_returns_no_body_with_prefer_minimal(alice):
    created = conversation(alice)

    response = alice.delete(f"{PATH}/{created['id']}", headers={"Prefer": "return=minimal"})

    assert (response.status_code, response.content) == (204, b"")
    assert response.headers["Preference-Applied"] == "return=minimal"
    assert read(alice, created)["status"] == "deleted"


def test_purge_leaves_an_unreadable_tombstone(alice, mongo):
    trashed = conversation(alice, "deleted", title="Secret", tags=["secret"])
    path = f"{PATH}/{trashed['id']}"

    response = alice.delete(f"{path}?mode=purge")

    assert (response.status_code, response.content) == (204, b"")
    assert alice.get(path).status_code == 404
    assert act(alice, trashed, "restore").status_code == 404
    assert alice.delete(f"{path}?mode=purge").status_code == 404
    assert alice.get(PATH, {"status": "deleted"}).json()["conversations"] == []
    [left] = mongo["conversations"].find()
    assert left.keys() == {"_id", "user_id", "status", "changed_at", "expires_at", "mark"}


@pytest.mark.parametrize("states", [[], ["archived"]])
def test_only_trashed_conversations_can_be_purged(alice, states):
    created = conversation(alice, *states)

    response = alice.delete(f"{PATH}/{created['id']}?mode=purge")

    assert response.status_code == 409
    assert read(alice, created) == created


@pytest.mark.parametrize(
    "call",
    [
        lambda client, path, **extra: client.post(f"{path}/archive", **extra),
        lambda client, path, **extra: client.delete(path, **extra),
    ],
)
def test_if_match_guards_every_change_of_state(alice, call):
    created = conversation(alice)

    response = call(alice, f"{PATH}/{created['id']}", headers={"If-Match": '"v9"'})

    assert response.status_code == 412
    assert read(alice, created) == created


def test_if_match_guards_purging(alice):
    trashed = conversation(alice, "deleted")
    path = f"{PATH}/{trashed['id']}?mode=purge"

    assert alice.delete(path, headers={"If-Match": '"v1"'}).status_code == 412
    assert alice.delete(path, headers={"If-Match": '"v2"'}).status_code == 204


def test_an_unknown_mode_is_rejected(alice):
    created = conversation(alice)

    assert alice.delete(f"{PATH}/{created['id']}?mode=gone").status_code == 400
    assert read(alice, created) == created


def test_one_of_many_concurrent_edits_of_a_version_wins(alice):
    created = conversation(alice)

    def rename(n):
        headers = {"If-Match": '"v1"'}
        body = {"title": f"Title {n}"}
        return (
            client_of("alice").patch(f"{PATH}/{created['id']}", body, headers=headers).status_code
        )

    with ThreadPoolExecutor(16) as threads:
        statuses = sorted(threads.map(rename, range(32)))

    assert statuses == [200] + [412] * 31
    assert read(alice, created)["version"] == 2


def test_concurrent_edits_of_different_fields_all_apply(alice):
    created = conversation(alice)

    def add(n):
        body = {"tags_add": [f"tag {n}"], "custom": {f"key{n}": "x"}}
        return client_of("alice").patch(f"{PATH}/{created['id']}", body).status_code

    with ThreadPoolExecutor(10) as threads:
        assert set(threads.map(add, range(10))) == {200}

    after = read(alice, created)
    assert after["version"] == 11
    assert len(after["tags"]) == len(after["custom"]) == 10
