"""One action on many conversations: by ids, or by a filter in steps."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from conversation_service import clock
from conversations import documents
from conversations.serializers.bulk import ACTIONS, BulkFilterSerializer
from conversations.serializers.listing import ListParameters
from tests.factories import PATH, client_of, conversation

BULK = f"{PATH}/bulk"
ABSENT = "65f0c0ffee65f0c0ffee65f0"


def bulk(client, action, **body):
    response = client.post(BULK, {"action": action, **body})
    assert response.status_code == 200, response.json()
    return response.json()


def all_steps(client, action, **body):
    """Run all steps of a filter and return their responses."""
    responses = [bulk(client, action, **body)]
    while cursor := responses[-1]["next_cursor"]:
        responses.append(bulk(client, action, cursor=cursor, **body))
    return responses


def read(client, created):
    return client.get(f"{PATH}/{created['id']}").json()


def numbers(response):
    return tuple(response["summary"][name] for name in ("matched", "ok", "skipped", "failed"))


def outcomes(response):
    return [(result["status"], result["code"], result["version"]) for result in response["results"]]


def store(mongo, count, **fields):
    rows = [
        documents.new(user_id="alice", character_id="luna", now=clock.now(), **fields)
        for _ in range(count)
    ]
    mongo["conversations"].insert_many(rows)
    return [str(row["_id"]) for row in rows]


@pytest.mark.parametrize(
    ("action", "states", "field", "value"),
    [
        ("archive", [], "status", "archived"),
        ("restore", ["archived"], "status", "active"),
        ("restore", ["archived", "deleted"], "status", "archived"),
        ("trash", ["archived"], "status", "deleted"),
    ],
)
def test_an_action_sets_the_state_of_each(alice, action, states, field, value):
    created = [conversation(alice, *states) for _ in range(3)]

    response = bulk(alice, action, ids=[c["id"] for c in created])

    assert numbers(response) == (3, 3, 0, 0)
    assert [r["id"] for r in response["results"]] == [c["id"] for c in created]
    for before, result in zip(created, response["results"], strict=True):
        after = read(alice, before)
        assert after[field] == value
        assert after["version"] == before["version"] + 1 == result["version"]
        assert after["metadata"]["last_activity"] == before["metadata"]["last_activity"]


SINGLE = {
    "trash": lambda client, path: client.delete(path),
    "purge": lambda client, path: client.delete(f"{path}?mode=purge"),
    "tag": lambda client, path: client.patch(path, {"tags_add": ["x"]}),
    "untag": lambda client, path: client.patch(path, {"tags_remove": ["x"]}),
}
STATES = [[], ["pinned"], ["archived"], ["deleted"], ["archived", "deleted"], ["pinned", "deleted"]]


@pytest.mark.parametrize("action", ACTIONS)
def test_each_item_has_the_outcome_of_a_single_request(alice, bob, action):
    mine = [conversation(alice, *states, tags=["x", "y"]) for states in STATES]
    alike = [conversation(bob, *states, tags=["x", "y"]) for states in STATES]
    tags = {"tags": ["x"]} if "tag" in action else {}

    results = bulk(alice, action, ids=[c["id"] for c in mine], **tags)["results"]

    for one, other, result in zip(mine, alike, results, strict=True):
        path = f"{PATH}/{other['id']}"
        single = SINGLE.get(action, lambda client, at: client.post(f"{at}/{action}"))(bob, path)
        body = single.json() if single.content else {}
        status = 200 if single.status_code == 204 else single.status_code
        assert (result["status"], result["code"]) == (status, body.get("error", {}).get("code"))
        assert result["version"] == read(bob, other).get("version")
        for name in ("status", "tags", "is_archived", "version"):
            if single.status_code != 204:
                assert read(alice, one)[name] == read(bob, other)[name]


TEN = [str(number) for number in range(10)]


@pytest.mark.parametrize(
    ("action", "states", "tags", "held", "code"),
    [
        ("tag", ["deleted"], TEN, True, "CONVERSATION_STATE_CONFLICT"),
        ("tag", [], TEN, True, "VALIDATION_ERROR"),
        ("tag", [], [*TEN[1:], "x"], True, None),
        ("untag", ["deleted"], [], False, "CONVERSATION_STATE_CONFLICT"),
        ("purge", ["archived"], [], True, "CONVERSATION_STATE_CONFLICT"),
        ("purge", ["deleted"], [], True, "LEGAL_HOLD"),
        ("archive", ["archived", "deleted"], [], True, "CONVERSATION_STATE_CONFLICT"),
        ("trash", ["deleted"], [], True, None),
    ],
)
def test_single_bulk_and_dry_run_fail_at_the_same_check(
    alice, mongo, action, states, tags, held, code
):
    created = conversation(alice, *states, tags=tags)
    if held:
        hold = {"by": "ops", "reason": "a case", "at": clock.now()}
        mongo["conversations"].update_one({}, {"$set": {"hold": hold}})
    body = {"ids": [created["id"]]} | ({"tags": ["x"]} if "tag" in action else {})
    path = f"{PATH}/{created['id']}"
    single = SINGLE.get(action, lambda client, at: client.post(f"{at}/{action}"))

    [dry_run] = bulk(alice, action, dry_run=True, **body)["results"]
    [of_many] = bulk(alice, action, **body)["results"]
    alone = single(alice, path).json()

    assert (dry_run["code"], of_many["code"]) == (code, code)
    assert alone.get("error", {}).get("code") == code
    assert read(alice, created) == created


def test_conversations_are_pinned_and_unpinned(alice):
    created = conversation(alice)

    bulk(alice, "pin", ids=[created["id"]])
    pinned = read(alice, created)
    bulk(alice, "unpin", ids=[created["id"]])

    assert pinned["pinned_at"] is not None
    assert read(alice, created)["pinned_at"] is None


def test_tags_are_added_and_removed_as_in_a_patch(alice):
    one, other = conversation(alice, tags=["Café"]), conversation(alice)
    ids = [one["id"], other["id"]]

    added = bulk(alice, "tag", tags=["CAFÉ", "night"], ids=ids)
    spelt = [read(alice, c)["tags"] for c in (one, other)]
    removed = bulk(alice, "untag", tags=["café"], ids=ids)

    assert numbers(added) == numbers(removed) == (2, 2, 0, 0)
    assert spelt == [["Café", "night"], ["CAFÉ", "night"]]
    assert [read(alice, c)["tags"] for c in (one, other)] == [["night"], ["night"]]
    assert alice.get(PATH, {"tags": "night"}).json()["conversations"][0]["tags"] == ["night"]


def test_purged_conversations_leave_tombstones(alice, mongo):
    trashed, active = conversation(alice, "deleted"), conversation(alice)

    response = bulk(alice, "purge", ids=[trashed["id"], active["id"]])

    assert outcomes(response) == [
        (200, None, None),
        (409, "CONVERSATION_STATE_CONFLICT", 1),
    ]
    assert alice.get(f"{PATH}/{trashed['id']}").status_code == 404
    assert mongo["conversations"].distinct("status") == ["active", "purged"]
    assert outcomes(bulk(alice, "purge", ids=[trashed["id"]])) == [
        (404, "CONVERSATION_NOT_FOUND", None)
    ]


def test_each_item_has_a_result_in_order(alice, bob):
    theirs, trashed = conversation(bob), conversation(alice, "deleted")
    active, archived = conversation(alice), conversation(alice, "archived")
    ids = [theirs["id"], ABSENT, "x", trashed["id"], active["id"], archived["id"]]

    response = bulk(alice, "archive", ids=ids)

    nothing_there = (404, "CONVERSATION_NOT_FOUND", None)
    assert [result["id"] for result in response["results"]] == ids
    assert outcomes(response) == [
        *[nothing_there] * 3,
        (409, "CONVERSATION_STATE_CONFLICT", 2),
        (200, None, 2),
        (200, None, 2),
    ]
    assert numbers(response) == (3, 1, 1, 4)
    assert read(bob, theirs) == theirs
    assert read(alice, archived) == archived


def test_too_many_tags_fail_that_item_only(alice):
    full, room = conversation(alice, tags=[str(n) for n in range(10)]), conversation(alice)

    response = bulk(alice, "tag", tags=["one more"], ids=[full["id"], room["id"]])

    assert outcomes(response) == [(400, "VALIDATION_ERROR", 1), (200, None, 2)]
    assert read(alice, full) == full


def test_a_repeated_id_is_skipped(alice):
    created = conversation(alice)

    response = bulk(alice, "archive", ids=[created["id"], created["id"].upper()])

    assert outcomes(response) == [(200, None, 2), (200, None, 2)]
    assert numbers(response) == (2, 1, 1, 0)
    assert read(alice, created)["version"] == 2


def test_the_history_has_the_actor_of_a_bulk_action(alice):
    created = conversation(alice)

    alice.post(
        BULK, {"action": "archive", "ids": [created["id"]]}, headers={"X-Client": "sidebar/2"}
    )

    [revision] = alice.get(f"{PATH}/{created['id']}/history").json()["revisions"]
    assert (revision["by"], revision["client"]) == ("user", "sidebar/2")
    assert revision["changes"]["status"] == {"before": "active", "after": "archived"}
    assert revision.keys() == {"version", "at", "by", "client", "request_id", "changes"}


def test_a_repeated_request_changes_nothing(alice):
    ids = [conversation(alice)["id"] for _ in range(3)]
    bulk(alice, "archive", ids=ids)
    after = alice.get(PATH, {"status": "archived"}).json()

    again = bulk(alice, "archive", ids=ids)

    assert numbers(again) == (3, 0, 3, 0)
    assert alice.get(PATH, {"status": "archived"}).json() == after


def test_an_idempotency_key_is_optional(alice):
    body = {"action": "archive", "ids": [conversation(alice)["id"]]}

    first = alice.post(BULK, body, headers={"Idempotency-Key": "k"})
    second = alice.post(BULK, body, headers={"Idempotency-Key": "k"})
    bad = alice.post(BULK, body, headers={"Idempotency-Key": "ñ"})

    assert (first.status_code, second.status_code, bad.status_code) == (200, 200, 400)
    assert numbers(second.json()) == (1, 0, 1, 0)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"action": "archive"},
        {"action": "explode", "ids": [ABSENT]},
        {"action": "archive", "ids": []},
        {"action": "archive", "ids": [1]},
        {"action": "archive", "ids": [ABSENT] * 101},
        {"action": "archive", "ids": [ABSENT], "filter": {}},
        {"action": "archive", "ids": [ABSENT], "tags": ["x"]},
        {"action": "tag", "ids": [ABSENT]},
        {"action": "tag", "ids": [ABSENT], "tags": []},
        {"action": "tag", "ids": [ABSENT], "tags": ["a,b"]},
        {"action": "archive", "ids": [ABSENT], "cursor": "x"},
        {"action": "archive", "filter": {}, "dry_run": True, "cursor": "x"},
        {"action": "archive", "filter": {}, "cursor": "forged"},
        {"action": "archive", "filter": {}, "dry_run": "yes"},
        {"action": "archive", "filter": {"status": "gone"}},
        {"action": "archive", "filter": {"limit": 5}},
        {"action": "archive", "filter": {"tags": [1]}},
        {"action": "archive", "filter": {"pinned": "true"}},
        {"action": "archive", "filter": {"created_after": "yesterday"}},
        {"action": "archive", "filter": []},
        {"action": "archive", "ids": [ABSENT], "force": True},
    ],
    ids=str,
)
def test_an_invalid_request_is_rejected_and_changes_nothing(alice, body):
    created = conversation(alice)

    response = alice.post(BULK, body)

    assert response.status_code == 400
    assert read(alice, created) == created


# By filter


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, ["luna", "sea", "pinned"]),
        ({"status": "all"}, ["luna", "sea", "pinned", "archived"]),
        ({"character_id": "sol"}, ["sea"]),
        ({"tags": ["SEA"]}, ["sea"]),
        ({"tags": ["sea", "x"], "tags_match": "any"}, ["sea"]),
        ({"tags": []}, []),
        ({"tags": [], "tags_match": "any"}, []),
        ({"tags_match": "any"}, ["luna", "sea", "pinned"]),
        ({"pinned": True}, ["pinned"]),
        ({"pinned": False}, ["luna", "sea"]),
        ({"search": "is:archived"}, ["archived"]),
        ({"search": "SE"}, ["sea"]),
        ({"created_after": "2999-01-01T00:00:00Z"}, []),
        ({"activity_before": "2999-01-01T00:00:00+01:00"}, ["luna", "sea", "pinned"]),
    ],
    ids=str,
)
def test_a_filter_selects_as_the_list_does(alice, bob, chosen, expected):
    conversation(bob)
    created = {
        "luna": conversation(alice),
        "sea": conversation(alice, character_id="sol", tags=["sea"]),
        "pinned": conversation(alice, "pinned"),
        "archived": conversation(alice, "archived"),
        "deleted": conversation(alice, "deleted"),
    }

    response = bulk(alice, "tag", tags=["new"], filter=chosen)

    assert [r["id"] for r in response["results"]] == [created[name]["id"] for name in expected]
    assert numbers(response) == (len(expected), len(expected), 0, 0)
    assert response["next_cursor"] is None


def test_a_run_goes_in_steps_of_a_hundred(alice, mongo):
    ids = store(mongo, 250)

    steps = all_steps(alice, "archive", filter={})

    assert [numbers(step)[1] for step in steps] == [100, 100, 50]
    assert sorted(r["id"] for step in steps for r in step["results"]) == sorted(ids)
    assert mongo["conversations"].distinct("status") == ["archived"]


def test_no_step_follows_a_full_last_step(alice, mongo):
    store(mongo, 200)

    assert len(all_steps(alice, "pin", filter={})) == 2


def test_a_run_skips_conversations_created_or_changed_since_its_start(alice, mongo):
    store(mongo, 150, tags=["old"])
    archived = conversation(alice, "archived")
    mongo["conversations"].update_many({}, {"$set": {"changed_at": clock.now()}})
    first = bulk(alice, "trash", filter={})

    came = conversation(alice)
    alice.post(f"{PATH}/{archived['id']}/restore")
    renamed = alice.get(PATH).json()["conversations"][-1]
    alice.patch(f"{PATH}/{renamed['id']}", {"title": "I need this one"})
    second = bulk(alice, "trash", filter={}, cursor=first["next_cursor"])

    assert numbers(second) == (49, 49, 0, 0)
    left = alice.get(PATH).json()["conversations"]
    assert {c["id"] for c in left} == {came["id"], archived["id"], renamed["id"]}


def test_a_repeated_step_changes_nothing(alice, mongo):
    store(mongo, 150)
    first = bulk(alice, "pin", filter={})
    once = bulk(alice, "pin", filter={}, cursor=first["next_cursor"])
    again = bulk(alice, "pin", filter={}, cursor=first["next_cursor"])

    assert (numbers(once), numbers(again)) == ((50, 50, 0, 0), (0, 0, 0, 0))
    assert mongo["conversations"].distinct("version") == [2]


@pytest.mark.parametrize(
    "other",
    [
        {"action": "trash"},
        {"filter": {"status": "all"}},
        {"filter": {"pinned": False}},
        {"action": "tag", "tags": ["x"]},
    ],
    ids=str,
)
def test_a_cursor_continues_its_own_run_only(alice, mongo, other):
    store(mongo, 101)
    body = {"action": "archive", "filter": {}}
    cursor = alice.post(BULK, body).json()["next_cursor"]

    refused = alice.post(BULK, body | other | {"cursor": cursor})
    foreign = client_of("bob").post(BULK, body | {"cursor": cursor})

    assert refused.json()["error"]["code"] == "INVALID_CURSOR"
    assert foreign.json()["error"]["code"] == "INVALID_CURSOR"


def test_an_empty_run_ends_at_once(alice):
    assert bulk(alice, "archive", filter={}) == {
        "summary": {"matched": 0, "ok": 0, "skipped": 0, "failed": 0},
        "results": [],
        "next_cursor": None,
    }


# Dry runs


def test_a_dry_run_by_ids_returns_the_outcomes_and_changes_nothing(alice, mongo):
    active, archived = conversation(alice), conversation(alice, "archived")
    trashed = conversation(alice, "deleted")
    ids = [active["id"], archived["id"], trashed["id"], ABSENT]
    before = list(mongo["conversations"].find())

    dry_run = bulk(alice, "archive", ids=ids, dry_run=True)

    assert list(mongo["conversations"].find()) == before
    done = bulk(alice, "archive", ids=ids)
    assert dry_run["summary"] == done["summary"]
    assert outcomes(dry_run)[0] == (200, None, 1)
    assert outcomes(dry_run)[1:] == outcomes(done)[1:]


def test_a_dry_run_by_filter_counts_all_and_lists_the_first(alice, mongo):
    ids = store(mongo, 130)
    alice.post(f"{PATH}/{ids[0]}/pin")
    before = list(mongo["conversations"].find())

    response = bulk(alice, "pin", filter={"status": "all"}, dry_run=True)

    assert numbers(response) == (130, 129, 1, 0)
    assert [r["id"] for r in response["results"]] == sorted(ids)[:20]
    assert response["next_cursor"] is None
    assert list(mongo["conversations"].find()) == before


def test_a_dry_run_of_a_purge_counts_legal_holds(alice, mongo):
    held, free = conversation(alice, "deleted"), conversation(alice, "deleted")
    hold = {"by": "ops", "reason": "a case", "at": clock.now()}
    mongo["conversations"].update_one({"title": held["title"]}, {"$set": {"hold": hold}})

    response = bulk(alice, "purge", filter={"status": "deleted"}, dry_run=True)

    assert numbers(response) == (2, 1, 0, 1)
    assert outcomes(response) == [(409, "LEGAL_HOLD", 2), (200, None, 2)]
    assert read(alice, free) == free


# Concurrent requests


@pytest.mark.parametrize("action", ["archive", "trash", "purge"])
def test_two_concurrent_runs_change_each_conversation_once(alice, action):
    states = ["deleted"] if action == "purge" else []
    ids = [conversation(alice, *states)["id"] for _ in range(40)]

    def run(_):
        return bulk(client_of("alice"), action, ids=ids)

    with ThreadPoolExecutor(4) as threads:
        responses = list(threads.map(run, range(4)))

    assert sum(numbers(response)[1] for response in responses) == 40
    if action != "purge":
        assert {read(alice, {"id": id_})["version"] for id_ in ids} == {2}
        assert all(version == 2 for response in responses for _, _, version in outcomes(response))


def test_a_run_by_filter_skips_conversations_created_meanwhile(alice, mongo):
    old = set(store(mongo, 300))
    mongo["conversations"].update_many({}, {"$set": {"changed_at": clock.now()}})
    busy = True

    def write():
        created = []
        while busy:
            created.append(conversation(client_of("alice"))["id"])
        return created

    with ThreadPoolExecutor(2) as threads:
        writer = threads.submit(write)
        steps = all_steps(client_of("alice"), "archive", filter={})
        busy = False
        created = set(writer.result())

    touched = {result["id"] for step in steps for result in step["results"]}
    assert old <= touched
    swept_in = touched - old
    assert len(created) > 5
    assert len(swept_in) <= 2  # conversations from before the first step
    assert all(read(alice, {"id": id_})["status"] == "active" for id_ in created - swept_in)
    assert sum(numbers(step)[1] for step in steps) == len(touched)


# Cost


def test_a_bulk_request_counts_as_one_patch(alice, settings):
    settings.RATE_LIMIT_ENABLED = True

    response = alice.post(BULK, {"action": "archive", "ids": [ABSENT] * 100})

    assert response.headers["RateLimit-Policy"].startswith('"patch";q=')


def test_a_hundred_items_need_two_statements_with_the_user(alice, mongo, commands):
    ids = store(mongo, 100)
    commands.clear()

    bulk(alice, "archive", ids=ids)

    update, find = commands
    assert len(update["updates"]) == 100
    assert {one["q"]["user_id"] for one in update["updates"]} == {"alice"}
    assert find["filter"]["user_id"] == "alice"


def test_a_step_reads_only_its_items_by_an_index(alice, mongo, commands):
    store(mongo, 120)
    mongo["conversations"].insert_many(
        documents.new(user_id="bob", character_id="luna", now=clock.now()) for _ in range(100)
    )
    commands.clear()

    bulk(alice, "archive", filter={})

    boundary, step, *_ = commands
    for sent, most in ((boundary, 1), (step, 100)):
        names = ("find", "filter", "sort", "limit", "projection", "hint")
        plan = mongo.command(
            "explain",
            {name: sent[name] for name in names if name in sent},
            verbosity="executionStats",
        )
        assert sent["filter"]["user_id"] == "alice"
        assert plan["executionStats"]["totalDocsExamined"] <= most


def test_a_bulk_filter_has_every_filter_of_the_list():
    no_filters = {"limit", "cursor", "page", "per_page", "sort", "order", "fields", "include_total"}

    assert {*BulkFilterSerializer().fields} == {*ListParameters().fields} - no_filters
