import pytest
from time_machine import travel

from conversation_service import clock
from conversations.folding import fold
from tests.conversations.crowd import crowd
from tests.conversations.plans import documents_examined, only_aggregate, users_of
from tests.conversations.test_summary import tags_of
from tests.factories import client_of, conversation

TAGS = "/api/v1/tags"


def tags(client, **parameters):
    response = client.get(TAGS, parameters)
    assert response.status_code == 200, response.json()
    return response.json()["tags"]


def test_tags_are_sorted_by_count(alice, bob):
    conversation(alice, tags=["Río", "sea"])
    conversation(alice, "archived", tags=["río"])
    conversation(alice, tags=["night"])
    conversation(alice, "deleted", tags=["sea", "gone"])
    conversation(bob, tags=["sea"])

    assert tags(alice) == [
        {"tag": "Río", "count": 2},
        {"tag": "night", "count": 1},
        {"tag": "sea", "count": 1},
    ]
    assert tags(alice, limit=1) == [{"tag": "Río", "count": 2}]
    assert tags(client_of("unknown")) == []


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("rio", ["Río"]),
        ("PL", ["role play"]),
        ("r", ["role play", "Río"]),
        ("pla role", ["role play"]),
        ("ole", []),
        ("luna", []),
        ("", ["role play", "Río"]),
        ("..", ["role play", "Río"]),
        (".*", ["role play", "Río"]),
    ],
)
def test_a_prefix_completes_any_word_of_a_tag(alice, prefix, expected):
    conversation(alice, title="Luna", tags=["role play", "Río"])
    conversation(alice, title="Luna", tags=["role play"])

    assert [row["tag"] for row in tags(alice, prefix=prefix)] == expected


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("prefix", ["", "r", "ri", "s", "fi", "日", "owl", "ni ow", "x"])
def test_the_counts_equal_a_count_of_each_conversation(mongo, seed, prefix):
    with travel("2026-03-09T10:00:00Z", tick=False):
        rows = crowd(seed, now=clock.now())
        mongo["conversations"].insert_many(rows)
        for user in ("alice", "bob"):
            mine = [row for row in rows if row["user_id"] == user]
            kept = [row for row in mine if row["status"] in {"active", "archived"}]
            expected = [row for row in tags_of(kept) if completes(prefix, row["tag"])]
            assert tags(client_of(user), prefix=prefix) == expected


def completes(prefix, tag):
    words = "".join(c if c.isalnum() else " " for c in fold(tag)).split()
    return all(any(w.startswith(start) for w in words) for start in fold(prefix).split())


@pytest.mark.parametrize(
    "parameters",
    [
        {"limit": "0"},
        {"limit": "201"},
        {"limit": "x"},
        {"prefix": "a" * 51},
        {"prefix": "nul\0"},
        {"page": "1"},
    ],
)
def test_bad_parameters_are_rejected(alice, parameters):
    assert alice.get(TAGS, parameters).status_code == 400


def test_tags_are_counted_by_an_index_in_the_range_of_the_user(mongo, commands):
    mongo["conversations"].insert_many(crowd(3, now=clock.now(), each=200))
    having = mongo["conversations"].count_documents(
        {"user_id": "alice", "status": {"$in": ["active", "archived"]}, "tag_keys": "night owl"}
    )
    commands.clear()

    spelt = len(tags(client_of("alice")))
    everything = only_aggregate([*commands])
    commands.clear()
    tags(client_of("alice"), prefix="owl")
    few = only_aggregate([*commands])

    assert users_of(everything) | users_of(few) == {"alice"}
    # One for the spelling of each tag.
    assert documents_examined(mongo, everything) <= spelt
    assert documents_examined(mongo, few) <= having * 2 + 1
