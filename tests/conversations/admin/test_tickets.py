"""Tickets of support, solved in a real Chromium from their wording alone."""

from contextlib import contextmanager
from datetime import UTC, timedelta

from django.contrib.auth.models import Group, User

from conversation_service import clock
from conversations.admin import runs
from tests.conversations.admin import chromium
from tests.conversations.admin.browser import confirm, staff, store
from tests.conversations.admin.chromium import browser, open_list, serving
from tests.factories import PATH, client_of

pytestmark = chromium.in_chromium


@contextmanager
def console(settings, role="operator"):
    """Open the list of conversations with the session of an account; no page may complain."""
    settings.ALLOWED_HOSTS = ["127.0.0.1"]
    user = User.objects.create_user(role, is_staff=True)
    user.groups.add(Group.objects.get(name=role))
    with serving() as url, browser(viewport={"width": 1280, "height": 900}) as page:
        open_list(page, url, role)
        yield page


def find(page, text):
    page.get_by_label("Search").fill(text)
    page.get_by_role("button", name="Find").click()


def test_police_request_to_hold_all_conversations_of_a_user(settings, mongo, monkeypatch):
    monkeypatch.setattr(runs, "BATCH", 20)
    monkeypatch.setattr(runs, "STEP_S", 0.01)
    store(mongo, 90, user_id="user-x")
    store(mongo, 1, user_id="other")

    with console(settings) as page:
        find(page, "user-x")
        page.get_by_role("link", name="Place a legal hold").click()
        page.get_by_text("Place a legal hold: 90 conversations").wait_for()
        page.get_by_label("Reason").fill("Police request 12/2026")
        page.get_by_role("button", name="Place a legal hold").click()
        page.get_by_text("Legal hold placed: 90 conversations.").wait_for()

    held = {"hold.reason": "Police request 12/2026"}
    assert mongo["conversations"].count_documents(held | {"user_id": "user-x"}) == 90
    assert mongo["conversations"].count_documents(held) == 90


def test_a_user_says_that_a_chat_about_taxes_disappeared(settings, mongo):
    store(mongo, 60, user_id="luna-7")
    store(mongo, 1, user_id="luna-7", title="My taxes 2025", status="deleted")
    store(mongo, 1, user_id="other", title="Other taxes")

    with console(settings, "support") as page:
        find(page, "luna-7")
        page.get_by_text("Words in titles and tags of this user").wait_for()
        find(page, "taxes")
        page.get_by_role("link", name="My taxes 2025").click()
        page.get_by_role("link", name="Restore").click()
        page.get_by_text("Restore from the trash").wait_for()
        page.get_by_role("button", name="Restore").click()
        page.get_by_text("Restored.", exact=True).first.wait_for()

    assert mongo["conversations"].count_documents({"status": "deleted"}) == 0


def test_which_conversations_with_a_character_are_unverified(settings, mongo):
    store(mongo, 3, character_id="nemo")
    store(mongo, 2, character_id="luna")
    mongo["conversations"].update_one(
        {"character_id": "nemo"}, {"$set": {"character_status": "verified"}}
    )

    with console(settings, "support") as page:
        page.get_by_text("More filters").click()
        page.get_by_label("Character id").fill("nemo")
        page.get_by_label("Character status").select_option(label="unverified")
        page.get_by_role("button", name="Find").click()
        page.wait_for_url("**character=nemo**")
        titles = page.locator(".c-title").all_inner_texts()

    assert titles == ["Number 2", "Number 1"]


def test_why_is_this_conversation_unverified(settings, mongo):
    [stored] = store(mongo, 1, character_id="nemo")

    with console(settings, "support") as page:
        find(page, f"/api/v1/conversations/{stored['_id']}")
        page.get_by_role("link", name="Number 0").click()
        page.get_by_text("The Characters service has not confirmed the character yet").wait_for()


def test_undo_the_archive_of_these_five(settings, mongo):
    stored = store(mongo, 7, status="archived")

    with console(settings) as page:
        find(page, ", ".join(str(row["_id"]) for row in stored[:5]))
        page.wait_for_url("**q=**")
        page.locator("#action-toggle").check()
        page.locator("select[name=action]").select_option("restore")
        page.get_by_role("button", name="Run").click()
        page.get_by_text("Restore: 5 conversations").wait_for()
        page.get_by_role("button", name="Restore").click()
        page.get_by_text("Restored: 5 conversations.").wait_for()

    assert mongo["conversations"].count_documents({"status": "archived"}) == 2


def test_who_moved_this_to_the_trash(settings, mongo):
    [stored] = store(mongo, 1)
    confirm(staff(role="operator", name="eva"), "trash", stored["_id"])

    with console(settings, "support") as page:
        find(page, str(stored["_id"]))
        page.get_by_role("link", name="Number 0").click()
        said = page.locator("section", has_text="Actions by staff").locator("li").inner_text()

    assert "eva" in said
    assert "Moved to the trash." in said


def test_a_chat_with_nova_from_last_week_vanished(settings, mongo):
    [stored] = store(mongo, 1, user_id="ana", character_id="nova")
    client_of("ana").delete(f"{PATH}/{stored['_id']}")
    client_of("ana").delete(f"{PATH}/{stored['_id']}?mode=purge")

    with console(settings, "support") as page:
        find(page, "ana")
        page.get_by_text("More filters").click()
        page.get_by_label("Character id").fill("nova")
        page.get_by_role("button", name="Find").click()
        page.get_by_text("1 purged conversation of this user").wait_for()
        page.get_by_role("link", name=str(stored["_id"])).click()
        page.get_by_text("cannot be restored").wait_for()
        page.get_by_text("its user").wait_for()


def test_restore_everything_that_a_user_deleted_yesterday(settings, mongo):
    yesterday = clock.now() - timedelta(days=1)
    store(mongo, 3, user_id="user-x", status="deleted", deleted_at=yesterday)
    earlier = yesterday - timedelta(days=5)
    store(mongo, 2, user_id="user-x", status="deleted", deleted_at=earlier)

    with console(settings) as page:
        find(page, "user-x")
        page.get_by_text("More filters").click()
        page.get_by_label("Moved to the trash from").fill(f"{yesterday:%Y-%m-%d}")
        page.get_by_label("Moved to the trash to").fill(f"{yesterday:%Y-%m-%d}")
        page.get_by_role("button", name="Find").click()
        page.wait_for_url("**trashed_from**")
        page.get_by_role("link", name="Restore", exact=True).click()
        page.get_by_text("Restore: 3 conversations").wait_for()
        page.get_by_role("button", name="Restore").click()
        page.get_by_text("Restored: 3 conversations.").wait_for()

    left = mongo["conversations"].find({"status": "deleted"})
    assert {row["deleted_at"].replace(tzinfo=UTC) for row in left} == {earlier}


def test_an_archived_selection_is_undone_and_an_id_is_copied(settings, mongo):
    stored = store(mongo, 3)

    with console(settings) as page:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        run = page.get_by_role("button", name="Run")
        run_at_first = run.is_disabled()
        page.locator(".action-select").first.check()
        page.locator("select[name=action]").select_option("archive")
        run.click()
        page.get_by_role("button", name="Archive").click()
        page.get_by_role("button", name="Undo").click()
        page.get_by_text("Undone: 1 conversation.").wait_for()
        page.get_by_role("link", name="Number 2").click()
        page.get_by_role("button", name="Copy").first.click()
        page.get_by_text("Copied").wait_for()
        copied = page.evaluate("navigator.clipboard.readText()")

    assert run_at_first
    assert copied == str(stored[2]["_id"])
    assert {row["status"] for row in mongo["conversations"].find()} == {"active"}
