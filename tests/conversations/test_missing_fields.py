"""A stored document that lacks a field, or has an unknown one, stays readable and editable."""

import json
from datetime import timedelta

import pytest
from bson import ObjectId
from django.core.management import call_command

from conversation_service import clock
from conversations import documents
from conversations.documents import SORT_KEYS
from tests.conversations.admin.browser import LIST, confirm, shown, staff, url_of
from tests.conversations.test_export import EXPORT
from tests.conversations.test_internal import AUTHORIZE, put, report, service_with
from tests.conversations.test_release_0_1_0 import move_revisions_to_arrays
from tests.documented import DOCUMENT
from tests.factories import PATH, conversation

IDENTITY = {"_id", "user_id", "status"}


def paths(document, prefix=""):
    for name, value in document.items():
        if prefix or name not in IDENTITY:
            yield prefix + name
        if name in ("settings", "metadata"):
            yield from paths(value, f"{name}.")


STORED = documents.new(user_id="alice", character_id="luna", now=clock.now()) | {"hold": None}
PATHS = [*paths(STORED)]


@pytest.fixture
def service():
    return service_with("conversations:authorize", "conversations:activity")


@pytest.fixture
def stored(alice, mongo):
    return stored_conversation(alice)


def stored_conversation(alice):
    """A conversation with every field and two revisions, as the API returns it."""
    created = conversation(
        alice, title="Río", tags=["Casual", "Work"], custom={"k": "v"}, settings={"top_p": 0.5}
    )
    path = f"{PATH}/{created['id']}"
    alice.patch(path, {"title": "Luna", "settings": {"max_tokens": 7}})
    return alice.patch(path, {"pinned": True}, headers={"Idempotency-Key": "old"}).json()


def unset(mongo, *missing):
    """Remove fields, as in a document of another release; the validator is in force."""
    mongo["conversations"].update_many({}, {"$unset": dict.fromkeys(missing, 1)})


def without_times(body):
    """Return the body without the fields that every write changes."""
    metadata = {**body["metadata"], "updated_at": None}
    return {**body, "metadata": metadata, "version": None}


@pytest.mark.parametrize("path", PATHS)
def test_a_document_without_a_field_is_read_equally_by_every_endpoint(
    alice, mongo, service, stored, path
):
    unset(mongo, path)
    one = f"{PATH}/{stored['id']}"

    read = alice.get(one)

    assert read.status_code == 200
    body = read.json()
    assert body.keys() == stored.keys()
    assert body["settings"].keys() == stored["settings"].keys()
    assert body["metadata"].keys() == stored["metadata"].keys()
    top = path.partition(".")[0]
    assert {k: v for k, v in body.items() if k not in (top, "retention")} == {
        k: v for k, v in stored.items() if k not in (top, "retention")
    }
    assert read.headers["ETag"] == f'"v{body["version"]}"'
    for sort in SORT_KEYS:
        for order in ("asc", "desc"):
            page = alice.get(PATH, {"sort": sort, "order": order}).json()
            assert page["conversations"] == [body]
    names = ",".join(body)
    assert alice.get(PATH, {"fields": names}).json()["conversations"] == [body]
    assert alice.get("/api/v1/changes").json()["changes"] == [
        {"type": "upsert", "conversation": body}
    ]
    overview = alice.get(f"{PATH}/overview").json()
    assert [row["latest"] for row in overview["characters"]] == [body]
    assert [row["character_id"] for row in overview["characters"]] == [body["character_id"]]
    assert alice.get(f"{PATH}/summary").status_code == 200
    assert alice.get("/api/v1/tags").status_code == 200
    line, end = map(json.loads, alice.get(EXPORT).getvalue().splitlines())
    history = line.pop("history")
    assert (line, end["count"]) == (body, 1)
    revisions = alice.get(f"{one}/history").json()["revisions"]
    assert len(revisions) == len(history) == (0 if path == "revisions_by_version" else 2)
    body_sent = {"user_id": "alice", "ids": [stored["id"]]}
    assert service.post(AUTHORIZE, body_sent).json()["results"][0]["writable"]


@pytest.mark.parametrize("path", PATHS)
def test_a_document_without_a_field_is_edited_without_loss(alice, mongo, stored, path):
    unset(mongo, path)
    one = f"{PATH}/{stored['id']}"
    before = alice.get(one).json()

    steps = [
        ({"title": "New"}, {}),
        ({"tags_add": ["CASUAL", "new"], "tags_remove": ["WORK"]}, {}),
        ({"settings": {"temperature": 1.5}}, {"Idempotency-Key": "new"}),
        ({"custom": {"k2": "v2"}}, {"If-Match": '"v{version}"'}),
        ({"status": "archived"}, {}),
        ({"status": "active", "pinned": False}, {}),
    ]
    version = before["version"]
    for body, headers in steps:
        sent = {name: value.format(version=version) for name, value in headers.items()}
        response = alice.patch(one, body, headers=sent)
        assert response.status_code == 200, response.json()
        assert response.json()["version"] == version + 1, body
        version += 1
    after = alice.get(one).json()

    tags = [tag for tag in before["tags"] if tag != "Work"] + ["new"]
    assert after["tags"] == (tags if before["tags"] else ["CASUAL", "new"])
    assert after["custom"] == before["custom"] | {"k2": "v2"}
    assert after["settings"] == before["settings"] | {"temperature": 1.5}
    assert {*after["settings_given"]} == {*before["settings_given"], "temperature"}
    assert without_times(after) == without_times(before) | {
        "title": "New",
        "settings_given": after["settings_given"],
        "title_source": "user",
        "tags": after["tags"],
        "custom": after["custom"],
        "settings": after["settings"],
        "pinned_at": None,
    }
    [document] = mongo["conversations"].find()
    assert None not in (document["version"], document["revisions"], document["keys"])
    assert len(document["tag_keys"]) == len(document["tags"])
    replayed = alice.patch(
        one, {"settings": {"temperature": 1.5}}, headers={"Idempotency-Key": "new"}
    )
    assert replayed.headers["Idempotency-Replayed"] == "true"
    assert alice.patch(one, {"tags_add": ["Casual", "NEW"]}).json() == after
    newest = alice.get(f"{one}/history").json()["revisions"][0]
    assert newest["version"] == version
    assert newest["changes"]["status"] == {"before": "archived", "after": "active"}
    reverted = alice.post(
        f"{one}/revert",
        {"version": version - 1, "fields": ["title", "settings", "tags", "custom", "pinned"]},
    )
    assert reverted.status_code == 200
    assert reverted.json()["pinned_at"] == before["pinned_at"]


@pytest.mark.parametrize("path", PATHS)
def test_an_edit_to_the_default_of_a_missing_field_changes_nothing(alice, mongo, stored, path):
    unset(mongo, path)
    one = f"{PATH}/{stored['id']}"
    before = alice.get(one).json()
    same = {name: before[name] for name in ("tags", "custom")}
    same["settings"] = {name: before["settings"][name] for name in before["settings_given"]}
    same["pinned"] = before["pinned_at"] is not None

    assert alice.patch(one, same).json() == before
    assert alice.patch(one, {"settings": {}, "tags_add": [], "tags_remove": []}).json() == before


@pytest.mark.parametrize("path", PATHS)
def test_a_document_without_a_field_goes_through_all_states(alice, mongo, service, stored, path):
    one = f"{PATH}/{stored['id']}"
    alice.post(f"{one}/archive")
    unset(mongo, path)
    before = alice.get(one).json()

    copy = alice.post(f"{one}/duplicate", {})
    trashed = alice.delete(one)
    unset(mongo, path)
    restored = alice.post(f"{one}/restore")
    activity = put(service, stored, report(1, 2), "?on_message=unarchive")

    assert (copy.status_code, trashed.status_code, restored.status_code) == (201, 200, 200)
    copied = ("character_id", "title", "title_source", "settings", "tags", "custom")
    assert {name: copy.json()[name] for name in copied} == {name: before[name] for name in copied}
    assert trashed.json()["version"] == before["version"] + 1
    # Only the state before the trash replaces the missing archive time.
    assert restored.json()["status"] == "archived"
    assert activity.json()["applied"]
    assert activity.json()["metadata"].keys() == stored["metadata"].keys()
    assert alice.get(one).json()["status"] == "active"
    alice.delete(one)
    unset(mongo, path)
    assert alice.delete(f"{one}?mode=purge").status_code == 204


@pytest.mark.parametrize("path", PATHS)
def test_bulk_retention_and_commands_accept_a_document_without_a_field(
    alice, mongo, settings, stored, path
):
    unset(mongo, path)
    one = f"{PATH}/{stored['id']}"
    before = alice.get(one).json()
    tag = {"action": "tag", "tags": ["bulk"], "filter": {"status": "all"}}

    dry = alice.post(f"{PATH}/bulk", tag | {"dry_run": True}).json()
    done = alice.post(f"{PATH}/bulk", tag).json()
    again = alice.post(
        f"{PATH}/bulk", {"action": "tag", "tags": ["bulk"], "ids": [stored["id"]]}
    ).json()

    results = [response["results"][0] for response in (dry, done, again)]
    versions = [before["version"], before["version"] + 1, before["version"] + 1]
    assert [result["version"] for result in results] == versions
    assert [response["summary"]["ok"] for response in (dry, done, again)] == [1, 1, 0]
    settings.RETENTION_ARCHIVE_IDLE_DAYS = 30
    assert alice.get(one).status_code == alice.get(PATH).status_code == 200
    call_command("reindex_search", verbosity=0)
    call_command("apply_retention", verbosity=0)
    call_command("purge_trash", verbosity=0)
    call_command("inspect_conversation", stored["id"])
    assert alice.get(PATH, {"search": "bulk"}).json()["pagination"]["total_count"] == 1


def test_the_console_shows_and_edits_documents_without_a_field(alice, mongo):
    """One document for each missing field, all in one list."""
    by_id = {}
    for path in [*PATHS, "hold.by", "hold.reason"]:
        id_ = stored_conversation(alice)["id"]
        one = {"_id": ObjectId(id_)}
        if path.startswith("hold."):
            hold = {"by": "x", "reason": "y", "at": clock.now()}
            mongo["conversations"].update_one(one, {"$set": {"hold": hold}})
        mongo["conversations"].update_one(one, {"$unset": {path: 1}})
        by_id[id_] = path
    before = {id_: alice.get(f"{PATH}/{id_}").json() for id_ in by_id}
    ops = staff(role="operator")

    assert len(shown(ops.get(LIST))) == len(by_id)
    for id_, path in by_id.items():
        assert ops.get(url_of(id_)).status_code == 200, path
        if path not in {"revisions_by_version", "version"}:
            assert ops.get(url_of(id_, "revert", "1")).status_code == 200, path
            assert ops.post(url_of(id_, "revert", "1")).status_code == 302, path
        assert ops.post(url_of(id_, "act", "archive")).status_code == 302, path
    assert confirm(ops, "restore", *by_id).status_code == 302
    for name in ("export_csv", "export_ndjson"):
        response = ops.post(LIST, {"action": name, "index": "0", "_selected_action": [*by_id]})
        exported = b"".join(response.streaming_content).decode()
        assert [path for id_, path in by_id.items() if id_ not in exported] == []
    for id_, path in by_id.items():
        after = alice.get(f"{PATH}/{id_}").json()
        assert after["status"] == "active", path
        assert after["settings"].keys() == before[id_]["settings"].keys(), path


@pytest.mark.parametrize("sort", SORT_KEYS)
@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("status", ["active", "all"])
def test_pages_contain_each_document_without_the_sort_key_once(alice, mongo, sort, order, status):
    rows = [
        documents.new(
            user_id="alice", character_id="luna", title=f"t{n}", now=clock.now() + timedelta(days=n)
        )
        | {"status": "archived" if n % 3 == 1 and status == "all" else "active"}
        for n in range(9)
    ]
    mongo["conversations"].insert_many(rows)
    lacking = [row["_id"] for row in rows[::2]]
    mongo["conversations"].update_many({"_id": {"$in": lacking}}, {"$unset": {SORT_KEYS[sort]: 1}})
    parameters = {"sort": sort, "order": order, "limit": 2, "status": status}

    pages = [alice.get(PATH, parameters).json()]
    while cursor := pages[-1]["pagination"]["next_cursor"]:
        pages.append(alice.get(PATH, parameters | {"cursor": cursor}).json())
    seen = [row["id"] for page in pages for row in page["conversations"]]
    back = [pages[-1]]
    while cursor := back[0]["pagination"]["prev_cursor"]:
        back.insert(0, alice.get(PATH, parameters | {"cursor": cursor}).json())

    assert len(seen) == 9
    assert set(seen) == {str(row["_id"]) for row in rows}
    assert [row["id"] for page in back for row in page["conversations"]] == seen
    # Documents without the key are together, beside the oldest or first.
    end = seen[-5:] if order == "desc" else seen[:5]
    assert set(end) == {str(id_) for id_ in lacking}


def test_a_snapshot_of_the_feed_has_documents_without_a_time_of_change(alice, mongo):
    rows = [documents.new(user_id="alice", character_id="luna", now=clock.now()) for _ in range(7)]
    mongo["conversations"].insert_many(rows)
    mongo["conversations"].update_many(
        {"_id": {"$in": [row["_id"] for row in rows[:5]]}}, {"$unset": {"changed_at": 1}}
    )

    seen: list[str] = []
    page = alice.get("/api/v1/changes", {"limit": 2}).json()
    seen += [change["conversation"]["id"] for change in page["changes"]]
    while page["has_more"]:
        page = alice.get("/api/v1/changes", {"limit": 2, "cursor": page["next_cursor"]}).json()
        seen += [change["conversation"]["id"] for change in page["changes"]]

    assert sorted(seen) == sorted(str(row["_id"]) for row in rows)
    assert len(set(seen)) == 7


UNKNOWN = {
    "unknown": "es",
    "nested": {"list": [1, {"x": None}]},
    "settings.unknown": "gpt-x",
    "metadata.reactions": 3,
}


def test_fields_of_a_newer_release_are_kept_by_every_edit(alice, mongo, service, stored):
    revision = {"path": "settings.unknown", "before": "gpt-w", "after": "gpt-x"}
    change = {"revisions_by_version.3.changes.1": revision}
    mongo["conversations"].update_one({}, {"$set": UNKNOWN | change})
    one = f"{PATH}/{stored['id']}"

    assert alice.get(one).json()["settings"]["unknown"] == "gpt-x"
    assert alice.patch(one, {"settings": {"top_p": 0.1}, "title": "New"}).status_code == 200
    assert alice.patch(one, {"settings": None, "tags_add": ["z"]}).status_code == 200
    assert alice.get(f"{one}?as_of=1").json()["settings"]["unknown"] == "gpt-w"
    every = {"version": 1, "fields": ["title", "settings", "tags", "custom", "pinned"]}
    assert alice.post(f"{one}/revert", every).status_code == 200
    put(service, stored, report(1))
    alice.post(f"{PATH}/bulk", {"action": "archive", "ids": [stored["id"]]})
    copy = alice.post(f"{one}/duplicate", {}).json()
    alice.delete(one)
    alice.post(f"{one}/restore")
    assert len(alice.get(f"{one}/history").json()["revisions"]) > 2
    export = alice.get(EXPORT)
    assert export.status_code == alice.get(PATH).status_code == 200
    export.close()
    assert staff(role="operator").get(url_of(stored["id"])).status_code == 200

    document = mongo["conversations"].find_one({"_id": ObjectId(stored["id"])})
    assert (document["unknown"], document["nested"]) == ("es", UNKNOWN["nested"])
    assert document["settings"]["unknown"] == copy["settings"]["unknown"] == "gpt-x"
    assert document["metadata"]["reactions"] == 3


REVISION = ["version", "at", "previous_at", "by", "client", "request_id", "changes"]


@pytest.mark.parametrize("value", ["missing", None])
@pytest.mark.parametrize("places", [["0"], ["1"], ["0", "1"], ["2"], ["3"], ["2", "3"]])
@pytest.mark.parametrize("names", [*([name] for name in REVISION), REVISION])
def test_a_revision_without_a_field_is_read_by_every_endpoint(
    alice, mongo, stored, names, places, value
):
    field = "revisions_by_version" if {*places} & {"2", "3"} else "revisions"
    if field == "revisions":
        move_revisions_to_arrays(mongo)
    one = f"{PATH}/{stored['id']}"
    whole = alice.get(f"{one}/history").json()["revisions"]
    [line, _end] = map(json.loads, alice.get(EXPORT).getvalue().splitlines())
    removed = {f"{field}.{place}.{name}": value for place in places for name in names}
    mongo["conversations"].update_one({}, {"$unset" if value else "$set": removed})

    revisions = alice.get(f"{one}/history").json()["revisions"]
    [exported, end] = map(json.loads, alice.get(EXPORT).getvalue().splitlines())

    assert end["count"] == 1
    assert [r["version"] for r in revisions] == [3, 2]
    if names in (["at"], ["version"]):  # both are known exactly from the other fields
        assert revisions == whole
        assert exported == line
    assert all(r["at"] and r["by"] and r["request_id"] is not None for r in revisions)
    first = alice.get(f"{one}/history", {"limit": 1}).json()
    assert (
        alice.get(f"{one}/history", {"limit": 1, "cursor": first["next_cursor"]}).json()[
            "revisions"
        ]
        == revisions[1:]
    )
    assert alice.get(f"{one}?as_of=1").status_code == 200
    stale = alice.patch(one, {"title": "x"}, headers={"If-Match": '"v1"'})
    assert stale.json()["error"]["details"]["changes"] == revisions
    assert staff(role="operator").get(url_of(stored["id"])).status_code == 200
    assert alice.post(f"{one}/revert", {"version": 1, "fields": ["title"]}).status_code == 200
    assert alice.patch(one, {"title": "Last"}).status_code == 200
    [document] = mongo["conversations"].find()
    assert [*document["revisions_by_version"]][:2] == ["2", "3"]
    mongo["conversations"].delete_many({})
    response = alice.post(
        f"{PATH}/import", json.dumps(exported), content_type="application/x-ndjson"
    )
    assert json.loads(response.getvalue().splitlines()[0])["status"] == 201


def test_a_document_with_only_its_ids_is_read_with_defaults(alice, mongo):
    row = {"_id": ObjectId(), "user_id": "alice", "status": "active"}
    mongo["conversations"].insert_one(dict(row))

    body = alice.get(f"{PATH}/{row['_id']}").json()
    edited = alice.patch(f"{PATH}/{row['_id']}", {"tags_add": ["x"]}).json()

    assert alice.get(PATH).json()["conversations"] == [edited]
    assert body["metadata"]["created_at"].startswith(f"{row['_id'].generation_time:%Y-%m-%dT%H:%M}")
    assert body["metadata"]["last_activity"] == body["metadata"]["created_at"]
    assert (body["title"], body["version"], body["settings"]["max_tokens"]) == ("Untitled", 1, 2048)
    assert (edited["tags"], edited["version"]) == (["x"], 2)


def test_every_field_of_the_resource_is_declared_with_its_default():
    declared = DOCUMENT["components"]["schemas"]["Conversation"]["properties"]

    lacking = documents.complete({"_id": ObjectId()})

    assert declared.keys() - lacking.keys() == {
        *("id", "object", "user_id", "status", "is_archived", "retention")
    }
