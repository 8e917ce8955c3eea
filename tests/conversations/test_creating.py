import pytest
from bson import ObjectId
from time_machine import travel

from conversation_service import clock
from conversations import documents
from tests.factories import PATH, WIDE_NAMES, client_of, conversation

DEFAULT_SETTINGS = {
    "temperature": 0.7,
    "max_tokens": 2048,
    "context_window": 4000,
    "top_p": 0.9,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
    "stop_sequences": [],
    "model": None,
    "reasoning_effort": None,
    "extra": {},
}


@travel("2026-01-15T15:00:00.123456Z", tick=False)
def test_a_new_conversation_has_every_field_and_reads_back_the_same():
    alice = client_of("alice")

    response = alice.post(PATH, {"character_id": "luna", "title": "Noche con Luna"})

    assert response.status_code == 201
    created = response.json()
    now = "2026-01-15T15:00:00.123Z"
    assert created == {
        "id": created["id"],
        "object": "conversation",
        "user_id": "alice",
        "character_id": "luna",
        "character_status": "unverified",
        "title": "Noche con Luna",
        "title_source": "user",
        "status": "active",
        "is_archived": False,
        "pinned_at": None,
        "settings": DEFAULT_SETTINGS,
        "settings_given": [],
        "tags": [],
        "custom": {},
        "metadata": {
            "message_count": 0,
            "total_tokens": 0,
            "total_input_tokens": 0,
            "total_output_tokens": 0,
            "first_message_at": None,
            "last_message_at": None,
            "last_activity": now,
            "created_at": now,
            "updated_at": now,
        },
        "archived_at": None,
        "deleted_at": None,
        "purge_at": None,
        "forked_from": None,
        "version": 1,
        "retention": None,
    }
    assert response.headers["Location"] == f"{PATH}/{created['id']}"
    assert response.headers["ETag"] == '"v1"'
    assert response.headers["Cache-Control"] == "private, no-store"
    assert alice.get(response.headers["Location"]).json() == created


def test_without_a_title_the_character_names_it(alice):
    created = conversation(alice, character_id="luna", title=None)

    assert (created["title"], created["title_source"]) == ("luna", "auto")


def test_given_settings_join_the_defaults_and_null_means_the_default(alice):
    created = conversation(
        alice, settings={"temperature": 1, "top_p": None, "stop_sequences": ["\n", "User:"]}
    )

    assert created["settings"] == DEFAULT_SETTINGS | {
        "temperature": 1.0,
        "stop_sequences": ["\n", "User:"],
    }


def test_null_equals_an_absent_field(alice):
    created = conversation(alice, settings=None, tags=None, custom={"kept": "x", "dropped": None})

    assert (created["settings"], created["tags"]) == (DEFAULT_SETTINGS, [])
    assert created["custom"] == {"kept": "x"}


def test_tags_that_differ_only_by_case_or_width_are_merged(alice):
    created = conversation(alice, tags=["Café", "CAFÉ", "ｃａｆé", "हिन्दी", "te_s-t.1 x"])

    assert created["tags"] == ["Café", "हिन्दी", "te_s-t.1 x"]


def test_a_title_is_stored_in_its_composed_form(alice):
    assert conversation(alice, title=" Cafe\u0301 ")["title"] == "Café"


@pytest.mark.parametrize("title", ["$user_id", "$$ROOT", "$", "{$gt: 1}", "😀" * 200])
def test_titles_are_stored_literally(alice, title):
    created = conversation(alice, title=title)

    assert alice.get(f"{PATH}/{created['id']}").json()["title"] == title


def test_users_do_not_see_conversations_of_others(alice, bob):
    theirs = conversation(bob)

    assert alice.get(PATH).json()["conversations"] == []
    assert [c["id"] for c in bob.get(PATH).json()["conversations"]] == [theirs["id"]]


def taken_ids(after):
    """The ids that this process draws next within this second."""
    count = int.from_bytes(after.binary[9:])
    return [
        ObjectId(after.binary[:9] + ((count + n) % 0x1000000).to_bytes(3)) for n in range(1, 200)
    ]


def take(mongo, ids):
    now = clock.now()
    tombstone = {"user_id": "bob", "status": "purged", "changed_at": now, "expires_at": now}
    mongo["conversations"].insert_many([{"_id": id_, **tombstone} for id_ in ids])


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "k"}])
@pytest.mark.parametrize("path", ["", "?get_or_create=character", "/{id}/duplicate"])
@travel("2026-01-15T15:00:00Z", tick=False)
def test_a_taken_id_is_replaced(mongo, path, headers):
    alice = client_of("alice")
    first = conversation(alice, character_id="sol")
    ids = taken_ids(ObjectId(first["id"]))
    take(mongo, ids)
    url, body = PATH + path.format(**first), {"title": "New"}
    if "duplicate" not in path:
        body["character_id"] = "luna"

    created = alice.post(url, body, headers=headers)

    assert created.status_code == 201
    assert ObjectId(created.json()["id"]) not in ids
    assert created.headers["Location"] == f"{PATH}/{created.json()['id']}"
    assert alice.get(created.headers["Location"]).content == created.content
    if headers:
        assert alice.post(url, body, headers=headers).content == created.content
    assert mongo["conversations"].count_documents({"user_id": "alice"}) == 2


@travel("2026-01-15T15:00:00Z", tick=False)
def test_a_create_fails_if_every_id_is_taken(mongo, monkeypatch):
    alice = client_of("alice")
    taken = ObjectId(conversation(alice)["id"])
    monkeypatch.setattr(documents, "random_id", lambda: taken)
    take(mongo, taken_ids(taken))

    response = alice.post(PATH, {"character_id": "luna"})

    assert response.status_code == 409
    assert mongo["conversations"].count_documents({"user_id": "alice"}) == 1


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("two\nlines", "two lines"),
        ("two\r\n\r\nlines", "two lines"),
        ("tab\there", "tab here"),
        ("\u2028x\u2028y\u2029", "x y"),
        ("many   blanks \u00a0 here", "many blanks here"),
        ("Bonjour\u00a0!", "Bonjour\u00a0!"),
        ("\u3000\u6708\u3000\u591c", "\u6708\u3000\u591c"),
        (
            "\U0001f468\u200d\U0001f469\u200d\U0001f467",
            "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        ),
        ("\u3164x", "\u3164x"),
        ("\u25cc\u0301", "\u25cc\u0301"),
        ("\ue000", "\ue000"),
        ("\U0010fffd", "\U0010fffd"),
        ("\U000e0fff\U0002fffdx", "\U000e0fff\U0002fffdx"),
        ("a\ufffe", "a\ufffe"),
    ],
)
def test_a_title_is_one_line_with_single_blanks(alice, sent, stored):
    created = alice.post(PATH, {"character_id": "luna", "title": sent}).json()
    patched = alice.patch(f"{PATH}/{created['id']}", {"title": sent}).json()
    copied = alice.post(f"{PATH}/{created['id']}/duplicate", {"title": sent}).json()

    assert created["title"] == patched["title"] == copied["title"] == stored


@pytest.mark.parametrize("tag", WIDE_NAMES)
def test_a_tag_has_any_printable_characters(alice, tag):
    created = alice.post(PATH, {"character_id": "luna", "tags": [tag]}).json()
    alice.post(PATH, {"character_id": "luna", "tags": ["another"]})

    assert created["tags"] == [tag]
    for parameters in ({"tags": tag}, {"tags": f"{tag},{tag}"}, {"tags": tag, "tags_match": "any"}):
        found = alice.get(PATH, parameters).json()["conversations"]
        assert [row["id"] for row in found] == [created["id"]], parameters
    removed = alice.patch(f"{PATH}/{created['id']}", {"tags_remove": [tag]}).json()
    assert removed["tags"] == []
    bulk = {"action": "tag", "tags": [tag], "filter": {"character_id": "luna"}}
    assert alice.post(f"{PATH}/bulk", bulk).json()["summary"]["ok"] == 2
    assert alice.get("/api/v1/tags").json()["tags"][0] == {"tag": tag, "count": 2}


@pytest.mark.parametrize(
    "moment", ["2026-01-15t15:00:00z", "2026-01-15T15:00:00z", "2026-01-15 15:00:00Z"]
)
def test_times_have_any_case_and_a_blank(alice, moment):
    alice.post(PATH, {"character_id": "luna"})

    assert len(alice.get(PATH, {"created_after": moment}).json()["conversations"]) == 1


def test_a_plus_that_was_not_escaped_is_named(alice):
    response = alice.get(f"{PATH}?created_after=2026-01-15T15:00:00+02:00")

    [error] = response.json()["error"]["details"]["errors"]
    assert (response.status_code, error["code"]) == (400, "plus")
    assert "%2B" in error["message"]


@pytest.mark.parametrize("charset", ["utf-8", "UTF-8", "utf8", '"utf-8"', '"UTF8"'])
def test_utf_8_has_several_names(alice, charset):
    response = alice.post(
        PATH, b'{"character_id": "luna"}', content_type=f"application/json; charset={charset}"
    )

    assert response.status_code == 201
