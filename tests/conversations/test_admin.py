"""The console: staff find any conversation, and archive, restore or trash many at once."""

import re
from datetime import UTC, datetime, timedelta
from html import unescape

import pytest
from bson import ObjectId
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.contrib.messages import get_messages
from django.test import Client

from conversations import documents
from tests.factories import PATH, client_of, conversation

LIST = "/admin/conversations/conversation/"
PASSWORD = "open sesame"
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def staff(*permissions):
    user = User.objects.create_user("ops", password=PASSWORD, is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client(raise_request_exception=False)
    client.force_login(user)
    return client


@pytest.fixture
def viewer():
    return staff("view_conversation")


@pytest.fixture
def ops():
    return staff("view_conversation", "change_conversation")


def store(mongo, count, **fields):
    """Put conversations into the database, the last the newest."""
    stored = [
        documents.new(
            **{"user_id": "alice", "character_id": "luna", "title": f"Number {n}"} | fields,
            now=NOON + timedelta(seconds=n),
        )
        for n in range(count)
    ]
    mongo["conversations"].insert_many(stored)
    return stored


def shown(response):
    assert response.status_code == 200
    return [row.title for row in response.context["cl"].result_list]


def text(response):
    """What the page says, one space between words."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", response.content.decode())).split())


def select(client, action, *ids, query="", **data):
    form = {"action": action, "index": "0", "_selected_action": [str(id_) for id_ in ids]}
    return client.post(f"{LIST}{query}", form | data)


def report(response):
    assert response.status_code == 302
    [message] = get_messages(response.wsgi_request)
    return str(message)


def statuses(mongo):
    return sorted(document["status"] for document in mongo["conversations"].find())


# Who may come in


def test_the_anonymous_get_the_login_page():
    response = Client().get(LIST, follow=True)

    assert response.redirect_chain == [(f"/admin/login/?next={LIST}", 302)]
    assert "Conversation Service" in text(response)


def test_staff_without_permission_are_refused_with_a_page():
    response = staff().get(LIST)

    assert response.status_code == 403
    assert response.headers["Content-Type"].startswith("text/html")


def test_another_host_is_refused_with_a_page():
    response = Client(headers={"Host": "evil.example"}).get("/admin/login/")

    assert response.status_code == 400
    assert response.headers["Content-Type"].startswith("text/html")


def test_forms_work_with_their_token_and_only_with_it(mongo):
    staff("view_conversation", "change_conversation")
    [stored] = store(mongo, 1)
    browser = Client(enforce_csrf_checks=True)

    def post(path, **form):
        token = browser.cookies["csrftoken"].value
        return browser.post(path, form | {"csrfmiddlewaretoken": token})

    browser.get("/admin/login/")
    login = post("/admin/login/", username="ops", password=PASSWORD, next=LIST)
    form = {"action": "archive", "index": "0", "_selected_action": str(stored["_id"])}
    forged = browser.post(LIST, form)
    honest = post(LIST, **form)

    assert (login.status_code, login.headers["Location"]) == (302, LIST)
    assert forged.status_code == 403
    assert forged.headers["Content-Type"].startswith("text/html")
    assert report(honest) == "Archived: 1 conversation."


def test_an_unknown_address_is_a_page_here_and_json_elsewhere(viewer):
    here, elsewhere = viewer.get("/admin/nothing/"), viewer.get("/nothing")

    assert (here.status_code, elsewhere.status_code) == (404, 404)
    assert here.headers["Content-Type"].startswith("text/html")
    assert elsewhere.json()["error"]["code"] == "NOT_FOUND"


def test_a_bug_is_a_page_too(viewer, mongo):
    broken = {"_id": ObjectId(), "user_id": "alice", "status": "active"}
    mongo["conversations"].insert_one(broken, bypass_document_validation=True)

    response = viewer.get(f"{LIST}{broken['_id']}/change/")

    assert response.status_code == 500
    assert response.headers["Content-Type"].startswith("text/html")


# Finding


@pytest.mark.parametrize("term", ["cafe", "CAFÉ con", "  café  "])
def test_titles_are_found_by_their_beginning_whatever_case_and_accents(viewer, mongo, term):
    store(mongo, 1, title="Café con Luna")
    store(mongo, 1, title="Luna en el café")

    assert shown(viewer.get(LIST, {"q": term})) == ["Café con Luna"]


def test_titles_that_begin_alike_come_in_their_own_order(viewer, mongo):
    for title in ["Noche 2", "noche 1", "Noche 3"]:
        store(mongo, 1, title=title)

    assert shown(viewer.get(LIST, {"q": "noche"})) == ["noche 1", "Noche 2", "Noche 3"]


def test_the_conversations_of_a_user_come_newest_first(viewer, mongo):
    store(mongo, 3)
    store(mongo, 1, user_id="alice2", title="alice")

    assert shown(viewer.get(LIST, {"q": "alice"})) == ["Number 2", "Number 1", "Number 0"]
    assert shown(viewer.get(LIST, {"q": "Alice"})) == ["alice"]


def test_an_id_finds_the_one_conversation(viewer, mongo):
    stored = store(mongo, 2)

    assert shown(viewer.get(LIST, {"q": str(stored[0]["_id"])})) == ["Number 0"]


def test_an_id_that_is_none_of_ours_may_be_that_of_a_user_or_a_title(viewer, mongo):
    user_id, title = str(ObjectId()), str(ObjectId())
    store(mongo, 1, user_id=user_id)
    store(mongo, 1, title=title)

    assert shown(viewer.get(LIST, {"q": user_id})) == ["Number 0"]
    assert shown(viewer.get(LIST, {"q": title})) == [title]
    assert shown(viewer.get(LIST, {"q": str(ObjectId())})) == []


def test_a_state_narrows_the_list(viewer, alice):
    conversation(alice, title="Active")
    conversation(alice, "archived", title="Archived")
    conversation(alice, "deleted", title="Trashed")

    assert shown(viewer.get(LIST)) == ["Trashed", "Archived", "Active"]
    assert shown(viewer.get(LIST, {"status__exact": "deleted"})) == ["Trashed"]


def test_what_was_purged_is_not_there(viewer, alice):
    purged = conversation(alice, "deleted")
    alice.delete(f"{PATH}/{purged['id']}?mode=purge")

    assert shown(viewer.get(LIST)) == []
    assert viewer.get(f"{LIST}{purged['id']}/change/").status_code == 302


def test_other_filters_in_the_address_are_refused(viewer):
    response = viewer.get(LIST, {"title__icontains": "a"})

    assert response.status_code == 400
    assert response.headers["Content-Type"].startswith("text/html")


# What it costs


ABSENT = "a" * 24


@pytest.fixture
def profile(mongo):
    """What was read from the collection of conversations, as the server itself saw it."""
    reads = {"ns": f"{mongo.name}.conversations", "op": {"$ne": "insert"}}
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
    ],
    ids=str,
)
def test_a_list_reads_its_own_rows_by_an_index_and_counts_nothing(viewer, mongo, profile, query):
    store(mongo, 150)
    store(mongo, 150, user_id="bob", title="Another")

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


def test_the_list_leaves_the_bulk_of_a_conversation_where_it_is(viewer, mongo, profile):
    store(mongo, 50, custom={f"key{n}": "x" * 500 for n in range(16)})

    viewer.get(LIST)

    [read] = profile()
    assert read["responseLength"] < 50 * 300


def test_a_conversation_is_read_by_its_id(viewer, mongo, profile):
    [stored] = store(mongo, 1)

    viewer.get(f"{LIST}{stored['_id']}/change/")

    [read] = profile()
    assert (read["planSummary"], read["docsExamined"]) == ("IXSCAN { _id: 1 }", 1)


# Pages


def test_pages_lead_on_for_as_long_as_there_are_more(viewer, mongo):
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


def test_a_page_that_an_action_emptied_leads_to_the_first(viewer, mongo):
    store(mongo, 3)

    assert len(shown(viewer.get(LIST, {"p": "2"}))) == 3


@pytest.mark.parametrize("page", ["0", "-1", "101"])
def test_no_page_is_deeper_than_the_hundredth(viewer, page):
    response = viewer.get(LIST, {"p": page})

    assert (response.status_code, response.headers["Location"]) == (302, f"{LIST}?e=1")


# One conversation


def test_a_conversation_is_shown_in_lines_and_not_in_json(viewer, mongo):
    [stored] = store(
        mongo, 1, title="<b>Café</b>", tags=["casual", "noche"], custom={"origin": "web"}
    )

    page = text(response := viewer.get(f"{LIST}{stored['_id']}/change/"))

    assert "<b>Café</b>" in page
    assert "&lt;b&gt;Café&lt;/b&gt;" in response.content.decode()
    assert "temperature 0.7 max_tokens 2048" in page
    assert "stop_sequences -" in page
    assert "casual, noche" in page
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


# Acting on many


@pytest.mark.parametrize(
    ("action", "before", "status", "said"),
    [
        ("archive", [], "archived", "Archived: 2 conversations."),
        ("restore", ["archived"], "active", "Restored: 2 conversations."),
        ("restore", ["archived", "deleted"], "archived", "Restored: 2 conversations."),
        ("trash", ["archived"], "deleted", "Moved to the trash: 2 conversations."),
    ],
)
def test_an_action_does_what_the_owners_could_do(ops, action, before, status, said):
    owners = [client_of("alice"), client_of("bob")]
    chosen = [(owner, conversation(owner, *before)) for owner in owners]

    response = select(ops, action, *(created["id"] for _, created in chosen))

    assert report(response) == said
    for owner, created in chosen:
        after = owner.get(f"{PATH}/{created['id']}").json()
        assert (after["status"], after["version"]) == (status, created["version"] + 1)
        assert after["metadata"]["last_activity"] == created["metadata"]["last_activity"]


def test_the_report_says_what_was_left_alone_and_why(ops, alice):
    active = conversation(alice)
    archived = conversation(alice, "archived")
    trashed = conversation(alice, "deleted")
    purged = conversation(alice, "deleted")
    alice.delete(f"{PATH}/{purged['id']}?mode=purge")

    response = select(ops, "archive", *(c["id"] for c in (active, archived, trashed, purged)))

    assert report(response) == (
        "Archived: 1 conversation. "
        "Left alone: 1 (no longer in this list). "
        "Left alone: 1 (The state of the conversation does not allow that). "
        "Left alone: 1 (there was nothing to change)."
    )
    assert alice.get(f"{PATH}/{archived['id']}").json() == archived


def test_an_action_keeps_to_the_filter_that_the_list_had(ops, alice):
    archived = conversation(alice, "archived")

    response = select(ops, "trash", archived["id"], query="?status__exact=active")

    assert "Left alone: 1 (no longer in this list)." in report(response)
    assert alice.get(f"{PATH}/{archived['id']}").json() == archived


def test_who_did_what_is_on_record_without_any_words_of_the_user(ops, alice):
    changed = conversation(alice, title="Secret")
    untouched = conversation(alice, "archived", title="Secret too")

    select(ops, "archive", changed["id"], untouched["id"])

    [entry] = LogEntry.objects.all()
    assert (entry.user.username, entry.object_id) == ("ops", changed["id"])
    assert (entry.get_change_message(), entry.object_repr) == ("Archived.", changed["id"])
    assert "Archived." in text(ops.get(f"{LIST}{changed['id']}/history/"))


def test_those_who_may_only_look_cannot_act(viewer, mongo):
    [stored] = store(mongo, 1)

    page = viewer.get(LIST)
    select(viewer, "archive", stored["_id"])

    assert page.context["action_form"] is None
    assert statuses(mongo) == ["active"]


def test_all_that_match_can_be_chosen_across_pages(ops, mongo):
    stored = store(mongo, 60)
    store(mongo, 1, user_id="bob")

    response = select(ops, "archive", stored[0]["_id"], query="?q=alice", select_across="1")

    assert report(response) == "Archived: 60 conversations."
    assert statuses(mongo) == ["active"] + ["archived"] * 60


def test_more_than_a_thousand_at_once_are_refused(ops, mongo):
    stored = store(mongo, 1001)

    response = select(ops, "trash", stored[0]["_id"], select_across="1")

    assert report(response).startswith("More than 1,000 conversations match")
    assert set(statuses(mongo)) == {"active"}


def test_a_selection_of_nonsense_is_refused(ops):
    assert select(ops, "archive", "nonsense").status_code == 400
