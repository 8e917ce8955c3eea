"""The console shows that a conversation was purged, when, and by which actor."""

from datetime import timedelta

import pytest
from bson import ObjectId
from django.contrib.admin.models import LogEntry
from django.core.management import call_command

from tests.conversations.admin.browser import LIST, NOON, shown, store, text, url_of
from tests.factories import PATH, conversation

ABSENT = "a" * 24
BY_USER, BY_RETENTION = "its user", "the retention, automatically"


@pytest.fixture(params=[BY_USER, BY_RETENTION])
def purged(request, alice, mongo):
    """The id of a purged conversation, and the actor in words."""
    id_ = conversation(alice, "deleted", title="Secret")["id"]
    if request.param == BY_USER:
        alice.delete(f"{PATH}/{id_}?mode=purge")
    else:
        past = {"purge_at": NOON - timedelta(days=1000)}
        mongo["conversations"].update_one({"_id": ObjectId(id_)}, {"$set": past})
        call_command("purge_trash", verbosity=0)
    tombstone = mongo["conversations"].find_one()
    assert tombstone["status"] == "purged"
    return tombstone, request.param


def test_the_page_of_a_purged_conversation_shows_time_and_actor(viewer, purged):
    tombstone, actor = purged

    response = viewer.get(url_of(tombstone["_id"]))

    assert response.status_code == 410
    page = text(response)
    assert "cannot be restored" in page
    assert "user id alice" in page
    assert f"purged at (UTC) {tombstone['changed_at']:%Y-%m-%d %H:%M:%S}" in page
    assert f"purged by {actor}" in page
    until = f"{tombstone['expires_at']:%Y-%m-%d %H:%M:%S}"
    assert f"these data are kept until (UTC) {until}" in page
    assert LogEntry.objects.get().object_id == str(tombstone["_id"])


def test_the_search_for_a_purged_id_shows_it_too(viewer, purged, commands):
    tombstone, actor = purged
    commands.clear()

    response = viewer.get(LIST, {"q": str(tombstone["_id"])})

    lookup = {"_id": {"$in": [tombstone["_id"]]}, "status": "purged"}
    assert [command.get("filter") for command in commands].count(lookup) == 1

    assert shown(response) == []
    assert f"UTC by {actor}" in text(response)
    assert f'href="{url_of(tombstone["_id"])}"' in response.content.decode()


def test_a_search_for_many_ids_lists_the_others_below(viewer, purged, mongo):
    tombstone, actor = purged
    first, second, other = store(mongo, 3)
    absent = "507f1f77bcf86cd799439014"
    ids = f"{first['_id']}, {tombstone['_id']}\n/api/v1/conversations/{second['_id']}?x {absent}"

    response = viewer.get(LIST, {"q": ids})
    narrower = viewer.get(LIST, {"q": ids, "status__exact": "archived"})

    assert shown(response) == ["Number 1", "Number 0"]
    assert f"{tombstone['_id']} purged at" in text(response)
    assert f"UTC by {actor}" in text(response)
    assert f"{absent} no conversation, or excluded by a filter" in text(response)
    assert shown(narrower) == []
    assert f"{first['_id']} no conversation, or excluded by a filter" in text(narrower)
    for page in (response, narrower):
        assert str(other["_id"]) not in page.content.decode()


def test_the_list_of_a_user_has_its_purged_conversations(viewer, purged):
    tombstone, actor = purged

    of_alice = text(viewer.get(LIST, {"q": "alice"}))
    of_bob = text(viewer.get(LIST, {"user": "bob"}))

    assert "1 purged conversation of this user" in of_alice
    assert f"{tombstone['_id']} purged at" in of_alice
    assert f"UTC by {actor}" in of_alice
    assert "purged conversation" not in of_bob


def test_a_tombstone_of_an_earlier_release_has_no_actor(viewer, purged, mongo):
    tombstone, _actor = purged
    mongo["conversations"].update_one({}, {"$unset": {"mark": ""}})

    assert "purged by not recorded" in text(viewer.get(url_of(tombstone["_id"])))


def test_an_id_without_conversation_says_so(viewer):
    page, searched = viewer.get(url_of(ABSENT)), viewer.get(LIST, {"q": ABSENT})

    assert page.status_code == 404
    assert "It never existed, or it was purged more than 90 days ago." in text(page)
    assert "No conversation in this list has this id." in text(searched)
    assert LogEntry.objects.count() == 0


def test_a_word_that_is_no_id_says_so(viewer):
    response = viewer.get(url_of("nonsense"))

    assert response.status_code == 404
    assert "This is not the id of a conversation." in text(response)
