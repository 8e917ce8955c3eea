"""One conversation, and what staff may do to it."""

from django.contrib.auth.models import User
from django.test import Client

from tests.conversations.console.browser import LIST, select, store, text


def test_a_conversation_is_shown_in_lines_and_not_in_json(viewer, mongo):
    [stored] = store(
        mongo, 1, title="<b>Café</b>", tags=["casual", "noche"], custom={"origin": "web"}
    )

    page = text(response := viewer.get(f"{LIST}{stored['_id']}/change/"))

    assert "<b>Café</b>" in page
    assert "&lt;b&gt;Café&lt;/b&gt;" in response.content.decode()
    assert "temperature 0.7 max_tokens 2,048" in page
    assert "stop_sequences -" in page
    assert "casual noche" in page
    assert "origin web" in page
    assert "messages 0 tokens 0" in page
    assert "created 2026-11-24 12:00:00" in page
    assert "trashed -" in page


def test_nothing_is_added_edited_or_deleted_here(mongo):
    [stored] = store(mongo, 1)
    everything = Client()
    everything.force_login(User.objects.create_superuser("root"))
    one = f"{LIST}{stored['_id']}/"

    attempts = [
        everything.get(f"{LIST}add/"),
        everything.post(f"{LIST}add/", {"title": "New"}),
        everything.post(f"{one}change/", {"title": "Other"}),
        everything.post(f"{one}delete/", {"post": "yes"}),
    ]
    select(everything, "delete_selected", stored["_id"], post="yes")

    assert [response.status_code for response in attempts] == [403] * 4
    [left] = mongo["conversations"].find()
    assert left["title"] == "Number 0"
