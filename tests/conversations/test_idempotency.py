"""A repeated request is replayed and has no further effect."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from time_machine import travel

from tests.conversations.plans import explainable
from tests.factories import PATH, client_of, conversation

ROOT = Path(__file__).resolve().parents[2]
BODY = {"character_id": "luna", "title": "Once"}


def with_key(key):
    return {"Idempotency-Key": key}


def total(client):
    return client.get(PATH, {"include_total": "true"}).json()["pagination"]["total_count"]


def test_a_create_sent_twice_creates_one(alice):
    first = alice.post(PATH, BODY, headers=with_key("k-1"))
    again = alice.post(PATH, BODY, headers=with_key("k-1"))

    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content
    assert again.headers["Location"] == first.headers["Location"]
    assert again.headers["ETag"] == first.headers["ETag"]
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert total(alice) == 1


def test_a_replay_is_the_first_response(alice):
    first = alice.post(PATH, BODY, headers=with_key("k"))
    path = first.headers["Location"]
    renamed = alice.patch(path, {"title": "Later"}, headers=with_key("k"))
    alice.post(f"{path}/archive")

    assert alice.post(PATH, BODY, headers=with_key("k")).content == first.content
    assert alice.patch(path, {"title": "Later"}, headers=with_key("k")).content == renamed.content
    assert alice.get(path).json()["version"] == 3


def test_equal_json_in_another_spelling_is_a_repeat(alice):
    alice.post(PATH, BODY, headers=with_key("k"))
    other = '{ "title": "\\u004fnce", "character_id": "luna" }'

    again = alice.generic(
        "POST", PATH, other, content_type="application/json", headers=with_key('"k"')
    )

    assert again.headers["Idempotency-Replayed"] == "true"


def test_a_key_with_another_body_is_rejected(alice):
    created = alice.post(PATH, BODY, headers=with_key("k"))
    path = created.headers["Location"]
    alice.patch(path, {"title": "A"}, headers=with_key("p"))

    for response in (
        alice.post(PATH, BODY | {"title": "Twice"}, headers=with_key("k")),
        alice.patch(path, {"title": "B"}, headers=with_key("p")),
    ):
        assert response.status_code == 422
        assert response.json()["error"]["code"] == "IDEMPOTENCY_KEY_REUSED"
    assert alice.get(path).json()["title"] == "A"
    assert total(alice) == 1


def test_keys_are_scoped_by_user_and_path(alice, bob):
    mine = alice.post(PATH, BODY, headers=with_key("k")).headers["Location"]
    alice.post(PATH, BODY, headers=with_key("other"))
    bob.post(PATH, BODY, headers=with_key("k"))
    second = conversation(alice)

    for path in (mine, f"{PATH}/{second['id']}"):
        changed = alice.patch(path, {"title": "New"}, headers=with_key("k"))
        assert (changed.status_code, changed.json()["version"]) == (200, 2)
    assert (total(alice), total(bob)) == (3, 1)


def test_a_patch_sent_twice_makes_one_version(alice):
    path = f"{PATH}/{conversation(alice)['id']}"
    stale = with_key("k") | {"If-Match": '"v1"'}

    first = alice.patch(path, {"title": "New"}, headers=stale)
    again = alice.patch(path, {"title": "New"}, headers=stale)

    assert again.content == first.content
    assert again.headers["Idempotency-Replayed"] == "true"
    assert alice.get(path).json()["version"] == 2


def test_a_patch_without_effect_is_replayed(alice):
    path = f"{PATH}/{conversation(alice, title='A')['id']}"
    first = alice.patch(path, {"title": "A"}, headers=with_key("k"))
    alice.patch(path, {"title": "B"})

    again = alice.patch(path, {"title": "A"}, headers=with_key("k"))

    assert first.json()["version"] == 1
    assert again.content == first.content
    assert alice.get(path).json()["title"] == "B"
    assert len(alice.get(f"{path}/history").json()["revisions"]) == 1


def test_a_revert_sent_twice_makes_one_version(alice):
    path = f"{PATH}/{conversation(alice, title='A')['id']}"
    alice.patch(path, {"title": "B"})
    body = {"version": 1, "fields": ["title"]}
    first = alice.post(f"{path}/revert", body, headers=with_key("k"))
    alice.patch(path, {"title": "C"})

    again = alice.post(f"{path}/revert", body, headers=with_key("k"))

    assert again.content == first.content
    assert alice.get(path).json()["title"] == "C"


def test_a_replay_precedes_other_checks(alice):
    path = f"{PATH}/{conversation(alice)['id']}"
    headers = with_key("k") | {"If-Match": '"v1"'}
    first = alice.patch(path, {"tags_add": ["new"]}, headers=headers)
    alice.delete(path)

    again = alice.patch(path, {"tags_add": ["new"]}, headers=headers)
    without_key = alice.patch(path, {"tags_add": ["new"]}, headers={"If-Match": '"v1"'})
    in_trash = alice.patch(path, {"tags_add": ["new"]}, headers={"If-Match": '"v3"'})

    assert again.content == first.content
    assert again.headers["Idempotency-Replayed"] == "true"
    assert (without_key.status_code, in_trash.status_code) == (412, 409)


def test_failures_are_not_replayed(alice):
    path = f"{PATH}/{conversation(alice, 'deleted')['id']}"
    assert alice.patch(path, {"title": "New"}, headers=with_key("k")).status_code == 409
    alice.post(f"{path}/restore")

    assert alice.patch(path, {"title": "New"}, headers=with_key("k")).status_code == 200


def test_keys_expire_after_a_day():
    with travel("2026-03-01T10:00:00Z", tick=False):
        first = client_of("alice").post(PATH, BODY, headers=with_key("k"))
    with travel("2026-03-02T09:59:59Z", tick=False):
        again = client_of("alice").post(PATH, BODY, headers=with_key("k"))
    with travel("2026-03-02T10:00:01Z", tick=False):
        alice = client_of("alice")
        anew = alice.post(PATH, BODY, headers=with_key("k"))

        assert again.content == first.content
        assert anew.status_code == 201
        assert "Idempotency-Replayed" not in anew.headers
        assert total(alice) == 2


def test_a_patch_key_expires_after_a_day(alice, mongo):
    path = f"{PATH}/{conversation(alice, title='A')['id']}"
    alice.patch(path, {"title": "B"}, headers=with_key("k"))
    alice.patch(path, {"title": "C"})
    [scope] = mongo["conversations"].find_one()["keys_by_scope"]
    day_ago = [{"$set": {f"keys_by_scope.{scope}.at": {"$dateSubtract": {
        "startDate": "$$NOW", "unit": "hour", "amount": 25}}}}]  # fmt: skip
    mongo["conversations"].update_one({}, day_ago)

    again = alice.patch(path, {"title": "B"}, headers=with_key("k"))

    assert (again.json()["title"], again.json()["version"]) == ("B", 4)
    assert [*mongo["conversations"].find_one()["keys_by_scope"]] == [scope]


@pytest.mark.parametrize("key", ["", " ", "x" * 256, "a b", "é", '"', '""', "a\tb", '"a', '"a"b"'])
def test_an_invalid_key_is_rejected(alice, key):
    path = f"{PATH}/{conversation(alice)['id']}"

    for response in (
        alice.post(PATH, BODY, headers=with_key(key)),
        alice.patch(path, {"title": "x"}, headers=with_key(key)),
        alice.post(f"{path}/archive", headers=with_key(key)),
    ):
        assert response.status_code == 400
    assert total(alice) == 1


@pytest.mark.parametrize("key", ["x" * 255, "!#$~", '"quoted key'.replace(" ", "-") + '"'])
def test_a_valid_key_is_accepted(alice, key):
    assert alice.post(PATH, BODY, headers=with_key(key)).status_code == 201


def test_sixty_four_concurrent_creates_create_one(alice):
    def create(_):
        return client_of("alice").post(PATH, BODY, headers=with_key("k"))

    with ThreadPoolExecutor(64) as threads:
        responses = list(threads.map(create, range(64)))

    statuses = Counter(response.status_code for response in responses)
    assert statuses.keys() <= {201, 409}
    assert len({response.content for response in responses if response.status_code == 201}) == 1
    assert (
        sum("Idempotency-Replayed" not in a.headers for a in responses if a.status_code == 201) == 1
    )
    assert total(alice) == 1


def test_sixty_four_concurrent_patches_make_one_version(alice):
    path = f"{PATH}/{conversation(alice)['id']}"

    def edit(_):
        body = {"tags_add": ["new"], "title": "New"}
        return client_of("alice").patch(path, body, headers=with_key("k"))

    with ThreadPoolExecutor(64) as threads:
        responses = list(threads.map(edit, range(64)))

    assert {response.status_code for response in responses} == {200}
    assert len({response.content for response in responses}) == 1
    assert alice.get(path).json()["version"] == 2


def test_a_create_without_a_key_is_one_round_trip(alice, commands):
    path = f"{PATH}/{conversation(alice)['id']}"
    commands.clear()

    alice.post(PATH, BODY)
    alice.patch(path, {"title": "x"})

    assert [next(iter(command)) for command in commands] == ["insert", "findAndModify"]


def test_get_or_create_finds_the_latest_active_one(alice):
    conversation(alice, "archived", character_id="luna")
    conversation(alice, character_id="luna", title="Older")
    latest = conversation(alice, character_id="luna", title="Latest")
    conversation(alice, character_id="sol")

    response = alice.post(f"{PATH}?get_or_create=character", {"character_id": "luna"})

    assert response.status_code == 200
    assert response.json() == latest


def test_get_or_create_creates_the_first(alice, bob):
    conversation(bob, character_id="luna")
    archived = conversation(alice, "archived", character_id="luna")

    response = alice.post(f"{PATH}?get_or_create=character", {"character_id": "luna"})

    assert response.status_code == 201
    assert response.json()["id"] != archived["id"]


def test_sixty_four_concurrent_get_or_create_requests_create_one(alice):
    def create(_):
        return client_of("alice").post(f"{PATH}?get_or_create=character", BODY)

    with ThreadPoolExecutor(64) as threads:
        responses = list(threads.map(create, range(64)))

    assert Counter(a.status_code for a in responses) == {201: 1, 200: 63}
    assert len({response.json()["id"] for response in responses}) == 1


@pytest.mark.parametrize(
    "leave",
    [
        lambda client, path: client.post(f"{path}/archive"),
        lambda client, path: client.patch(path, {"status": "archived"}),
        lambda client, path: client.delete(path),
    ],
)
def test_get_or_create_ignores_inactive_ones_which_can_be_restored(alice, leave):
    url = f"{PATH}?get_or_create=character"
    first = alice.post(url, BODY).json()
    leave(alice, f"{PATH}/{first['id']}")

    second = alice.post(url, BODY)
    restored = alice.post(f"{PATH}/{first['id']}/restore")

    assert (second.status_code, restored.status_code) == (201, 200)
    assert total(alice) == 2


def test_get_or_create_with_another_value_is_rejected(alice):
    assert alice.post(f"{PATH}?get_or_create=title", BODY).status_code == 400


WORKER = """
import django; django.setup()
from tests.factories import PATH, client_of
alice = client_of("alice")
print("ready", flush=True)
for n in range(1000):
    headers = {"Idempotency-Key": f"key-{n}"}
    created = alice.post(PATH, {"character_id": "luna", "title": f"Title {n}"}, headers=headers)
    alice.patch(created.headers["Location"], {"tags_add": ["done"]}, headers=headers)
"""


@pytest.mark.parametrize("after_s", [0.03, 0.11, 0.2])
def test_a_retry_after_a_crash_at_any_point_leaves_one(alice, mongo, after_s):
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER],
        cwd=ROOT,
        env=os.environ | {"DJANGO_SETTINGS_MODULE": "config.settings.test"},  # noqa: TID251
        stdout=subprocess.PIPE,
    )
    worker.stdout.readline()
    time.sleep(after_s)
    worker.kill()
    worker.wait()
    worker.stdout.close()
    done = mongo["conversations"].count_documents({})

    for n in range(done + 1):
        headers = with_key(f"key-{n}")
        body = {"character_id": "luna", "title": f"Title {n}"}
        created = alice.post(PATH, body, headers=headers)
        changed = alice.patch(created.headers["Location"], {"tags_add": ["done"]}, headers=headers)
        assert (created.json()["version"], changed.json()["version"]) == (1, 2)
    assert mongo["conversations"].count_documents({"version": 2}) == done + 1
    assert mongo["conversations"].count_documents({}) == done + 1


def test_a_body_that_is_nested_too_deeply_is_rejected_with_a_key(alice):
    path = f"{PATH}/{conversation(alice)['id']}/archive"
    nested = "[" * 255 + "]" * 255

    response = alice.generic(
        "POST", path, nested, content_type="application/json", headers=with_key("k")
    )

    assert response.status_code == 400


def test_many_later_keys_do_not_evict_a_key(alice, mongo):
    first = alice.post(PATH, BODY, headers=with_key("k"))
    path = first.headers["Location"]
    edits = [alice.patch(path, {"title": f"{n}"}, headers=with_key(f"p{n}")) for n in range(60)]

    again = alice.post(PATH, BODY, headers=with_key("k"))
    oldest, newest = (
        alice.patch(path, {"title": f"{n}"}, headers=with_key(f"p{n}")) for n in (0, 59)
    )

    assert (again.status_code, again.json()["id"]) == (201, first.json()["id"])
    assert {a.headers["Idempotency-Replayed"] for a in (again, oldest, newest)} == {"true"}
    assert newest.content == edits[59].content
    assert (total(alice), alice.get(path).json()["version"]) == (1, 61)
    document = mongo["conversations"].find_one()
    assert [("answer" in record) for record in document["keys_by_scope"].values()] == [
        n >= 10 for n in range(60)
    ]
    assert len(document["keys"]) == 1


def test_get_or_create_stores_its_key(alice):
    url = f"{PATH}?get_or_create=character"
    first = alice.post(url, BODY, headers=with_key("k"))

    again = alice.post(url, BODY, headers=with_key("k"))
    other = alice.post(url, BODY | {"title": "Other"}, headers=with_key("k"))

    assert again.content == first.content
    assert (again.status_code, again.headers["Idempotency-Replayed"]) == (201, "true")
    assert other.status_code == 422


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", "", {"tags_add": ["new"]}),
        ("POST", "/revert", {"version": 1, "fields": ["title"]}),
        ("POST", "/duplicate", {}),
    ],
)
def test_the_letter_case_of_the_id_in_the_path_does_not_matter(alice, method, path, body):
    id_ = conversation(alice, title="A")["id"]
    alice.patch(f"{PATH}/{id_}", {"title": "B"})
    spellings = [id_, id_.upper(), id_.title()]

    first, *others = [
        alice.generic(
            method,
            f"{PATH}/{spelling}{path}",
            json.dumps(body),
            content_type="application/json",
            headers=with_key("k-Upper"),
        )
        for spelling in [*spellings, *reversed(spellings)]
    ]

    assert first.status_code in {200, 201}
    assert {other.content for other in others} == {first.content}
    assert {other.headers["Idempotency-Replayed"] for other in others} == {"true"}


def test_the_letter_case_of_a_key_matters(alice):
    path = f"{PATH}/{conversation(alice)['id']}"
    alice.patch(path, {"title": "New"}, headers=with_key("k"))

    other = alice.patch(path, {"title": "New"}, headers=with_key("K"))

    assert "Idempotency-Replayed" not in other.headers


def move_record_to_array(mongo, scope):
    """Store the only record of an update as release 0.1.0 does."""
    updated = {"version": 2}
    [record] = mongo["conversations"].find_one(updated)["keys_by_scope"].values()
    moved = {"$push": {"keys": {"key": scope, **record}}, "$unset": {"keys_by_scope": 1}}
    mongo["conversations"].update_one(updated, moved)


def test_a_record_of_release_0_1_0_stays_until_it_expires(alice, mongo):
    path = alice.post(PATH, BODY, headers=with_key("k")).headers["Location"]
    first = alice.patch(path, {"title": "Old"}, headers=with_key("old"))
    move_record_to_array(mongo, f"PATCH {path} old")
    recorded = mongo["conversations"].find_one()["keys"]
    for n in range(52):
        alice.patch(path, {"title": f"{n}"}, headers=with_key(f"p{n}"))

    again = alice.patch(path, {"title": "Old"}, headers=with_key("old"))

    assert again.content == first.content
    assert mongo["conversations"].find_one()["keys"] == recorded
    day_ago = {"$set": {"keys.$[].at": recorded[0]["at"] - timedelta(hours=25)}}
    mongo["conversations"].update_one({}, day_ago)
    alice.patch(path, {"title": "New"}, headers=with_key("new"))
    assert mongo["conversations"].find_one()["keys"] == []


@pytest.mark.parametrize("spelled", [str.lower, str.upper])
def test_keys_that_release_0_1_0_stored_are_found(alice, mongo, spelled):
    path = f"{PATH}/{spelled(conversation(alice)['id'])}"
    first = alice.patch(path, {"title": "New"}, headers=with_key("k"))
    copied = alice.post(f"{path}/duplicate", {}, headers=with_key("k"))
    # That release stored the path as sent.
    move_record_to_array(mongo, f"PATCH {path} k")
    copy = {"keys.key": {"$regex": f"(?i)^POST {path}/duplicate k$"}}
    as_sent = {"$set": {"keys.$.key": f"POST {path}/duplicate k"}}
    assert mongo["conversations"].update_one(copy, as_sent).matched_count

    assert alice.patch(path, {"title": "New"}, headers=with_key("k")).content == first.content
    again = alice.post(f"{path}/duplicate", {}, headers=with_key("k"))
    assert again.content == copied.content


def test_a_key_is_looked_up_by_its_index(alice, mongo, commands):
    path = f"{PATH}/{conversation(alice)['id'].upper()}/duplicate"
    for _ in range(2):
        alice.post(path, {}, headers=with_key("k"))

    finds = [command for command in commands if "keys.key" in command.get("filter", {})]
    plans = [mongo.command("explain", explainable(find)) for find in finds]
    assert len(plans) == 2
    assert all("'idempotency_keys'" in str(plan["queryPlanner"]["winningPlan"]) for plan in plans)
    assert all(plan["executionStats"]["totalKeysExamined"] <= 2 for plan in plans)


def test_a_request_with_a_key_reads_once_before_it_creates(alice, commands):
    alice.post(PATH, BODY, headers=with_key("k"))
    alice.post(f"{PATH}?get_or_create=character", BODY)

    assert [next(iter(command)) for command in commands] == ["find", "insert", "find"]
