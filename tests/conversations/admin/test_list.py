"""The list of conversations: read by an index, without a count."""

import pytest
from bson import ObjectId

from tests.conversations.admin.browser import LIST, NOON, shown, store, text
from tests.factories import PATH, conversation


@pytest.mark.parametrize("term", ["cafe", "CAFÉ con", "  café  "])
def test_titles_are_found_by_prefix_without_case_and_accents(viewer, mongo, term):
    store(mongo, 1, title="Café con Luna")
    store(mongo, 1, title="Luna en el café")

    assert shown(viewer.get(LIST, {"q": term})) == ["Café con Luna"]


def test_titles_with_equal_prefixes_are_sorted(viewer, mongo):
    for title in ["Noche 2", "noche 1", "Noche 3"]:
        store(mongo, 1, title=title)

    assert shown(viewer.get(LIST, {"q": "noche"})) == ["noche 1", "Noche 2", "Noche 3"]


def test_conversations_of_a_user_are_sorted_newest_first(viewer, mongo):
    store(mongo, 3)
    store(mongo, 1, user_id="alice2", title="alice")

    assert shown(viewer.get(LIST, {"q": "alice"})) == ["Number 2", "Number 1", "Number 0"]
    assert shown(viewer.get(LIST, {"q": "Alice"})) == ["alice"]


def test_an_id_finds_its_conversation(viewer, mongo):
    stored = store(mongo, 2)

    assert shown(viewer.get(LIST, {"q": str(stored[0]["_id"])})) == ["Number 0"]


def test_an_unknown_object_id_is_searched_as_user_and_title(viewer, mongo):
    user_id, title = str(ObjectId()), str(ObjectId())
    store(mongo, 1, user_id=user_id)
    store(mongo, 1, title=title)

    assert shown(viewer.get(LIST, {"q": user_id})) == ["Number 0"]
    assert shown(viewer.get(LIST, {"q": title})) == [title]
    assert shown(viewer.get(LIST, {"q": str(ObjectId())})) == []


def test_a_state_filters_the_list(viewer, alice):
    conversation(alice, title="Active")
    conversation(alice, "archived", title="Archived")
    conversation(alice, "deleted", title="Trashed")

    assert shown(viewer.get(LIST)) == ["Trashed", "Archived", "Active"]
    assert shown(viewer.get(LIST, {"status__exact": "deleted"})) == ["Trashed"]


def test_a_filter_shows_conversations_with_a_legal_hold(viewer, alice, mongo):
    conversation(alice, title="Free")
    held = conversation(alice, title="Kept")
    hold = {"by": "ops", "reason": "Case 12", "at": NOON}
    mongo["conversations"].update_one({"_id": ObjectId(held["id"])}, {"$set": {"hold": hold}})

    response = viewer.get(LIST, {"held": "yes"})

    assert shown(response) == ["Kept"]
    assert "Active Legal hold" in text(response)


def test_purged_conversations_are_not_listed(viewer, alice):
    purged = conversation(alice, "deleted")
    alice.delete(f"{PATH}/{purged['id']}?mode=purge")

    assert shown(viewer.get(LIST)) == []
    assert viewer.get(f"{LIST}{purged['id']}/change/").status_code == 302


def test_unknown_filters_are_rejected(viewer):
    response = viewer.get(LIST, {"title__icontains": "a"})

    assert response.status_code == 400
    assert response.headers["Content-Type"].startswith("text/html")


ABSENT = "a" * 24


@pytest.fixture
def profile(mongo):
    """The reads of the conversations collection, from the profiler of the server."""
    reads = {"ns": f"{mongo.name}.conversations", "op": {"$nin": ["insert", "update"]}}
    mongo.command("planCacheClear", "conversations")  # plans cached for the few rows of other tests
    mongo.command("profile", 2)
    yield lambda: list(mongo["system.profile"].find(reads))
    mongo.command("profile", 0)
    mongo.drop_collection("system.profile")


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"p": "2"},
        {"o": "2"},
        {"all": ""},
        {"_facets": "True"},
        {"status__exact": "active"},
        {"q": "alice"},
        {"q": "alice", "status__exact": "active"},
        {"q": "number"},
        {"q": "number", "status__exact": "active", "p": "2"},
        {"q": ABSENT},
        {"held": "yes"},
        {"held": "yes", "status__exact": "active"},
    ],
    ids=str,
)
def test_a_list_reads_only_its_rows_by_an_index_without_a_count(viewer, mongo, profile, query):
    hold = {"by": "ops", "reason": "Case 12", "at": NOON}
    store(mongo, 150)
    store(mongo, 150, user_id="bob", title="Another")
    mongo["conversations"].update_many({"user_id": "bob"}, {"$set": {"hold": hold}})

    rows = shown(viewer.get(LIST, query))

    statements = profile()
    assert len(rows) == (0 if query.get("q") == ABSENT else 50)
    assert 1 <= len(statements) <= 3
    for statement in statements:
        assert "COLLSCAN" not in statement["planSummary"]
        assert statement["docsExamined"] <= int(query.get("p", "1")) * 50 + 1
        assert not statement.get("hasSortStage")
        assert not {"$group", "$count"} & {
            name for stage in statement["command"]["pipeline"] for name in stage
        }


def test_a_list_does_not_load_large_fields(viewer, mongo, profile):
    store(mongo, 50, custom={f"key{n}": "x" * 500 for n in range(16)})

    viewer.get(LIST)

    [read] = profile()
    assert read["responseLength"] < 50 * 300


def test_a_conversation_is_read_by_its_id(viewer, mongo, profile):
    [stored] = store(mongo, 1)

    viewer.get(f"{LIST}{stored['_id']}/change/")

    reads = profile()
    assert [(r["planSummary"], r["docsExamined"]) for r in reads] == [("IXSCAN { _id: 1 }", 1)] * 2


def test_pages_have_a_link_while_there_are_more(viewer, mongo):
    store(mongo, 120)

    first, second, third = (viewer.get(LIST, {"p": page}) for page in (1, 2, 3))

    assert shown(first)[0] == "Number 119"
    assert "1 to 50, more follow" in text(first)
    assert 'href="?p=2"' in first.content.decode()
    assert "51 to 100, more follow" in text(second)
    assert shown(third)[-1] == "Number 0"
    assert "101 to 120" in text(third)
    assert "more follow" not in text(third)
    assert 'href="?p=4"' not in third.content.decode()


def test_an_emptied_page_redirects_to_the_first(viewer, mongo):
    store(mongo, 3)

    assert len(shown(viewer.get(LIST, {"p": "2"}))) == 3


@pytest.mark.parametrize("page", ["0", "-1", "101"])
def test_the_last_page_is_the_hundredth(viewer, page):
    response = viewer.get(LIST, {"p": page})

    assert (response.status_code, response.headers["Location"]) == (302, f"{LIST}?e=1")
