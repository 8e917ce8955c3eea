import json
import signal
import time
from collections import Counter

import pytest
from django.core.management import CommandError, call_command
from time_machine import travel

from conversations import collection
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
    assert again == "There is demo data already; nothing changed."
    listed = client_of("demo").get(PATH, {"status": "all"}).json()
    assert listed["pagination"]["total_count"] == 10


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
    out, err = stopped.communicate(timeout=30)

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
