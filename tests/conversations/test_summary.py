from collections import Counter
from datetime import UTC, datetime, timedelta
from operator import itemgetter

import pytest
from time_machine import travel

from conversation_service import clock
from tests.conversations.crowd import crowd
from tests.conversations.plans import documents_examined, only_aggregate, users_of
from tests.factories import PATH, client_of, conversation


def statistics(client):
    return client.get(f"{PATH}/summary").json()["statistics"]


def counts_of(client):
    return {row["tag"]: row["count"] for row in statistics(client)["top_tags"]}


def test_this_week_ends_at_the_current_time(alice, mongo):
    conversation(alice)
    conversation(alice)
    far = datetime(9999, 12, 31, tzinfo=UTC)
    times = {"metadata.created_at": far, "metadata.last_activity": far}
    mongo["conversations"].update_one({}, {"$set": times})

    recent = statistics(alice)["recent_activity"]

    assert (recent["conversations_this_week"], recent["active_this_week"]) == (1, 1)


def test_a_new_user_has_zeros(alice):
    assert statistics(alice) == {
        "total_conversations": 0,
        "active_conversations": 0,
        "archived_conversations": 0,
        "deleted_conversations": 0,
        "total_messages": 0,
        "total_tokens": 0,
        "most_used_character": None,
        "top_tags": [],
        "recent_activity": {
            "last_conversation_created": None,
            "last_message_sent": None,
            "conversations_this_week": 0,
            "active_this_week": 0,
        },
    }


def test_a_summary_counts_the_conversations_of_a_user(mongo, bob):
    with travel("2026-03-01T10:00:00Z", tick=False):
        alice = client_of("alice")
        conversation(alice, character_id="sol", tags=["Río"])
    with travel("2026-03-09T10:00:00Z", tick=False):
        alice = client_of("alice")
        conversation(alice, "archived", character_id="luna", tags=["sea", "RÍO"])
        conversation(alice, "pinned", character_id="luna")
        conversation(alice, "deleted", character_id="sol", tags=["sea"])
        conversation(client_of("bob"), character_id="sol")
        mongo["conversations"].update_many(
            {"user_id": "alice"},
            {"$set": {"metadata.message_count": 3, "metadata.total_tokens": 100}},
        )

        summary = alice.get(f"{PATH}/summary").json()

    assert summary == {
        "user_id": "alice",
        "generated_at": "2026-03-09T10:00:00.000Z",
        "statistics": {
            "total_conversations": 3,
            "active_conversations": 2,
            "archived_conversations": 1,
            "deleted_conversations": 1,
            "total_messages": 9,
            "total_tokens": 300,
            "most_used_character": {
                "character_id": "luna",
                "character_name": None,
                "conversation_count": 2,
            },
            "top_tags": [{"tag": "Río", "count": 2}, {"tag": "sea", "count": 1}],
            "recent_activity": {
                "last_conversation_created": "2026-03-09T10:00:00.000Z",
                "last_message_sent": None,
                "conversations_this_week": 2,
                "active_this_week": 2,
            },
        },
    }


@pytest.mark.parametrize("seed", range(12))
def test_the_summary_equals_a_count_of_each_conversation(mongo, seed):
    with travel("2026-03-09T10:00:00Z", tick=False):
        rows = crowd(seed, now=clock.now())
        mongo["conversations"].insert_many(rows)

        for user in ("alice", "bob"):
            mine = [row for row in rows if row["user_id"] == user]
            assert statistics(client_of(user)) == counted(mine, clock.now())


def counted(rows, now):
    states = Counter(row["status"] for row in rows)
    kept = [row for row in rows if row["status"] in {"active", "archived"}]
    metadata = [row["metadata"] for row in kept]
    created, active = ([m[name] for m in metadata] for name in ("created_at", "last_activity"))
    sent = [m["last_message_at"] for m in metadata if m["last_message_at"]]
    return {
        "total_conversations": len(kept),
        "active_conversations": states["active"],
        "archived_conversations": states["archived"],
        "deleted_conversations": states["deleted"],
        "total_messages": sum(m["message_count"] for m in metadata),
        "total_tokens": sum(m["total_tokens"] for m in metadata),
        "most_used_character": most_used(kept),
        "top_tags": tags_of(kept)[:10],
        "recent_activity": {
            "last_conversation_created": moment(max(created, default=None)),
            "last_message_sent": moment(max(sent, default=None)),
            "conversations_this_week": sum(m >= now - timedelta(days=7) for m in created),
            "active_this_week": sum(m >= now - timedelta(days=7) for m in active),
        },
    }


def most_used(kept):
    if not kept:
        return None
    characters = Counter(row["character_id"] for row in kept)
    character = min(characters, key=lambda c: (-characters[c], c))
    newest = max((row for row in kept if row["character_id"] == character), key=itemgetter("_id"))
    return {
        "character_id": character,
        "character_name": newest["character_name"],
        "conversation_count": characters[character],
    }


def tags_of(kept):
    counts, spelling = Counter(), {}
    for row in sorted(kept, key=itemgetter("_id")):
        for key, tag in zip(row["tag_keys"], row["tags"], strict=True):
            counts[key] += 1
            spelling.setdefault(key, tag)
    ranked = sorted(counts, key=lambda key: (-counts[key], key.encode()))
    return [{"tag": spelling[key], "count": counts[key]} for key in ranked]


def moment(value):
    return value and value.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def test_tag_counts_follow_every_edit(alice):
    first = f"{PATH}/{conversation(alice, tags=['Sea', 'night'])['id']}"
    second = f"{PATH}/{conversation(alice)['id']}"
    assert counts_of(alice) == {"Sea": 1, "night": 1}

    alice.patch(second, {"tags_add": ["SEA", "a", "z"]})
    assert counts_of(alice) == {"Sea": 2, "a": 1, "night": 1, "z": 1}

    alice.patch(second, {"tags_remove": ["z"], "tags_add": ["b"]})
    alice.patch(first, {"tags": ["b"]})
    assert counts_of(alice) == {"b": 2, "SEA": 1, "a": 1}

    alice.post(f"{first}/revert", {"version": 1, "fields": ["tags"]})
    alice.patch(second, {"tags": []})
    assert counts_of(alice) == {"Sea": 1, "night": 1}

    alice.delete(first)
    assert counts_of(alice) == {}


def test_the_summary_is_one_statement_covered_by_indexes(mongo, commands, alice):
    mongo["conversations"].insert_many(crowd(1, now=clock.now(), each=300))
    commands.clear()
    shown = statistics(alice)

    statement = only_aggregate(commands)

    assert users_of(statement) == {"alice"}
    assert shown["total_conversations"] > 100
    # One for the name of the character, and one for the spelling of each tag.
    assert documents_examined(mongo, statement) == 1 + len(shown["top_tags"])
