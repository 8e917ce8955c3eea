"""Documents, tombstones and export lines that release 0.1.0 wrote work in this release.

`tests/data/0.1.0` holds what that release stored for alice and carol, and alice's export.
"""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from bson import json_util

from conversations.documents import REVISIONS
from tests.conversations.admin.browser import staff, text, url_of
from tests.conversations.test_import import imported
from tests.conversations.test_internal import AUTHORIZE, put, report, service_with
from tests.factories import PATH

DATA = Path(__file__).parents[1] / "data" / "0.1.0"
DOCUMENTS = [
    json_util.loads(line) for line in (DATA / "conversations.ndjson").read_text().splitlines()
]
*EXPORTED, _END = [json.loads(line) for line in (DATA / "export.ndjson").read_text().splitlines()]
TOMBSTONES = [row for row in DOCUMENTS if row["status"] == "purged"]
EDITABLE = [line for line in EXPORTED if line["status"] != "deleted"]
TRASHED = [line for line in EXPORTED if line["status"] == "deleted"]


@pytest.fixture(autouse=True)
def stored(mongo):
    """Insert the documents as a pod of 0.1.0 would: the validator must accept each."""
    in_use = datetime.now(UTC) + timedelta(days=1)  # else the TTL index removes tombstones
    rows = [row | {"expires_at": in_use} if row in TOMBSTONES else row for row in DOCUMENTS]
    mongo["conversations"].insert_many(rows)


def move_revisions_to_arrays(mongo):
    """Store the revisions of all conversations as that release does."""
    mongo["conversations"].update_many(
        {}, [{"$set": {"revisions": REVISIONS}}, {"$unset": "revisions_by_version"}]
    )


def each(lines):
    return pytest.mark.parametrize("line", lines, ids=[line["title"][:30] for line in lines])


def includes(now, then):
    """Return True if a value equals that of 0.1.0, apart from fields that a later release added."""
    if isinstance(now, dict) and isinstance(then, dict):
        return all(name in now and includes(now[name], value) for name, value in then.items())
    return now == then


def without_history(line):
    return {name: value for name, value in line.items() if name != "history"}


def followed(client, path, key, **query):
    """Return the items of all pages."""
    items, cursor = [], None
    while True:
        page = client.get(path, query | ({"cursor": cursor} if cursor else {})).json()
        items += page[key]
        cursor = page.get("pagination", page)["next_cursor"]
        if not (cursor and page[key]):
            return items


@each(EXPORTED)
def test_it_is_read_as_it_was_exported(alice, line):
    read = alice.get(f"{PATH}/{line['id']}").json()

    assert includes(read, without_history(line))


def test_all_are_listed(alice):
    for sort in ("last_activity", "created_at", "updated_at", "title"):
        kept = followed(alice, PATH, "conversations", status="all", sort=sort, limit=7)
        trashed = followed(alice, PATH, "conversations", status="deleted", sort=sort, limit=7)

        assert {row["id"] for row in kept} == {line["id"] for line in EDITABLE}
        assert {row["id"] for row in trashed} == {line["id"] for line in TRASHED}


@each(EDITABLE)
def test_it_is_found_by_the_first_word_of_its_title(alice, line):
    query = {"search": line["title"].split()[0], "status": "all"}

    found = followed(alice, PATH, "conversations", **query)

    assert line["id"] in {row["id"] for row in found}


def test_the_change_feed_has_all(alice):
    changes = followed(alice, "/api/v1/changes", "changes", limit=7)

    there = {one["conversation"]["id"] for one in changes if one["type"] == "upsert"}
    assert there == {line["id"] for line in EXPORTED}


@each(EXPORTED)
def test_its_history_is_what_was_exported(alice, line):
    revisions = followed(alice, f"{PATH}/{line['id']}/history", "revisions", limit=50)

    for now, then in zip(revisions, line["history"], strict=True):
        assert now.items() >= {k: v for k, v in then.items() if k != "previous_at"}.items()


@each([line for line in EXPORTED if line["history"]])
def test_its_oldest_version_can_be_read(alice, line):
    oldest = line["version"] - len(line["history"])

    then = alice.get(f"{PATH}/{line['id']}", {"as_of": oldest})

    assert then.status_code == 200
    assert then.json()["version"] == oldest


@each(EDITABLE)
def test_it_can_be_edited_and_reverted(alice, line):
    path = f"{PATH}/{line['id']}"
    patch = {
        "title": "Edited",
        "settings": {"temperature": 0.3},
        "tags": ["one", "two"],
        "custom": None,
        "pinned": line["pinned_at"] is None,
    }

    edited = alice.patch(path, patch, headers={"If-Match": f'"v{line["version"]}"'})
    reverted = alice.post(
        f"{path}/revert",
        {"version": line["version"], "fields": ["title", "settings", "tags", "custom", "pinned"]},
    )

    assert (edited.status_code, edited.json()["title"]) == (200, "Edited")
    for name in ("title", "settings", "tags", "custom", "pinned_at"):
        assert includes(reverted.json()[name], line[name]), name


@each(EDITABLE)
def test_it_can_be_duplicated_archived_restored_trashed_and_purged(alice, line):
    path = f"{PATH}/{line['id']}"

    copy = alice.post(f"{path}/duplicate", {})
    states = [
        alice.post(f"{path}/archive").json()["status"],
        alice.post(f"{path}/restore").json()["status"],
        alice.delete(path).json()["status"],
    ]
    purged = alice.delete(f"{path}?mode=purge")

    assert includes(copy.json()["settings"], line["settings"])
    assert states == ["archived", "active", "deleted"]
    held = line["title"] == "Held for legal reasons"
    assert purged.status_code == (409 if held else 204)


@each(TRASHED)
def test_it_can_be_restored_to_its_previous_state(alice, line):
    restored = alice.post(f"{PATH}/{line['id']}/restore").json()

    assert restored["status"] == ("archived" if line["archived_at"] else "active")


def test_a_bulk_action_updates_all(alice):
    ids = [line["id"] for line in EDITABLE if len(line["tags"]) < 10]

    done = alice.post(f"{PATH}/bulk", {"action": "tag", "tags": ["bulky"], "ids": ids}).json()

    assert done["summary"]["ok"] == len(ids)


def test_the_export_is_the_same(alice):
    response = alice.get(f"{PATH}/export")
    *rows, _end = map(json.loads, b"".join(response.streaming_content).splitlines())

    assert [row["id"] for row in rows] == [line["id"] for line in EXPORTED]
    for row, line in zip(rows, EXPORTED, strict=True):
        assert includes(row, line)


def test_the_export_can_be_imported(bob):
    first = imported(bob, EXPORTED)
    again = imported(bob, EXPORTED)

    assert {result["status"] for result in first} == {201}, first
    assert {result["status"] for result in again} == {200}
    kept = followed(bob, PATH, "conversations", status="all")
    assert sorted(row["title"] for row in kept) == sorted(line["title"] for line in EDITABLE)


def test_a_tombstone_shows_nothing(alice):
    for row in TOMBSTONES:
        assert alice.get(f"{PATH}/{row['_id']}").status_code == 404


def test_services_can_authorize_and_report(alice):
    service = service_with("conversations:authorize", "conversations:activity")
    ids = [line["id"] for line in EXPORTED]

    results = service.post(AUTHORIZE, {"user_id": "alice", "ids": ids}).json()["results"]
    reports = [put(service, line, report(100, 20)).json() for line in EXPORTED]

    writable = {result["id"] for result in results if result["writable"]}
    assert writable == {line["id"] for line in EXPORTED if line["status"] == "active"}
    assert all(one["applied"] for one in reports)


def test_overview_and_summary_count_all(alice):
    summary = alice.get(f"{PATH}/summary").json()["statistics"]
    overview = alice.get(f"{PATH}/overview")

    assert summary["total_conversations"] == len(EDITABLE)
    assert summary["deleted_conversations"] == len(TRASHED)
    assert overview.status_code == 200


@each(EXPORTED)
def test_the_console_shows_it(line):
    page = staff(role="auditor").get(url_of(line["id"]))

    assert page.status_code == 200
    assert line["title"][:30] in text(page)


# Cursors that release 0.1.0 returned to alice for the documents above, with the ids of their pages.
CURSORS = [json.loads(line) for line in (DATA / "cursors.ndjson").read_text().splitlines()]


def each_cursor(kind):
    cursors = [cursor for cursor in CURSORS if cursor["kind"] == kind]
    return pytest.mark.parametrize(
        "old", cursors, ids=[f"{old['name']} {old.get('query', '')}" for old in cursors]
    )


@each_cursor("list")
def test_a_list_continues_at_its_cursor(alice, old):
    page = alice.get(PATH, old["query"] | {"cursor": old["cursor"]}).json()

    assert [row["id"] for row in page["conversations"]] == old["ids"]
    assert page["pagination"]["has_prev"] == old["has_prev"]
    assert page["pagination"]["has_next"] == old["has_next"]


def test_there_are_cursors_of_every_kind():
    lists = {
        (old["query"].get("sort", "last_activity"), old["name"])
        for old in CURSORS
        if old["kind"] == "list"
    }

    sorts = ("last_activity", "created_at", "updated_at", "title")
    assert {old["kind"] for old in CURSORS} == {"list", "feed", "history", "bulk"}
    assert lists >= {(sort, name) for sort in sorts for name in ("next", "previous")}


def test_release_0_1_0_accepts_the_list_cursors_of_this_release_during_an_update(alice):
    """Cursors of this release are equal to those that 0.1.0 makes for the same page."""
    first_pages = [old for old in CURSORS if old["name"] == "next"]

    for old in first_pages:
        page = alice.get(PATH, old["query"]).json()
        assert page["pagination"]["next_cursor"] == old["cursor"], old["query"]


@each_cursor("feed")
def test_the_change_feed_continues_at_its_cursor(alice, settings, old):
    settings.TOMBSTONE_DAYS = 36_500
    page = alice.get("/api/v1/changes", old["query"] | {"cursor": old["cursor"]}).json()

    assert [change["conversation"]["id"] for change in page["changes"]] == old["ids"]


@each_cursor("history")
def test_a_history_continues_at_its_cursor(alice, old):
    page = alice.get(old["path"], old["query"] | {"cursor": old["cursor"]}).json()

    assert [revision["version"] for revision in page["revisions"]] == old["versions"]


@each_cursor("bulk")
def test_a_bulk_action_continues_at_its_cursor(alice, old):
    done = alice.post(f"{PATH}/bulk", old["body"]).json()

    assert [result["id"] for result in done["results"]] == old["ids"]
