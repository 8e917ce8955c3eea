"""The same action on many conversations: by ids, and step by step by a filter."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from conversation_service import clock
from conversations import documents
from conversations.serializers.bulk import ACTIONS, FilterSerializer
from conversations.serializers.listing import ListParameters
from tests.factories import PATH, client_of, conversation

BULK = f"{PATH}/bulk"
ABSENT = "65f0c0ffee65f0c0ffee65f0"


def bulk(client, action, **body):
    response = client.post(BULK, {"action": action, **body})
    assert response.status_code == 200, response.json()
    return response.json()


def all_steps(client, action, **body):
    """Every step of a run by filter."""
    answers = [bulk(client, action, **body)]
    while cursor := answers[-1]["next_cursor"]:
        answers.append(bulk(client, action, cursor=cursor, **body))
    return answers


def read(client, created):
    return client.get(f"{PATH}/{created['id']}").json()


def numbers(answer):
    return tuple(answer["summary"][name] for name in ("matched", "ok", "skipped", "failed"))


def outcomes(answer):
    return [(result["status"], result["code"], result["version"]) for result in answer["results"]]


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

    answer = bulk(alice, action, ids=[c["id"] for c in created])

    assert numbers(answer) == (3, 3, 0, 0)
    assert [r["id"] for r in answer["results"]] == [c["id"] for c in created]
    for before, result in zip(created, answer["results"], strict=True):
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
def test_each_fares_as_in_a_call_for_it_alone(alice, bob, action):
    mine = [conversation(alice, *states, tags=["x", "y"]) for states in STATES]
    alike = [conversation(bob, *states, tags=["x", "y"]) for states in STATES]
    tags = {"tags": ["x"]} if "tag" in action else {}

    results = bulk(alice, action, ids=[c["id"] for c in mine], **tags)["results"]

    for one, other, result in zip(mine, alike, results, strict=True):
        path = f"{PATH}/{other['id']}"
        single = SINGLE.get(action, lambda client, at: client.post(f"{at}/{action}"))(bob, path)
        told = single.json() if single.content else {}
        status = 200 if single.status_code == 204 else single.status_code
        assert (result["status"], result["code"]) == (status, told.get("error", {}).get("code"))
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
def test_one_many_and_a_dry_run_fail_at_the_same_check(
    alice, mongo, action, states, tags, held, code
):
    created = conversation(alice, *states, tags=tags)
    if held:
        hold = {"by": "ops", "reason": "a case", "at": clock.now()}
        mongo["conversations"].update_one({}, {"$set": {"hold": hold}})
    body = {"ids": [created["id"]]} | ({"tags": ["x"]} if "tag" in action else {})
    path = f"{PATH}/{created['id']}"
    single = SINGLE.get(action, lambda client, at: client.post(f"{at}/{action}"))

    [rehearsed] = bulk(alice, action, dry_run=True, **body)["results"]
    [of_many] = bulk(alice, action, **body)["results"]
    alone = single(alice, path).json()

    assert (rehearsed["code"], of_many["code"]) == (code, code)
    assert alone.get("error", {}).get("code") == code
    assert read(alice, created) == created


def test_pins_come_and_go(alice):
    created = conversation(alice)

    bulk(alice, "pin", ids=[created["id"]])
    pinned = read(alice, created)
    bulk(alice, "unpin", ids=[created["id"]])

    assert pinned["pinned_at"] is not None
    assert read(alice, created)["pinned_at"] is None


def test_tags_are_added_and_taken_away_as_by_a_patch(alice):
    one, other = conversation(alice, tags=["Café"]), conversation(alice)
    ids = [one["id"], other["id"]]

    added = bulk(alice, "tag", tags=["CAFÉ", "night"], ids=ids)
    spelt = [read(alice, c)["tags"] for c in (one, other)]
    removed = bulk(alice, "untag", tags=["café"], ids=ids)

    assert numbers(added) == numbers(removed) == (2, 2, 0, 0)
    assert spelt == [["Café", "night"], ["CAFÉ", "night"]]
    assert [read(alice, c)["tags"] for c in (one, other)] == [["night"], ["night"]]
    assert alice.get(PATH, {"tags": "night"}).json()["conversations"][0]["tags"] == ["night"]


def test_what_is_purged_leaves_tombstones(alice, mongo):
    trashed, active = conversation(alice, "deleted"), conversation(alice)

    answer = bulk(alice, "purge", ids=[trashed["id"], active["id"]])

    assert outcomes(answer) == [
        (200, None, None),
        (409, "CONVERSATION_STATE_CONFLICT", 1),
    ]
    assert alice.get(f"{PATH}/{trashed['id']}").status_code == 404
    assert mongo["conversations"].distinct("status") == ["active", "purged"]
    assert outcomes(bulk(alice, "purge", ids=[trashed["id"]])) == [
        (404, "CONVERSATION_NOT_FOUND", None)
    ]


def test_each_has_its_own_result_in_its_place(alice, bob):
    theirs, trashed = conversation(bob), conversation(alice, "deleted")
    active, archived = conversation(alice), conversation(alice, "archived")
    ids = [theirs["id"], ABSENT, "x", trashed["id"], active["id"], archived["id"]]

    answer = bulk(alice, "archive", ids=ids)

    nothing_there = (404, "CONVERSATION_NOT_FOUND", None)
    assert [result["id"] for result in answer["results"]] == ids
    assert outcomes(answer) == [
        *[nothing_there] * 3,
        (409, "CONVERSATION_STATE_CONFLICT", 2),
        (200, None, 2),
        (200, None, 2),
    ]
    assert numbers(answer) == (3, 1, 1, 4)
    assert read(bob, theirs) == theirs
    assert read(alice, archived) == archived


def test_too_many_tags_stop_that_one_only(alice):
    full, room = conversation(alice, tags=[str(n) for n in range(10)]), conversation(alice)

    answer = bulk(alice, "tag", tags=["one more"], ids=[full["id"], room["id"]])

    assert outcomes(answer) == [(400, "VALIDATION_ERROR", 1), (200, None, 2)]
    assert read(alice, full) == full


def test_an_id_that_is_named_again_is_skipped_there(alice):
    created = conversation(alice)

    answer = bulk(alice, "archive", ids=[created["id"], created["id"].upper()])

    assert outcomes(answer) == [(200, None, 2), (200, None, 2)]
    assert numbers(answer) == (2, 1, 1, 0)
    assert read(alice, created)["version"] == 2


def test_the_history_says_who_did_it_and_nothing_of_how(alice):
    created = conversation(alice)

    alice.post(
        BULK, {"action": "archive", "ids": [created["id"]]}, headers={"X-Client": "sidebar/2"}
    )

    [revision] = alice.get(f"{PATH}/{created['id']}/history").json()["revisions"]
    assert (revision["by"], revision["client"]) == ("user", "sidebar/2")
    assert revision["changes"]["status"] == {"before": "active", "after": "archived"}
    assert revision.keys() == {"version", "at", "by", "client", "request_id", "changes"}


def test_repeating_a_call_is_harmless(alice):
    ids = [conversation(alice)["id"] for _ in range(3)]
    bulk(alice, "archive", ids=ids)
    after = alice.get(PATH, {"status": "archived"}).json()

    again = bulk(alice, "archive", ids=ids)

    assert numbers(again) == (3, 0, 3, 0)
    assert alice.get(PATH, {"status": "archived"}).json() == after


def test_an_idempotency_key_is_welcome_and_not_needed(alice):
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
def test_what_is_not_understood_is_refused_and_changes_nothing(alice, body):
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
def test_a_filter_chooses_what_the_list_shows(alice, bob, chosen, expected):
    conversation(bob)
    created = {
        "luna": conversation(alice),
        "sea": conversation(alice, character_id="sol", tags=["sea"]),
        "pinned": conversation(alice, "pinned"),
        "archived": conversation(alice, "archived"),
        "deleted": conversation(alice, "deleted"),
    }

    answer = bulk(alice, "tag", tags=["new"], filter=chosen)

    assert [r["id"] for r in answer["results"]] == [created[name]["id"] for name in expected]
    assert numbers(answer) == (len(expected), len(expected), 0, 0)
    assert answer["next_cursor"] is None


def test_a_run_goes_in_steps_of_a_hundred(alice, mongo):
    ids = store(mongo, 250)

    steps = all_steps(alice, "archive", filter={})

    assert [numbers(step)[1] for step in steps] == [100, 100, 50]
    assert sorted(r["id"] for step in steps for r in step["results"]) == sorted(ids)
    assert mongo["conversations"].distinct("status") == ["archived"]


def test_a_full_last_step_is_the_last(alice, mongo):
    store(mongo, 200)

    assert len(all_steps(alice, "pin", filter={})) == 2


def test_a_run_leaves_alone_what_came_or_changed_since_it_began(alice, mongo):
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


def test_a_step_that_is_repeated_does_nothing_again(alice, mongo):
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


# Rehearsals


def test_a_rehearsal_by_ids_tells_what_would_be_and_does_nothing(alice, mongo):
    active, archived = conversation(alice), conversation(alice, "archived")
    trashed = conversation(alice, "deleted")
    ids = [active["id"], archived["id"], trashed["id"], ABSENT]
    before = list(mongo["conversations"].find())

    rehearsed = bulk(alice, "archive", ids=ids, dry_run=True)

    assert list(mongo["conversations"].find()) == before
    done = bulk(alice, "archive", ids=ids)
    assert rehearsed["summary"] == done["summary"]
    assert outcomes(rehearsed)[0] == (200, None, 1)
    assert outcomes(rehearsed)[1:] == outcomes(done)[1:]


def test_a_rehearsal_by_filter_counts_all_and_shows_the_first(alice, mongo):
    ids = store(mongo, 130)
    alice.post(f"{PATH}/{ids[0]}/pin")
    before = list(mongo["conversations"].find())

    answer = bulk(alice, "pin", filter={"status": "all"}, dry_run=True)

    assert numbers(answer) == (130, 129, 1, 0)
    assert [r["id"] for r in answer["results"]] == sorted(ids)[:20]
    assert answer["next_cursor"] is None
    assert list(mongo["conversations"].find()) == before


def test_a_rehearsed_purge_counts_what_is_held(alice, mongo):
    held, free = conversation(alice, "deleted"), conversation(alice, "deleted")
    hold = {"by": "ops", "reason": "a case", "at": clock.now()}
    mongo["conversations"].update_one({"title": held["title"]}, {"$set": {"hold": hold}})

    answer = bulk(alice, "purge", filter={"status": "deleted"}, dry_run=True)

    assert numbers(answer) == (2, 1, 0, 1)
    assert outcomes(answer) == [(409, "LEGAL_HOLD", 2), (200, None, 2)]
    assert read(alice, free) == free


# Together with others


@pytest.mark.parametrize("action", ["archive", "trash", "purge"])
def test_of_two_at_once_each_conversation_belongs_to_one(alice, action):
    states = ["deleted"] if action == "purge" else []
    ids = [conversation(alice, *states)["id"] for _ in range(40)]

    def run(_):
        return bulk(client_of("alice"), action, ids=ids)

    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(run, range(4)))

    assert sum(numbers(answer)[1] for answer in answers) == 40
    if action != "purge":
        assert {read(alice, {"id": id_})["version"] for id_ in ids} == {2}
        assert all(version == 2 for answer in answers for _, _, version in outcomes(answer))


def test_a_run_by_filter_while_others_write_takes_no_newcomers(alice, mongo):
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
    assert len(swept_in) <= 2  # what was there before the first step looked
    assert all(read(alice, {"id": id_})["status"] == "active" for id_ in created - swept_in)
    assert sum(numbers(step)[1] for step in steps) == len(touched)


# What it costs


def test_one_call_counts_as_one_patch(alice, settings):
    settings.RATE_LIMIT_ENABLED = True

    response = alice.post(BULK, {"action": "archive", "ids": [ABSENT] * 100})

    assert response.headers["RateLimit-Policy"].startswith('"patch";q=')


def test_a_hundred_are_two_statements_that_carry_the_user(alice, mongo, commands):
    ids = store(mongo, 100)
    commands.clear()

    bulk(alice, "archive", ids=ids)

    update, find = commands
    assert len(update["updates"]) == 100
    assert {one["q"]["user_id"] for one in update["updates"]} == {"alice"}
    assert find["filter"]["user_id"] == "alice"


def test_a_step_reads_by_an_index_what_it_takes(alice, mongo, commands):
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

    assert {*FilterSerializer().fields} == {*ListParameters().fields} - no_filters
