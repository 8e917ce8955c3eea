from time_machine import travel

from tests.factories import PATH, client_of, conversation


def test_nobody_knows_anything_of_a_new_user(alice):
    statistics = alice.get(f"{PATH}/summary").json()["statistics"]

    assert statistics == {
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


def test_a_users_numbers(mongo, bob):
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
