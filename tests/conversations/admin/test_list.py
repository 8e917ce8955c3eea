"""The list of conversations: read by an index, without a count."""

from datetime import timedelta

import pytest
from bson import ObjectId

from conversations.admin.conversation import ConversationAdmin
from conversations.admin.log import LogAdmin
from conversations.queries import staff
from tests.conversations.admin.browser import LIST, NOON, shown, store, text, url_of
from tests.conversations.admin.browser import staff as staff_account
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
    assert viewer.get(f"{LIST}{purged['id']}/change/").status_code == 410


def test_unknown_filters_are_rejected(viewer):
    response = viewer.get(LIST, {"title__icontains": "a"})

    assert response.status_code == 400
    assert response.headers["Content-Type"].startswith("text/html")


LOG = "/admin/admin/logentry/"
ABSENT = "a" * 24
SORTS = [f"{sign}{name}" for name in ("title", "created_at", "last_activity") for sign in ("", "-")]


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
        {"o": "title"},
        {"o": "-title"},
        {"o": "created_at"},
        {"o": "last_activity"},
        {"all": ""},
        {"_facets": "True"},
        {"status__exact": "active"},
        {"status__exact": "active", "o": "created_at"},
        {"q": "bob"},
        {"user": "bob"},
        {"user": "bob", "status__exact": "active"},
        *({"user": "bob", "o": order} for order in SORTS),
        {"user": "bob", "character": "luna"},
        {"user": "bob", "character": "luna", "o": "-last_activity"},
        {"user": "bob", "tag": "noche"},
        {"user": "bob", "pinned": "no"},
        {"user": "bob", "created_from": "2026-11-24", "created_to": "2026-11-24"},
        {"user": "bob", "active_from": "2026-11-24", "o": "-last_activity"},
        {"user": "bob", "q": "another"},
        {"user": "bob", "held": "yes"},
        {"user": "bob", "character_status": "unverified"},
        {"character": "luna"},
        {"tag": "noche"},
        {"pinned": "no"},
        {"created_from": "2026-11-24"},
        {"q": "another"},
        {"q": "another", "status__exact": "active", "o": "-title"},
        {"q": ABSENT},
        {"held": "yes"},
        {"held": "yes", "status__exact": "active"},
        {"character_status": "unverified", "character": "luna"},
    ],
    ids=str,
)
def test_a_list_reads_only_its_rows_by_an_index_without_a_count(viewer, mongo, profile, query):
    hold = {"by": "ops", "reason": "Case 12", "at": NOON}
    store(mongo, 150)
    store(mongo, 150, user_id="bob", title="Another", tags=["noche"])
    mongo["conversations"].update_many({"user_id": "bob"}, {"$set": {"hold": hold}})

    rows = shown(viewer.get(LIST, query))

    statements = profile()
    assert len(rows) == (0 if query.get("q") == ABSENT else 50)
    for statement in statements:
        if "pipeline" in statement["command"]:  # also the bounded count of the search
            assert statement["command"]["pipeline"][-1].keys() & {"$project", "$group"}
        assert "COLLSCAN" not in statement["planSummary"]
        # A plan that MongoDB tries reads up to 101 documents.
        assert statement["docsExamined"] <= 151
        in_memory = query.get("q") == "another" and "user" in query
        assert in_memory or not statement.get("hasSortStage")


def test_a_list_does_not_load_large_fields(viewer, mongo, profile):
    store(mongo, 50, custom={f"key{n}": "x" * 500 for n in range(16)})

    viewer.get(LIST)

    assert sum(read["responseLength"] for read in profile()) < 50 * 400


def test_a_conversation_is_read_by_its_id(viewer, mongo, profile):
    [stored] = store(mongo, 1)

    viewer.get(f"{LIST}{stored['_id']}/change/")

    reads = profile()
    assert [(r["planSummary"], r["docsExamined"]) for r in reads] == [("IXSCAN { _id: 1 }", 1)] * 2


def follow(client, link, query):
    """Return the titles on all pages, along the links to the next or the previous page."""
    page = client.get(LIST, query)
    pages = [shown(page)]
    while address := getattr(page.context["cl"], link):
        page = client.get(f"{LIST}{address}")
        pages.append(shown(page))
    return page, pages


@pytest.mark.parametrize(
    "query",
    [
        *({"o": order} for order in ("title", "-title", "created_at", "-created_at")),
        *({"user": "alice", "o": order} for order in SORTS),
        {"q": "same"},
        {"user": "alice", "q": "same"},
        {"held": "yes"},
        {"character": "luna", "character_status": "unverified"},
    ],
    ids=str,
)
def test_all_pages_have_each_row_once_in_both_directions(viewer, mongo, monkeypatch, query):
    monkeypatch.setattr(ConversationAdmin, "list_per_page", 5)
    hold = {"by": "ops", "reason": "Case 12", "at": NOON}
    store(mongo, 6, title="Same")
    store(mongo, 4, title="same")
    store(mongo, 12, title="Same too")
    mongo["conversations"].update_many({}, {"$set": {"hold": hold}})

    last, forwards = follow(viewer, "following", query)
    address = last.context["cl"].previous
    backwards = [shown(last)]
    while address:
        page = viewer.get(f"{LIST}{address}")
        backwards.insert(0, shown(page))
        address = page.context["cl"].previous

    titles = [title for page in forwards for title in page]
    assert sorted(map(str.lower, titles)) == ["same"] * 10 + ["same too"] * 12
    assert [title for page in backwards for title in page] == titles
    assert [len(page) for page in forwards] == [5, 5, 5, 5, 2]


def test_there_is_no_last_page_number(viewer, mongo, monkeypatch):
    monkeypatch.setattr(ConversationAdmin, "list_per_page", 2)
    store(mongo, 205)

    last, pages = follow(viewer, "following", {})

    assert len(pages) == 103
    assert pages[-1] == ["Number 0"]
    assert "end of the list" in text(last)
    assert "Next page" not in text(last)


def test_the_action_log_has_pages_too(mongo, monkeypatch):
    monkeypatch.setattr(LogAdmin, "list_per_page", 2)
    auditor = staff_account(role="auditor", name="auditor")
    for row in store(mongo, 5):
        auditor.get(url_of(row["_id"]))

    first = auditor.get(LOG)
    second = auditor.get(f"{LOG}{first.context['cl'].following}")
    third = auditor.get(f"{LOG}{second.context['cl'].following}")
    back = auditor.get(f"{LOG}{third.context['cl'].previous}")

    pages = [[e.pk for e in p.context["cl"].result_list] for p in (first, second, third)]
    assert [len(page) for page in pages] == [2, 2, 1]
    assert len({pk for page in pages for pk in page}) == 5
    assert [e.pk for e in back.context["cl"].result_list] == pages[1]


def test_a_page_continues_after_its_first_row_vanished(viewer, mongo, monkeypatch):
    monkeypatch.setattr(ConversationAdmin, "list_per_page", 2)
    stored = store(mongo, 6)
    second = viewer.get(LIST).context["cl"].following
    mongo["conversations"].delete_one({"_id": stored[4]["_id"]})

    assert shown(viewer.get(f"{LIST}{second}")) == ["Number 3", "Number 2"]


def test_a_cursor_is_valid_only_for_its_filters_and_sort(viewer, mongo, monkeypatch):
    monkeypatch.setattr(ConversationAdmin, "list_per_page", 2)
    store(mongo, 6)
    second = viewer.get(LIST).context["cl"].following

    for address in (f"{second}&user=alice", f"{second}&o=title", "?cursor=nonsense"):
        response = viewer.get(f"{LIST}{address}")
        assert (response.status_code, response.headers["Location"]) == (302, f"{LIST}?e=1")


# Filters


@pytest.fixture
def varied(alice, mongo):
    """One conversation that each filter finds, and one that none finds."""
    found = conversation(alice, "pinned", title="Renta", tags=["casa", "viajes"])
    other = conversation(alice, title="Otra", tags=["casa"])
    every = mongo["conversations"]
    every.update_one(
        {"_id": ObjectId(found["id"])},
        {
            "$set": {
                "hold": {"by": "ops", "reason": "Case 12", "at": NOON},
                "character_id": "nemo",
                "character_status": "missing",
                "metadata.created_at": NOON,
                "metadata.last_activity": NOON,
            }
        },
    )
    every.update_one(
        {"_id": ObjectId(other["id"])},
        {"$set": {"metadata.created_at": NOON - DAY, "metadata.last_activity": NOON + DAY}},
    )


DAY = timedelta(days=1)
FINDS_ONE = [
    {"character": "nemo"},
    {"character_status": "missing"},
    {"tag": "Viajes"},
    {"tag": "casa, viajes"},
    {"pinned": "yes"},
    {"held": "yes"},
    {"created_from": "2026-11-24"},
    {"active_to": "2026-11-24"},
    {"created_from": "2026-11-24", "created_to": "2026-11-24"},
]


@pytest.mark.parametrize("user", [{}, {"user": "alice"}], ids=["all users", "a user"])
@pytest.mark.parametrize("query", FINDS_ONE, ids=str)
def test_a_filter_finds_for_one_user_and_for_all(viewer, varied, query, user):
    assert shown(viewer.get(LIST, query | user)) == ["Renta"]
    assert shown(viewer.get(LIST, query | user | {"user": "bob"})) == []


@pytest.mark.parametrize("user", [{}, {"user": "alice"}], ids=["all users", "a user"])
def test_filters_combine(viewer, varied, user):
    everything = {name: value for query in FINDS_ONE for name, value in query.items()} | user

    assert shown(viewer.get(LIST, everything)) == ["Renta"]
    assert shown(viewer.get(LIST, everything | {"held": "no"})) == []
    assert shown(viewer.get(LIST, {"held": "no", "pinned": "no"} | user)) == ["Otra"]


def test_words_of_a_user_are_searched_as_in_the_api(viewer, varied):
    assert shown(viewer.get(LIST, {"user": "alice", "q": "viaj rent"})) == ["Renta"]
    assert shown(viewer.get(LIST, {"user": "alice", "q": "tag:casa is:pinned"})) == ["Renta"]
    assert shown(viewer.get(LIST, {"q": "viaj"})) == []


def test_a_day_of_a_move_to_the_trash_filters(viewer, alice, mongo):
    for title, days in (("Yesterday", 1), ("Earlier", 3)):
        id_ = ObjectId(conversation(alice, "deleted", title=title)["id"])
        mongo["conversations"].update_one({"_id": id_}, {"$set": {"deleted_at": NOON - days * DAY}})

    query = {"user": "alice", "trashed_from": "2026-11-23", "trashed_to": "2026-11-23"}

    assert shown(viewer.get(LIST, query)) == ["Yesterday"]


@pytest.mark.parametrize("user", [{}, {"user": "alice"}], ids=["all users", "a user"])
def test_the_first_and_the_last_day_of_the_calendar_are_valid(viewer, varied, alice, user):
    conversation(alice, "deleted", title="Trashed")
    first, last = "0001-01-01", "9999-12-31"
    times = {"created_from": first, "created_to": last, "active_from": first, "active_to": last}

    assert len(shown(viewer.get(LIST, times | user))) == 3
    for trashed in ({"trashed_from": first}, {"trashed_to": last}):
        assert shown(viewer.get(LIST, times | trashed | user)) == ["Trashed"]
    assert shown(viewer.get(LIST, {"created_to": first} | user)) == []
    assert shown(viewer.get(LIST, {"created_from": last} | user)) == []


def test_a_user_id_in_the_search_box_becomes_a_filter(viewer, varied):
    page = viewer.get(LIST, {"q": "alice"})

    assert 'name="user" value="alice"' in page.content.decode()
    assert "Words in titles and tags of this user" in text(page)


def test_the_address_has_only_the_filters_that_are_set(viewer):
    response = viewer.get(LIST, {"q": "", "user": "alice", "held": "", "o": "title"})

    assert (response.status_code, response.headers["Location"]) == (302, "?user=alice&o=title")


def test_a_page_number_of_the_former_list_leads_to_its_first_page(viewer):
    response = viewer.get(LIST, {"status__exact": "active", "p": "3"})

    assert (response.status_code, response.headers["Location"]) == (302, "?status__exact=active")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"created_from": "yesterday"}, "Enter a valid date."),
        ({"pinned": "maybe"}, "Select a valid choice."),
    ],
)
def test_an_invalid_filter_is_named_and_finds_nothing(viewer, varied, query, said):
    page = viewer.get(LIST, query)

    assert said in text(page)
    assert shown(page) == []


def test_a_search_that_takes_too_long_says_how_to_narrow_it(viewer, varied, monkeypatch):
    monkeypatch.setattr(staff, "BUDGET_S", 1e-9)

    page = viewer.get(LIST, {"tag": "rare"})

    assert "The search was stopped because it took too long." in text(page)
    assert "Narrow the list by a user" in text(page)


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("title", ["A", "b", "C"]),
        ("-title", ["C", "b", "A"]),
        ("created_at", ["C", "A", "b"]),
        ("-created_at", ["b", "A", "C"]),
        ("last_activity", ["A", "b", "C"]),
        ("-last_activity", ["C", "b", "A"]),
    ],
)
def test_columns_sort_the_list_of_a_user(viewer, mongo, order, expected):
    for number, title in enumerate("CAb"):
        moment = NOON + number * DAY
        [stored] = store(mongo, 1, title=title)
        active = NOON - "CbA".index(title) * DAY
        times = {"metadata.created_at": moment, "metadata.last_activity": active}
        mongo["conversations"].update_one({"_id": stored["_id"]}, {"$set": times})

    assert shown(viewer.get(LIST, {"user": "alice", "o": order})) == expected


def test_the_columns_of_a_sort_are_links_with_its_name(viewer, ops, mongo):
    store(mongo, 2)

    for client in (viewer, ops):  # only one has checkboxes
        of_all = client.get(LIST).content.decode()
        of_user = client.get(LIST, {"user": "alice", "o": "-last_activity"}).content.decode()
        assert 'href="?o=title"' in of_all
        assert 'href="?o=created_at"' in of_all
        assert "o=last_activity" not in of_all
        assert 'href="?o=last_activity&amp;user=alice"' in of_user
        assert 'href="?user=alice"' in of_user
