"""Ids of users and characters are opaque: 1 to 255 visible ASCII characters, compared exactly."""

import json
from urllib.parse import quote

import pytest
from bson import ObjectId
from django.core.management import CommandError, call_command
from redis import Redis
from redis.crc import key_slot

from conversation_service.upstreams.messages import Stats
from conversations import documents
from tests.conversation_service import loopback
from tests.conversations.admin.browser import LIST, NOON, shown, staff, store
from tests.conversations.test_characters import served
from tests.conversations.test_export import exported
from tests.conversations.test_import import forget_everything, imported, statuses
from tests.conversations.test_internal import AUTHORIZE, service_with
from tests.external_ids import IDS, NO_IDS
from tests.factories import PATH, NewConversation, client_of, conversation

RULE = "1 to 255 visible ASCII characters"

every_id = pytest.mark.parametrize("id_", IDS, ids=ascii)


def listed(client, **parameters):
    response = client.get(PATH, parameters)
    assert response.status_code == 200, response.json()
    return [one["id"] for one in response.json()["conversations"]]


@every_id
def test_an_id_is_valid_for_users_and_characters_in_every_endpoint(id_):
    user = client_of(id_)
    conversation(user, character_id="luna")
    created = conversation(user, character_id=id_, title=None)

    assert (created["user_id"], created["character_id"]) == (id_, id_)
    assert created["title"] == id_[:200]
    assert user.get(f"{PATH}/{created['id']}").json()["character_id"] == id_
    assert listed(user, character_id=id_) == [created["id"]]
    again = user.post(f"{PATH}?get_or_create=character", NewConversation(character_id=id_))
    assert (again.status_code, again.json()["id"]) == (200, created["id"])

    summary = user.get(f"{PATH}/summary").json()
    assert (summary["user_id"], summary["statistics"]["total_conversations"]) == (id_, 2)
    characters = user.get(f"{PATH}/overview").json()["characters"]
    assert {one["character_id"] for one in characters} == {id_, "luna"}
    changes = user.get("/api/v1/changes").json()["changes"]
    assert {change["conversation"]["user_id"] for change in changes} == {id_}

    patched = user.patch(f"{PATH}/{created['id']}", {"title": "Renamed"})
    assert (patched.status_code, patched.json()["title"]) == (200, "Renamed")
    copy = user.post(f"{PATH}/{created['id']}/duplicate").json()
    assert (copy["user_id"], copy["character_id"]) == (id_, id_)


@every_id
def test_a_create_request_is_repeated_safely_and_a_purge_leaves_a_tombstone(id_):
    user = client_of(id_)
    key = {"Idempotency-Key": "k-1"}

    first, again = (
        user.post(PATH, NewConversation(character_id=id_, title="One"), headers=key)
        for _ in range(2)
    )
    assert (first.status_code, again.headers["Idempotency-Replayed"]) == (201, "true")
    assert first.json()["id"] == again.json()["id"]

    cursor = user.get("/api/v1/changes").json()["next_cursor"]
    path = f"{PATH}/{first.json()['id']}"
    assert user.delete(path).status_code == 200
    assert user.delete(f"{path}?mode=purge").status_code == 204
    [change] = user.get("/api/v1/changes", {"cursor": cursor}).json()["changes"]
    assert (change["type"], change["id"]) == ("deleted", first.json()["id"])


@pytest.mark.parametrize("id_", [id_ for id_ in IDS if len(id_) < 180 and '"' not in id_])
def test_the_search_operator_for_a_character_takes_an_id(id_):
    user = client_of("alice")
    conversation(user, character_id="luna")
    wanted = conversation(user, character_id=id_)

    assert listed(user, search=f"character:{id_}") == [wanted["id"]]
    assert listed(user, search=f'character:"{id_}"') == [wanted["id"]]


@every_id
def test_get_or_create_makes_one_active_conversation_per_character(id_):
    user = client_of(id_)

    made, found = (
        user.post(f"{PATH}?get_or_create=character", NewConversation(character_id=id_))
        for _ in range(2)
    )

    assert (made.status_code, found.status_code) == (201, 200)
    assert made.json()["id"] == found.json()["id"]


@every_id
def test_a_bulk_filter_selects_by_character(id_):
    user = client_of(id_)
    conversation(user, character_id="luna")
    wanted = conversation(user, character_id=id_)
    body = {"action": "archive", "filter": {"character_id": id_}}

    response = user.post(f"{PATH}/bulk", body)

    assert [result["id"] for result in response.json()["results"]] == [wanted["id"]]
    assert user.get(f"{PATH}/{wanted['id']}").json()["status"] == "archived"


@every_id
def test_cursors_belong_to_their_user_and_character(id_):
    user = client_of(id_)
    made = [conversation(user, character_id=id_)["id"] for _ in range(2)]
    first = user.get(PATH, {"character_id": id_, "limit": 1}).json()
    cursor = first["pagination"]["next_cursor"]

    assert listed(user, character_id=id_, limit=1, cursor=cursor) == made[:1]
    for client, character in ((user, "luna"), (client_of("bob"), id_)):
        refused = client.get(PATH, {"character_id": character, "limit": 1, "cursor": cursor})
        assert refused.json()["error"]["code"] == "INVALID_CURSOR"


@every_id
def test_services_authorize_users_by_their_id(id_):
    created = conversation(client_of(id_))
    service = service_with("conversations:authorize")

    def is_owner(user_id):
        response = service.post(AUTHORIZE, {"user_id": user_id, "ids": [created["id"]]})
        return response.json()["results"][0]["owner"]

    assert is_owner(id_)
    assert not is_owner("alice")


@every_id
def test_an_export_can_be_imported_again(id_):
    user = client_of(id_)
    conversation(user, character_id=id_)
    lines = exported(user)
    forget_everything()

    assert statuses(imported(user, lines)) == [201]
    assert statuses(imported(user, lines)) == [200]
    # The ids are taken now, so that another user's import gets new ones, always the same.
    other = client_of(id_[::-1] if id_[::-1] != id_ else "bob")
    assert statuses(imported(other, lines)) == [201]
    assert statuses(imported(other, lines)) == [200]
    assert {line["character_id"] for line in exported(other)} == {id_}


@pytest.mark.parametrize(
    "other", ["AUTH0|abc", "auth0|ABC", "auth0|ab", "auth0|abcd", "auth0%7Cabc"]
)
def test_ids_are_compared_exactly(other):
    created = conversation(client_of("auth0|abc"), character_id="auth0|abc")

    assert client_of(other).get(f"{PATH}/{created['id']}").status_code == 404
    assert listed(client_of("auth0|abc"), character_id=other) == []


@pytest.mark.parametrize("id_", NO_IDS, ids=ascii)
def test_other_strings_are_rejected_and_the_error_states_the_rule(alice, id_):
    service = service_with("conversations:authorize")
    responses = [
        alice.post(PATH, NewConversation(character_id=id_)),
        alice.get(PATH, {"character_id": id_}),
        alice.post(f"{PATH}/bulk", {"action": "archive", "filter": {"character_id": id_}}),
        service.post(AUTHORIZE, {"user_id": id_, "ids": [str(ObjectId())]}),
    ]

    for response in responses:
        assert response.status_code == 400
        [error] = response.json()["error"]["details"]["errors"]
        assert RULE in error["message"]


@pytest.mark.parametrize("value", [42, 1.5, True, ["luna"], {"id": "luna"}])
def test_other_types_are_rejected_and_the_error_states_the_rule(alice, value):
    response = alice.post(PATH, NewConversation(character_id=value))

    [error] = response.json()["error"]["details"]["errors"]
    assert (error["pointer"], error["code"]) == ("/character_id", "invalid")
    assert f"a string of {RULE}" in error["message"]


@every_id
def test_a_request_to_characters_has_the_id_as_one_path_segment(id_, settings):
    paths = []

    def talk(channel):
        paths.append(channel.recv(65_536).decode().split(" ")[1])
        name = {"id": id_, "name": "Luna", "description": ""}
        loopback.write(channel, json.dumps(name).encode(), headers="Connection: close\r\n")

    with served(settings, talk):
        status = client_of("alice").post(PATH, NewConversation(character_id=id_)).status_code

    if id_ in {".", ".."}:  # no client sends these as a segment
        assert (status, paths) == (422, [])
    else:
        [path] = paths
        assert status == 201
        assert path.endswith(f"/api/v1/characters/{quote(id_, safe='')}")


@every_id
def test_all_rate_limits_of_a_user_are_kept_on_one_node_of_a_cluster(id_, settings):
    settings.RATE_LIMIT_ENABLED = True
    with Redis.from_url(settings.REDIS_URL) as server:
        server.delete(*server.keys("ratelimit:*"), "x")
        client_of(id_).get(PATH)
        keys = server.keys("ratelimit:*")

    assert len(keys) == 2
    assert len({key_slot(key) for key in keys}) == 1


def test_rate_limits_of_different_users_are_counted_apart(settings):
    settings.RATE_LIMIT_ENABLED = True
    settings.RATE_LIMITS = dict.fromkeys(settings.RATE_LIMITS, 0) | {"all": 1}
    with Redis.from_url(settings.REDIS_URL) as server:
        server.delete(*server.keys("ratelimit:*"), "x")

    assert [client_of(id_).get(PATH).status_code for id_ in IDS] == [200] * len(IDS)
    assert [client_of(id_).get(PATH).status_code for id_ in IDS] == [429] * len(IDS)


@every_id
def test_the_console_finds_and_links_the_conversations_of_a_user(id_, mongo):
    viewer = staff("view_conversation")
    [stored] = store(mongo, 1, user_id=id_, character_id=id_, title="Mine")
    store(mongo, 1, title="Another's")

    assert shown(viewer.get(LIST, {"q": id_})) == ["Mine"]
    page = viewer.get(f"{LIST}{stored['_id']}/change/").content.decode()
    link = f'href="{LIST}?user={quote(id_, safe="/")}"'
    assert link in page
    assert shown(viewer.get(f"{LIST}?user={quote(id_, safe='/')}")) == ["Mine"]


@every_id
def test_a_command_accepts_the_id_of_a_user(id_, mongo, monkeypatch):
    requested = []

    def stats(conversation_id):
        requested.append(conversation_id)
        return Stats(0, 0, 0, 0, None, None)

    monkeypatch.setattr("conversation_service.upstreams.messages.stats", stats)
    [mine] = store(mongo, 1, user_id=id_)
    store(mongo, 1, user_id="bob")

    call_command("reconcile_activity", f"--user={id_}", "--rate=1000")

    assert requested == [str(mine["_id"])]


@pytest.mark.parametrize("id_", NO_IDS, ids=ascii)
def test_a_command_rejects_an_invalid_id(id_):
    with pytest.raises(CommandError, match=RULE):
        call_command("reconcile_activity", f"--user={id_}")


@every_id
def test_the_database_accepts_ids_of_this_and_of_the_previous_release(id_, mongo):
    document = documents.new(user_id=id_, character_id=id_, now=NOON)

    assert mongo["conversations"].insert_one(document).acknowledged
