from collections import Counter

import pytest
from django.core.management import CommandError, call_command
from time_machine import travel

from conversations import store
from tests.factories import PATH, client_of


def owners() -> Counter:
    return Counter(row["user_id"] for row in store.conversations().find({}, ["user_id"]))


def told() -> list[tuple]:
    found = store.conversations().find({}).sort([("user_id", 1), ("title", 1), ("metadata", 1)])
    return [(row["user_id"], row["title"], row["tags"], row["status"]) for row in found]


def test_demo_data_is_there_once(capsys):
    call_command("seed_demo", conversations=20)
    call_command("seed_demo", conversations=20)

    output = capsys.readouterr().out
    assert output == ("Created 20 conversations.\nThere is demo data already; nothing changed.\n")
    listed = client_of("demo").get(PATH, {"status": "all"}).json()
    assert listed["pagination"]["total_count"] == 10


def test_one_user_may_have_more_than_the_others():
    call_command("seed_demo", conversations=2_100, users=4, heavy=1_700)

    others = {f"user-{number}": 100 for number in range(4)}
    assert owners() == {"demo": 1_700, **others}


def test_a_single_conversation_is_the_demo_users():
    call_command("seed_demo", conversations=1)

    assert owners() == {"demo": 1}


@travel("2026-11-24T12:00:00Z", tick=False)
def test_the_same_numbers_give_the_same_data():
    call_command("seed_demo", conversations=1_500)
    first = told()
    store.conversations().delete_many({})

    call_command("seed_demo", conversations=1_500)

    assert told() == first


def test_demo_data_can_be_worked_with():
    call_command("seed_demo", conversations=40)
    demo = client_of("demo")
    [row] = demo.get(PATH, {"limit": 1, "search": "caf"}).json()["conversations"]

    changed = demo.patch(f"{PATH}/{row['id']}", {"tags_add": ["mine"]})

    assert changed.json()["tags"][-1] == "mine"
    assert demo.get(f"{PATH}/overview").status_code == 200


@pytest.mark.parametrize(
    ("numbers", "complaint"),
    [
        ({"conversations": 0}, "at least 1 and at most 10,000,000"),
        ({"conversations": 10_000_001}, "at least 1 and at most 10,000,000"),
        ({"users": 0}, "--users must be at least 1"),
        ({"conversations": 10, "heavy": 11}, "--heavy must be from 0 to --conversations"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(numbers, complaint):
    with pytest.raises(CommandError, match=complaint):
        call_command("seed_demo", **numbers)
