import json
import signal
import time
from collections import Counter
from datetime import UTC, datetime
from hashlib import blake2b

import pytest
from bson import ObjectId
from django.core.management import CommandError, call_command
from time_machine import travel

from conversation_service.development.stand_ins import characters as stand_in
from conversations import collection
from conversations.jobs import demo
from conversations.management.commands import seed_demo
from conversations.schema import COLLECTIONS
from tests.factories import PATH, client_of, conversation
from tests.running import started


def owners() -> Counter:
    return Counter(row["user_id"] for row in collection.conversations().find({}, ["user_id"]))


def stored() -> list[tuple]:
    found = (
        collection.conversations().find({}).sort([("user_id", 1), ("title", 1), ("metadata", 1)])
    )
    return [(row["user_id"], row["title"], row["tags"], row["status"]) for row in found]


def test_demo_data_is_created_once(capsys):
    call_command("seed_demo", conversations=20)
    call_command("seed_demo", conversations=20)

    created, again = capsys.readouterr().out.splitlines()
    assert created.startswith("Created 20 conversations in ")
    assert again == (
        "There is demo data already; nothing changed. To get more: seed_demo --add 100"
    )
    user = client_of("demo")
    counts = [
        user.get(PATH, {"status": status, "include_total": "true"}).json()["pagination"]
        for status in ("all", "deleted")
    ]
    assert sum(each["total_count"] for each in counts) == 10


def test_one_user_may_have_more_than_the_others():
    call_command("seed_demo", conversations=2_100, users=4, heavy=1_700)

    others = {f"user-{number}": 100 for number in range(4)}
    assert owners() == {"demo": 1_700, **others}


def test_a_single_conversation_belongs_to_the_demo_user():
    call_command("seed_demo", conversations=1)

    assert owners() == {"demo": 1}


@travel("2026-11-24T12:00:00Z", tick=False)
def test_the_same_numbers_give_the_same_data():
    call_command("seed_demo", conversations=1_500)
    first = stored()
    collection.conversations().delete_many({})

    call_command("seed_demo", conversations=1_500)

    assert stored() == first


def test_demo_data_can_be_edited():
    call_command("seed_demo", conversations=40)
    demo = client_of("demo")
    [row] = demo.get(PATH, {"limit": 1, "search": "caf"}).json()["conversations"]

    changed = demo.patch(f"{PATH}/{row['id']}", {"tags_add": ["mine"]})

    assert changed.json()["tags"][-1] == "mine"
    assert demo.get(f"{PATH}/overview").status_code == 200


@pytest.mark.parametrize(
    ("numbers", "complaint"),
    [
        ({"conversations": 0}, "from 1 to 10,000,000"),
        ({"conversations": 10_000_001}, "from 1 to 10,000,000"),
        ({"add": 0}, "--add must be from 1 to 10,000,000"),
        ({"users": 0}, "--users must be at least 1"),
        ({"conversations": 10, "heavy": 11}, "--heavy must be from 0 to --conversations"),
    ],
)
def test_invalid_numbers_are_rejected(numbers, complaint):
    with pytest.raises(CommandError, match=complaint):
        call_command("seed_demo", **numbers)


def test_a_dry_run_prints_the_number_and_creates_none(capsys):
    call_command("seed_demo", conversations=20, dry_run=True)

    assert capsys.readouterr().out == "20 conversations to create.\n"
    assert owners() == {}


def test_other_numbers_add_nothing_to_existing_demo_data(capsys):
    call_command("seed_demo", conversations=20)
    call_command("seed_demo", conversations=30)

    assert "nothing changed" in capsys.readouterr().out
    assert owners().total() == 20


def test_many_are_stored_before_their_indexes_are_built(mongo, commands, capsys, monkeypatch):
    monkeypatch.setattr(seed_demo, "WITHOUT_INDEXES_FROM", 1_500)
    call_command("seed_demo", conversations=1_500)

    sent = [next(iter(command)) for command in commands]
    assert sent.index("dropIndexes") < sent.index("insert")
    assert sent[::-1].index("insert") > sent[::-1].index("createIndexes")
    assert "There are no indexes and no validator until" in capsys.readouterr().err
    call_command("setup_indexes", "--check", verbosity=0)


def test_documents_stored_without_validation_are_valid(mongo, monkeypatch):
    monkeypatch.setattr(seed_demo, "WITHOUT_INDEXES_FROM", 1_500)
    call_command("seed_demo", conversations=1_500)

    [schema] = COLLECTIONS
    assert mongo["conversations"].count_documents(schema.validator) == 1_500


def test_indexes_are_kept_if_there_are_conversations(alice, commands, monkeypatch):
    monkeypatch.setattr(seed_demo, "WITHOUT_INDEXES_FROM", 1)
    conversation(alice)

    call_command("seed_demo", conversations=20)

    assert not [command for command in commands if "dropIndexes" in command]


@travel("2026-11-24T12:00:00Z", tick=False)
def test_missing_conversations_are_added_with_equal_data(mongo, capsys):
    call_command("seed_demo", conversations=2_500)
    whole = stored()
    capsys.readouterr()
    ids = [row["_id"] for row in collection.conversations().find({}, ["_id"]).sort("_id")]
    lost = [*ids[:3], *ids[1_200:1_700], ids[-1]]
    collection.conversations().delete_many({"_id": {"$in": lost}})

    with travel("2026-11-25T12:00:00Z", tick=False):
        call_command("seed_demo", conversations=2_500, json=True)

    assert json.loads(capsys.readouterr().out)["created"] == len(lost)
    assert stored() == whole


def test_ctrl_c_keeps_the_work_and_the_next_run_continues(mongo):
    arguments = ("--conversations=10000", "--json")
    stopped = started(mongo, "seed_demo", *arguments)
    while not mongo["conversations"].find_one():
        assert stopped.poll() is None, stopped.communicate()
        time.sleep(0.01)
    stopped.send_signal(signal.SIGINT)
    out, err = stopped.communicate(timeout=60)

    assert stopped.returncode == 4, err
    first = json.loads(out)
    assert first["finished"] is False
    assert 0 < first["created"] == mongo["conversations"].count_documents({}) < 10_000
    again = started(mongo, "seed_demo", *arguments)
    out, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert json.loads(out)["created"] == 10_000 - first["created"]
    assert mongo["conversations"].count_documents({}) == 10_000
    call_command("setup_indexes", "--check", verbosity=0)


def test_more_can_be_added_again_and_again(capsys):
    call_command("seed_demo", conversations=20)
    call_command("seed_demo", "--add=30", "--heavy=10")
    with travel("2040-01-01T00:00:00Z", tick=False):
        call_command("seed_demo", "--add=30", "--heavy=10")

    assert owners().total() == 80
    assert owners()["demo"] == 30
    assert capsys.readouterr().out.count("Created 30 conversations") == 2


def test_other_conversations_in_the_same_weeks_do_not_count(mongo, capsys):
    call_command("seed_demo", conversations=20)
    first, second, *_, last = mongo["conversations"].find().sort("_id", 1)
    between = ObjectId(second["_id"].binary[:4] + b"x" * 8)
    mongo["conversations"].insert_one({**first, "_id": between, "user_id": "alice"})
    mongo["conversations"].delete_many({"_id": {"$in": [first["_id"], last["_id"]]}})
    capsys.readouterr()

    call_command("seed_demo", conversations=20, json=True)

    assert json.loads(capsys.readouterr().out)["created"] == 2


def test_an_id_has_the_time_of_its_conversation(mongo):
    call_command("seed_demo", conversations=200)

    rows = mongo["conversations"].find().sort("_id", 1).to_list()
    created = [row["metadata"]["created_at"].replace(tzinfo=UTC) for row in rows]
    assert created == [row["_id"].generation_time for row in rows]
    assert created == sorted(created)
    ages = [(datetime.now(UTC) - moment).days for moment in created]
    assert ages[0] in range(80, 91)
    assert len({age for age in ages if age < 14}) == 14, "the chart of the last two weeks has a gap"


def test_demo_data_has_each_state_and_a_history():
    call_command("seed_demo", conversations=400)

    def count(**where) -> int:
        return collection.conversations().count_documents(where)

    assert count(status="active") > 200
    assert count(status="archived") > 40
    assert count(status="deleted", purge_at={"$gt": datetime.now(UTC)}) > 5
    assert count(character_status="verified", character_name={"$ne": None}) > 320
    assert count(character_status="unverified", character_name=None) > 10
    assert count(pinned_at={"$ne": None}) > 20
    assert count(revisions={"$ne": []}) > 100
    assert count(hold={"$ne": None}) == 1


def test_a_renamed_demo_conversation_can_be_reverted(mongo):
    call_command("seed_demo", conversations=100)
    renamed = {"user_id": "demo", "status": "active", "revisions.changes.path": "title"}
    found = mongo["conversations"].find_one(renamed)
    demo = client_of("demo")

    history = demo.get(f"{PATH}/{found['_id']}/history").json()["revisions"]
    reverted = demo.post(f"{PATH}/{found['_id']}/revert", {"version": 1, "fields": ["title"]})

    assert history[-1]["changes"]["title"]["after"] == found["title"]
    assert reverted.json()["title"] == history[-1]["changes"]["title"]["before"]


def test_demo_characters_are_those_of_the_stand_in():
    assert {name: said[0] for name, said in stand_in.CHARACTERS.items()} == demo.CHARACTERS


def test_demo_data_of_the_former_release_is_not_continued(mongo, capsys):
    call_command("seed_demo", conversations=20)
    mark = blake2b(b"20 50 10", digest_size=5).digest()  # in its ids, all of one second
    for number, row in enumerate(mongo["conversations"].find().to_list()):
        mongo["conversations"].delete_one({"_id": row["_id"]})
        former = ObjectId(row["_id"].binary[:4] + mark + number.to_bytes(3))
        mongo["conversations"].insert_one(row | {"_id": former})
    capsys.readouterr()

    call_command("seed_demo", conversations=20)

    assert "nothing changed" in capsys.readouterr().out
    assert owners().total() == 20
