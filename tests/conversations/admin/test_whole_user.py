"""Staff act on all conversations of a user, in steps."""

import json
from urllib.parse import parse_qs, urlsplit

import pytest
from bson import ObjectId
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.contrib.messages import get_messages
from django.core import signing

from conversations.admin import actions, runs
from conversations.queries import staff as queries
from tests.conversations.admin.browser import (
    LIST,
    NOON,
    report,
    select,
    shown,
    staff,
    statuses,
    store,
    text,
)
from tests.conversations.admin.test_acting_on_many import undo
from tests.factories import PATH, client_of, conversation
from tests.failpoints import failing

COUNT = 250


def start(client, action, query="user=alice", **data):
    response = client.post(f"{LIST}all/{action}/?{query}", data)
    assert response.status_code == 302
    return response.headers["Location"]


def token(address):
    return parse_qs(urlsplit(address).query)["run"][0]


def finish(client, address):
    """Request each step, as the page does; return the last response and the number of steps."""
    steps = 0
    while "/run/" in address:
        assert client.get(address).status_code == 200
        response = client.post(address)
        address, steps = response.headers["Location"], steps + 1
    return response, steps


@pytest.fixture
def small_steps(monkeypatch):
    monkeypatch.setattr(runs, "BATCH", 50)
    monkeypatch.setattr(runs, "STEP_S", 0.01)


@pytest.mark.parametrize(
    ("action", "before", "after", "said"),
    [
        ("archive", "active", "archived", "Archived: 250 conversations."),
        ("trash", "active", "deleted", "Moved to the trash: 250 conversations."),
        ("restore", "deleted", "active", "Restored: 250 conversations."),
    ],
)
def test_an_action_changes_all_conversations_of_the_user(
    ops, mongo, small_steps, action, before, after, said
):
    store(mongo, COUNT, status=before)
    store(mongo, 2, user_id="bob", status=before)

    response, steps = finish(ops, start(ops, action))

    assert report(response) == said
    assert response.headers["Location"] == f"{LIST}?user=alice"
    assert steps > 1
    every = mongo["conversations"]
    assert every.count_documents({"user_id": "alice", "status": after}) == COUNT
    assert every.count_documents({"user_id": "bob", "status": before}) == 2


def test_a_hold_and_its_release_cover_every_state(ops, mongo, small_steps):
    store(mongo, COUNT)
    store(mongo, 10, status="deleted")
    held = {"hold.reason": "Case 12"}

    placed, _steps = finish(ops, start(ops, "hold", reason="Case 12"))
    count = mongo["conversations"].count_documents(held)
    released, _steps = finish(ops, start(ops, "release", reason="Case closed"))

    assert report(placed) == "Legal hold placed: 260 conversations."
    assert count == 260
    assert report(released) == "Legal hold released: 260 conversations."
    assert mongo["conversations"].count_documents({"hold": None}) == 260


def test_a_run_continues_at_its_address_and_a_repeated_run_too(ops, mongo, small_steps):
    store(mongo, COUNT)
    address = start(ops, "trash")
    address = ops.post(address).headers["Location"]
    left = statuses(mongo).count("active")
    assert 0 < left < COUNT

    page = text(ops.get(address))
    repeated, _steps = finish(ops, start(ops, "trash"))

    assert f"{COUNT - left} of {COUNT}" in page
    assert report(repeated) == f"Moved to the trash: {left} conversations."
    assert set(statuses(mongo)) == {"deleted"}
    resumed, _steps = finish(ops, address)
    assert report(resumed) == f"Moved to the trash: {COUNT - left} conversations."


def test_a_repeated_restore_does_not_restore_from_the_archive(ops):
    alice = client_of("alice")
    trashed = conversation(alice, "archived", "deleted")
    archived = conversation(alice, "archived")

    for _run in range(2):
        finish(ops, start(ops, "restore"))

    for created in (trashed, archived):
        assert alice.get(f"{PATH}/{created['id']}").json()["status"] == "archived"
    finish(ops, start(ops, "restore", "user=alice&status__exact=archived"))
    assert alice.get(f"{PATH}/{archived['id']}").json()["status"] == "active"


def test_the_filters_of_the_list_apply(ops, mongo):
    store(mongo, 3, tags=["taxes"])
    store(mongo, 2)

    response, _steps = finish(ops, start(ops, "archive", "user=alice&tag=taxes"))

    assert report(response) == "Archived: 3 conversations."
    assert statuses(mongo) == ["active"] * 2 + ["archived"] * 3


def test_the_confirmation_shows_number_ids_and_titles(ops, mongo):
    stored = store(mongo, 12)
    store(mongo, 1, status="deleted")

    page = text(ops.get(f"{LIST}all/trash/?user=alice"))
    nothing = text(ops.get(f"{LIST}all/release/?user=alice"))

    assert "Move to the trash: 12 conversations" in page
    assert "alice · Active, In the archive" in page
    for row in stored[2:]:
        assert f"{row['title']} {row['_id']}" in page
    assert str(stored[1]["_id"]) not in page
    assert "There is nothing to change." in nothing


def test_a_hold_needs_a_reason(ops, mongo):
    store(mongo, 1)

    page = ops.post(f"{LIST}all/hold/?user=alice", {"reason": " "})

    assert "A reason is required. Nothing was changed." in text(page)


def test_each_conversation_and_the_run_are_logged(ops, mongo, small_steps):
    stored = store(mongo, COUNT)

    finish(ops, start(ops, "hold", reason="Case 12"))

    of_ids = LogEntry.objects.exclude(object_id="alice")
    assert {entry.object_id for entry in of_ids} == {str(row["_id"]) for row in stored}
    assert {entry.change_message for entry in of_ids} == {"Legal hold placed: Case 12"}
    [of_run] = LogEntry.objects.filter(object_id="alice")
    assert of_run.change_message == (
        "All in a list (user=alice): Legal hold placed. Changed: 250. Unchanged: 0. Case 12"
    )


@pytest.mark.parametrize(
    ("action", "query"), [("hold", ""), ("archive", ""), ("trash", ""), ("restore", "deleted")]
)
def test_a_run_can_be_undone_for_exactly_the_changed_conversations(
    ops, mongo, small_steps, action, query
):
    store(mongo, COUNT, status=query or "active")
    store(mongo, 2, status={"archive": "archived", "trash": "deleted"}.get(action, "archived"))
    for row in mongo["conversations"].find({}, limit=2):
        hold = {"by": "root", "reason": "Other case", "at": NOON}
        mongo["conversations"].update_one({"_id": row["_id"]}, {"$set": {"hold": hold}})
    before = statuses(mongo), mongo["conversations"].count_documents({"hold": None})

    page = ops.get(f"{LIST}all/{action}/?user=alice")
    done, steps = finish(ops, start(ops, action, reason="Case 12"))
    changed = statuses(mongo), mongo["conversations"].count_documents({"hold": None})
    undone = undo(ops, done)

    assert "cannot be undone" not in text(page)
    assert steps > 1
    assert changed != before
    assert report(undone).startswith("Undone: 2")
    assert (statuses(mongo), mongo["conversations"].count_documents({"hold": None})) == before


def test_a_run_that_cannot_be_undone_says_so_before(ops, mongo, monkeypatch):
    monkeypatch.setattr(actions, "LIMIT", 1)
    store(mongo, 2)
    message = "This cannot be undone: more than 1 conversations."

    page = text(ops.get(f"{LIST}all/hold/?user=alice"))
    held, _steps = finish(ops, start(ops, "hold", reason="Case 12"))
    release = text(ops.get(f"{LIST}all/release/?user=alice"))
    released, _steps = finish(ops, start(ops, "release", reason="Case 12"))

    assert message in page
    assert "This cannot be undone: the time and the reason of each hold are deleted." in release
    for response in (held, released):
        *_, said = get_messages(response.wsgi_request)
        assert "<button" not in str(said)


def test_a_run_in_another_session_offers_no_undo_of_a_part(ops, mongo, small_steps):
    store(mongo, COUNT)
    address = ops.post(start(ops, "archive")).headers["Location"]
    ops.force_login(User.objects.get(username="ops"))
    session = ops.session
    del session["undo"]
    session.save()

    done, _steps = finish(ops, address)

    *_, said = get_messages(done.wsgi_request)
    assert "<button" not in str(said)


def test_the_log_is_in_the_language_of_its_reader(ops, mongo):
    stored = store(mongo, 3)
    finish(ops, start(ops, "hold", reason="Archive: a (case)"))
    finish(ops, start(ops, "archive"))
    ops.post(f"{LIST}all/export/?user=alice")
    select(ops, "export_csv", stored[0]["_id"])
    select(ops, "export_ndjson", stored[0]["_id"], query="?user=alice")
    auditor = staff(role="auditor", name="auditor")

    english, spanish = (
        text(auditor.get("/admin/admin/logentry/", headers={"Accept-Language": language}))
        for language in ("en", "es")
    )

    for words in (
        "All in a list (user=alice): Legal hold placed. Changed: 3. Unchanged: 0. "
        "Archive: a (case)",
        "All in a list (user=alice): Archived. Changed: 3. Unchanged: 0.",
        "Exported everything: 3 conversations.",
        "Exported 1 as CSV (no filter).",
        "Exported 1 as NDJSON (user=alice).",
    ):
        assert words in english
        assert words not in spanish
    for words in (
        "Todas las de una lista (user=alice): Retención legal iniciada. Cambiadas: 3. "
        "Sin cambios: 0. Archive: a (case)",
        "Todas las de una lista (user=alice): Archivado. Cambiadas: 3. Sin cambios: 0.",
        "Se exportó todo: 3 conversaciones.",
        "Exportadas 1 en CSV (sin filtro).",
        "Exportadas 1 en NDJSON (user=alice).",
    ):
        assert words in spanish


def test_the_log_links_an_action_on_a_user_to_the_list(ops, mongo):
    store(mongo, 1)
    finish(ops, start(ops, "archive"))
    auditor = staff(role="auditor", name="auditor")

    page = auditor.get("/admin/admin/logentry/", {"q": "alice"})

    assert f'href="{LIST}?user=alice"' in page.content.decode()


def test_a_failure_leaves_a_run_that_can_continue(ops, mongo, small_steps):
    store(mongo, COUNT)
    address = start(ops, "archive")

    with failing(commands=["update"], errorCode=11600):
        failed = ops.post(address)
    finish(ops, address)

    assert failed.status_code == 503
    assert set(statuses(mongo)) == {"archived"}


def test_a_search_that_takes_too_long_changes_nothing(ops, mongo, monkeypatch):
    [stored, _other] = store(mongo, 2)
    monkeypatch.setattr(queries, "BUDGET_S", 1e-9)

    responses = [
        ops.post(f"{LIST}all/trash/?user=alice"),
        ops.get(f"{LIST}all/export/?user=alice"),
        select(ops, "trash", stored["_id"], query="?tag=a", select_across="1", confirmed="yes"),
    ]

    for response in responses:
        assert report(response) == "The search was stopped because it took too long."
    assert statuses(mongo) == ["active"] * 2


def test_a_step_with_a_slow_query_leaves_a_run_that_can_continue(ops, mongo, monkeypatch):
    store(mongo, 2)
    address = start(ops, "archive")

    with monkeypatch.context() as patch:
        patch.setattr(queries, "BUDGET_S", 1e-9)
        failed = ops.post(address)
    finish(ops, address)

    assert failed.status_code == 503
    assert statuses(mongo) == ["archived"] * 2


# Access


def test_another_account_cannot_continue_a_run(ops, mongo):
    store(mongo, 1)
    address = start(ops, "archive")

    other = staff(role="operator", name="other")

    for response in (other.post(address), other.get(f"{LIST}run/?run=nonsense")):
        assert report(response).startswith("This run belongs to another account")
    assert statuses(mongo) == ["active"]


@pytest.mark.parametrize(
    ("changes", "is_read"),
    [
        ({"added_later": 1}, True),
        ({"id": None, "after": None, "unchanged": None}, True),
        ({"query": None}, False),
        ({"action": "merge"}, False),
        ({"action": None}, False),
    ],
)
def test_a_run_of_another_release_is_read_as_far_as_its_fields_allow(ops, mongo, changes, is_read):
    store(mongo, 1)
    state = signing.loads(token(start(ops, "archive")), salt="conversations.admin.runs") | changes
    state = {name: value for name, value in state.items() if value is not None}
    address = f"{LIST}run/?run={signing.dumps(state, salt='conversations.admin.runs')}"

    if is_read:
        finish(ops, address)
        assert statuses(mongo) == ["archived"]
    else:
        assert "was started by another release" in report(ops.get(address))
        assert statuses(mongo) == ["active"]


def test_a_run_ends_when_the_role_is_removed(ops, mongo):
    store(mongo, 1)
    address = start(ops, "archive")
    state = runs.Run(**signing.loads(token(address), salt="conversations.admin.runs"))
    support = staff(role="support", name="support")
    state.staff_id = support.session["_auth_user_id"]

    assert support.post(f"{LIST}run/?run={state.encode()}").status_code == 403
    assert support.post(f"{LIST}all/archive/?user=alice").status_code == 403
    assert support.post(f"{LIST}all/export/?user=alice").status_code == 403
    assert statuses(mongo) == ["active"]


@pytest.mark.parametrize("query", ["", "user=", "status__exact=active", "user=alice&pinned=maybe"])
@pytest.mark.parametrize("step", ["trash", "export"])
def test_an_action_on_all_needs_a_valid_list_of_one_user(ops, mongo, step, query):
    store(mongo, 1)

    assert ops.post(f"{LIST}all/{step}/?{query}").status_code == 400
    assert statuses(mongo) == ["active"]


def test_only_the_list_of_a_user_offers_it_and_only_to_the_role(ops, viewer, mongo):
    store(mongo, 1)

    of_user = ops.get(LIST, {"user": "alice", "tag": "", "status__exact": "active"}, follow=True)
    of_all, without_role = ops.get(LIST), viewer.get(LIST, {"user": "alice"})

    assert f"{LIST}all/hold/?status__exact=active&amp;user=alice" in of_user.content.decode()
    assert shown(of_all) == shown(without_role)
    for page in (of_all, without_role):
        assert "/all/" not in page.content.decode()


def test_select_all_in_the_list_of_a_user_leads_to_its_run(ops, mongo):
    stored = store(mongo, 60)

    response = select(ops, "trash", stored[0]["_id"], query="?user=alice", select_across="1")

    assert response.headers["Location"] == f"{LIST}all/trash/?user=alice"


# Export


def test_an_export_has_everything_that_the_api_exports(ops, alice):
    created = conversation(alice, title="Before")
    alice.patch(f"{PATH}/{created['id']}", {"title": "After"})
    conversation(alice, "deleted")
    conversation(client_of("bob"))
    of_user = b"".join(alice.get(f"{PATH}/export").streaming_content)

    response = ops.post(f"{LIST}all/export/?user=alice")

    lines = b"".join(response.streaming_content)
    assert lines == of_user
    assert json.loads(lines.splitlines()[-1]) == {"object": "end", "count": 2}
    assert response.headers["Content-Disposition"] == 'attachment; filename="conversations.ndjson"'
    [entry] = LogEntry.objects.all()
    assert entry.object_id == "alice"
    assert entry.change_message == "Exported everything: 2 conversations."


def test_an_export_requires_a_confirmation(ops, alice):
    conversation(alice)

    page = text(ops.get(f"{LIST}all/export/?user=alice"))

    assert "Export everything: 1 conversation" in page
    assert LogEntry.objects.count() == 0


def test_a_run_has_the_hold_of_each_conversation_of_another_user_untouched(ops, mongo):
    [kept] = store(mongo, 1, user_id="bob")
    hold = {"by": "root", "reason": "Other case", "at": NOON}
    mongo["conversations"].update_one({"_id": kept["_id"]}, {"$set": {"hold": hold}})
    store(mongo, 1)

    finish(ops, start(ops, "release", reason="Closed"))

    assert mongo["conversations"].find_one({"_id": ObjectId(kept["_id"])})["hold"]["by"] == "root"
