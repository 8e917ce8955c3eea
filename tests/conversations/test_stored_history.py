"""Revisions and idempotency records are stored by name: MongoDB replicates only the new ones."""

import pytest

from tests.conversations.test_history import history, path_of
from tests.conversations.test_release_0_1_0 import move_revisions_to_arrays
from tests.factories import conversation


def edit(client, created, first, last, *, with_key=False):
    """Edit the title once for each number, and return the last response."""
    for number in range(first, last + 1):
        headers = {"Idempotency-Key": f"key-{number:03}"} if with_key else {}
        title = {"title": f"Title {number:03}"}
        response = client.patch(path_of(created), title, headers=headers)
        assert response.status_code == 200, response.json()
    return response.json()


def oplog_bytes(mongo):
    """Return the size of the newest entry for a conversation in the log of the replica set."""
    namespace = {"ns": f"{mongo.name}.conversations"}
    size = {"bytes": {"$bsonSize": "$$ROOT"}, "o": 1}
    [entry] = mongo.client["local"]["oplog.rs"].find(namespace, size, limit=1).sort("$natural", -1)
    assert "diff" in entry["o"], entry
    return entry["bytes"]


@pytest.mark.parametrize("with_key", [False, True])
def test_the_60th_edit_replicates_at_most_twice_as_much_as_the_10th(alice, mongo, with_key):
    created = conversation(alice)
    edit(alice, created, 1, 10, with_key=with_key)
    early = oplog_bytes(mongo)
    edit(alice, created, 11, 60, with_key=with_key)

    assert oplog_bytes(mongo) <= 2 * early


def test_the_newest_fifty_revisions_are_stored_by_version(alice, mongo):
    created = conversation(alice)
    edit(alice, created, 2, 61)

    [document] = mongo["conversations"].find()
    assert document["revisions"] == []
    assert [*document["revisions_by_version"]] == [f"{version}" for version in range(12, 62)]
    assert all(
        key == f"{revision['version']}"
        for key, revision in document["revisions_by_version"].items()
    )


@pytest.mark.parametrize("edits", [3, 50, 60])
def test_the_next_edit_moves_revisions_from_the_array(alice, mongo, edits):
    created = conversation(alice)
    edit(alice, created, 1, edits)
    move_revisions_to_arrays(mongo)
    before = history(alice, created, limit=50)["revisions"]
    edit(alice, created, edits + 1, edits + 1)

    after = history(alice, created, limit=50)["revisions"]
    assert after[1:] == before[:49]
    assert after[0]["changes"]["title"]["after"] == f"Title {edits + 1:03}"
    [document] = mongo["conversations"].find()
    assert (document["revisions"], len(document["revisions_by_version"])) == ([], len(after))


def test_an_edit_without_effect_moves_no_revision(alice, mongo):
    created = conversation(alice)
    title = edit(alice, created, 1, 3)["title"]
    move_revisions_to_arrays(mongo)
    with_key = {"Idempotency-Key": "k"}
    alice.patch(path_of(created), {"title": title}, headers=with_key)

    [document] = mongo["conversations"].find()
    assert len(document["revisions"]) == 3
    assert not document.get("revisions_by_version")
    assert [r["version"] for r in history(alice, created)["revisions"]] == [4, 3, 2]
