from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from time_machine import travel

from conversation_service import clock
from conversation_service.errors import InvalidCursor
from conversation_service.http import cursors
from conversations import documents
from tests.conversations.crowd import crowd
from tests.conversations.plans import documents_examined, only_aggregate, users_of
from tests.conversations.test_summary import tags_of
from tests.factories import PATH, client_of, conversation

OVERVIEW = f"{PATH}/overview"


def test_a_new_user_has_an_empty_sidebar(alice):
    overview = alice.get(OVERVIEW).json()

    del overview["sync_cursor"], overview["generated_at"]
    assert overview == {
        "pinned": [],
        "characters": [],
        "tags": [],
        "counts": {"active": 0, "archived": 0, "deleted": 0},
    }


def test_an_overview_has_all_its_parts(alice, bob):
    conversation(alice, character_id="luna", tags=["Sea"])
    latest = conversation(alice, character_id="luna")
    pinned = conversation(alice, "pinned", character_id="sol", tags=["sea"])
    conversation(alice, "pinned", "archived", character_id="sol", tags=["night"])
    conversation(alice, "pinned", "deleted", character_id="mar", tags=["gone"])
    conversation(bob, "pinned", character_id="mar", tags=["hers"])

    overview = alice.get(OVERVIEW).json()

    del overview["sync_cursor"], overview["generated_at"]
    assert overview == {
        "pinned": [pinned],
        "characters": [
            {"character_id": "sol", "conversation_count": 1, "latest": pinned},
            {"character_id": "luna", "conversation_count": 2, "latest": latest},
        ],
        "tags": [{"tag": "Sea", "count": 2}, {"tag": "night", "count": 1}],
        "counts": {"active": 3, "archived": 1, "deleted": 1},
    }


@pytest.mark.parametrize("seed", range(12))
def test_the_overview_equals_single_lookups(mongo, seed):
    rows = crowd(seed, now=clock.now())
    mongo["conversations"].insert_many(rows)

    for user in ("alice", "bob"):
        overview = client_of(user).get(OVERVIEW).json()
        mine = [row for row in rows if row["user_id"] == user]
        assert parts(overview) == looked_up(mine)


def parts(overview):
    return {
        "pinned": [row["id"] for row in overview["pinned"]],
        "characters": [
            (row["character_id"], row["conversation_count"], row["latest"]["id"])
            for row in overview["characters"]
        ],
        "tags": overview["tags"],
        "counts": overview["counts"],
    }


def looked_up(rows):
    states = Counter(row["status"] for row in rows)
    active = [row for row in rows if row["status"] == "active"]
    pinned = sorted(
        (row for row in active if row["pinned_at"]),
        key=lambda row: (row["pinned_at"], row["_id"]),
        reverse=True,
    )
    characters = Counter(row["character_id"] for row in active)
    latest = {}  # in the order of the latest of each
    for row in sorted(
        active, key=lambda row: (row["metadata"]["last_activity"], row["_id"]), reverse=True
    ):
        latest.setdefault(row["character_id"], str(row["_id"]))
    return {
        "pinned": [str(row["_id"]) for row in pinned][:20],
        "characters": [(name, characters[name], row_id) for name, row_id in latest.items()],
        "tags": tags_of([row for row in rows if row["status"] in {"active", "archived"}]),
        "counts": {name: states[name] for name in ("active", "archived", "deleted")},
    }


@pytest.fixture
def plenty(mongo):
    """More pins, characters and tags than are shown."""
    now = clock.now()
    rows = []
    for n in range(120):
        document = documents.new(
            user_id="alice",
            character_id=f"character-{n % 60}",
            now=now - timedelta(minutes=n),
            tags=[f"tag {n}", "all"],
        )
        rows.append(document | {"pinned_at": now - timedelta(seconds=n)})
    mongo["conversations"].insert_many(rows)
    return [str(row["_id"]) for row in rows]


def test_the_overview_is_limited(alice, plenty):
    overview = alice.get(OVERVIEW).json()

    assert [row["id"] for row in overview["pinned"]] == plenty[:20]
    assert [row["latest"]["id"] for row in overview["characters"]] == plenty[:50]
    assert {row["conversation_count"] for row in overview["characters"]} == {2}
    assert len(overview["tags"]) == 50
    assert overview["tags"][0] == {"tag": "all", "count": 120}


def test_the_overview_is_one_statement_that_reads_only_its_rows(mongo, commands, alice, plenty):
    mongo["conversations"].insert_many(crowd(1, now=clock.now(), each=300))
    commands.clear()
    shown = alice.get(OVERVIEW).json()

    statement = only_aggregate(commands)

    assert users_of(statement) == {"alice"}
    assert shown["counts"]["active"] > 200
    rows = sum(len(shown[name]) for name in ("pinned", "characters", "tags"))
    assert documents_examined(mongo, statement) == rows


def test_the_feed_cursor_starts_a_minute_before(alice):
    with travel("2026-03-09T10:00:00Z", tick=False):
        overview = client_of("alice").get(OVERVIEW).json()

    since, after = cursors.unseal(overview["sync_cursor"], binding="changes alice")
    assert datetime.fromtimestamp(since / 1000, UTC) == datetime(2026, 3, 9, 9, 59, tzinfo=UTC)
    assert not after
    with pytest.raises(InvalidCursor):
        cursors.unseal(overview["sync_cursor"], binding="changes bob")


@pytest.mark.parametrize("address", [OVERVIEW, f"{PATH}/summary"])
def test_it_takes_no_parameters(alice, address):
    assert alice.get(address, {"status": "all"}).status_code == 400
