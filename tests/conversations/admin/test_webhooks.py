"""Webhook endpoints in the console."""

import re

import pytest
from bson import Int64, ObjectId
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, User

from conversation_service import clock
from conversations.events import log
from conversations.webhooks import endpoints
from tests.conversations.admin import chromium
from tests.conversations.admin.browser import PASSWORD, report, staff, text
from tests.conversations.admin.chromium import browser, serving
from tests.conversations.admin.test_in_a_browser import faults_of

WEBHOOKS = "/admin/conversations/webhookendpoint/"
URL = "https://hooks.example.org/in"
FORM = {"url": URL, "description": "Search", "format": "standard", "in_flight": "8"}
SECRET = re.compile(r"whsec_[A-Za-z0-9+/=]+")


@pytest.fixture
def webhook(mongo):
    endpoint, _secret = endpoints.create({"url": URL}, created_by="staff:ana")
    return endpoint["_id"]


def page_of(id_, *step):
    return "/".join([f"{WEBHOOKS}{id_}", *(step or ["change"]), ""])


def fail_delivery(mongo, webhook, **fields):
    attempt = {"at": clock.now(), "status": None, "reason": "timeout", "duration_ms": 15_000}
    mongo["webhook_deliveries"].insert_one(
        {
            "_id": f"{webhook}:e1",
            "endpoint_id": webhook,
            "event_id": "e1",
            "conversation_id": None,
            "format": "standard",
            "type": "conversation.updated",
            "body": b"secret text",
            "tries": 1,
            "is_redelivery": False,
            "state": "failed",
            "seq": Int64(1),
            "attempts": [attempt, attempt | {"status": 503, "reason": None}],
            "next_at": None,
            "created_at": clock.now(),
            "expires_at": None,
            **fields,
        }
    )


def test_an_endpoint_is_added_and_its_secret_is_shown_once(ops):
    added = ops.post(f"{WEBHOOKS}add/", FORM | {"types": ["conversation.created"]})

    [endpoint] = endpoints.list_all()
    assert SECRET.findall(added.content.decode())[0] == endpoint["secrets"][0]["secret"]
    assert "no-store" in added.headers["Cache-Control"]
    assert (endpoint["created_by"], endpoint["types"]) == ("staff:ops", ["conversation.created"])
    for path in (WEBHOOKS, page_of(endpoint["_id"]), page_of(endpoint["_id"], "edit")):
        page = ops.get(path)
        assert page.status_code == 200
        assert not SECRET.search(page.content.decode())
    assert LogEntry.objects.get().change_message == "Added"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"url": "http://example.org/"}, "Use https."),
        ({"url": "https://10.0.0.1/"}, "public addresses only"),
        ({"url": ""}, "This field is required."),
        ({"in_flight": "33"}, "less than or equal to 32"),
        ({"types": ["conversation.exploded"]}, "conversation.exploded is not one of"),
    ],
)
def test_a_form_has_the_rules_of_the_api(ops, webhook, change, message):
    for path in (f"{WEBHOOKS}add/", page_of(webhook, "edit")):
        assert message in text(ops.post(path, FORM | change))

    [endpoint] = endpoints.list_all()
    assert (endpoint["url"], endpoint["description"]) == (URL, "")


def test_an_edit_is_stored_and_recorded(ops, webhook):
    response = ops.post(page_of(webhook, "edit"), FORM)

    assert report(response) == "Edited."
    assert endpoints.get(webhook)["description"] == "Search"
    entry = LogEntry.objects.get()
    assert (entry.object_id, entry.change_message) == (webhook, "Edited")


def test_actions_need_a_confirmation(ops, webhook):
    shown = text(ops.get(page_of(webhook, "act", "disable")))
    assert "It keeps its position in the log." in shown
    assert endpoints.get(webhook)["state"] == "enabled"

    assert report(ops.post(page_of(webhook, "act", "test"))) == "Sent a test event."
    assert "webhook.test" in text(ops.get(page_of(webhook, "change")))
    assert report(ops.post(page_of(webhook, "act", "disable"))) == "Disabled."
    assert report(ops.post(page_of(webhook, "act", "test"))) == "There was nothing to change."
    assert "disabled: by staff or a service" in text(ops.get(WEBHOOKS))
    assert report(ops.post(page_of(webhook, "act", "disable"))) == "There was nothing to change."
    assert report(ops.post(page_of(webhook, "act", "resume"))) == "Enabled from its position."
    assert endpoints.get(webhook)["cursor"] == 0
    ops.post(page_of(webhook, "act", "disable"))
    assert report(ops.post(page_of(webhook, "act", "restart"))) == "Enabled for new events."
    assert endpoints.get(webhook)["cursor"] == log.newest_seq()
    rotated = ops.post(page_of(webhook, "act", "rotate")).content.decode()
    assert SECRET.findall(rotated)[0] == endpoints.get(webhook)["secrets"][0]["secret"]
    assert report(ops.post(page_of(webhook, "act", "delete"))) == "Deleted."
    assert endpoints.list_all() == []
    assert LogEntry.objects.count() == 7
    assert b"whsec_" not in str(LogEntry.objects.values_list("change_message")).encode()


def test_an_event_is_delivered_again_by_one_click(ops, webhook, mongo):
    fail_delivery(mongo, webhook)

    page = ops.get(page_of(webhook))
    assert "no reply in time" in text(page)
    assert "status 503" in text(page)
    assert b"secret text" not in page.content
    assert report(ops.post(page_of(webhook, "redeliver"), {"event": "e1"})) == (
        "The event is delivered again."
    )
    assert "to be sent again" in text(ops.get(page_of(webhook)))
    assert report(ops.post(page_of(webhook, "redeliver"), {"event": "e2"})) == "Event not found"


def test_a_waiting_delivery_has_no_button_and_links_to_its_conversation(ops, webhook, mongo):
    id_ = ObjectId()
    fail_delivery(mongo, webhook, state="waiting", conversation_id=id_)

    page = ops.get(page_of(webhook)).content.decode()

    assert f'href="/admin/conversations/conversation/{id_}/change/"' in page
    assert "Deliver again" not in page


def test_an_endpoint_that_fails_is_called_so(ops, webhook, mongo):
    mongo["webhook_endpoints"].update_one({}, {"$set": {"failing_since": clock.now()}})

    for path in (WEBHOOKS, page_of(webhook)):
        assert "enabled, failing" in text(ops.get(path))


def test_an_auditor_sees_endpoints_and_cannot_manage_them(webhook, mongo):
    fail_delivery(mongo, webhook)
    auditor = staff(role="auditor")

    page = auditor.get(page_of(webhook)).content.decode()

    assert URL in page
    assert "/act/" not in page
    assert "/redeliver/" not in page
    assert "/add/" not in auditor.get(WEBHOOKS).content.decode()


def test_a_role_that_manages_webhooks_must_see_them(mongo):
    User.objects.create_superuser("root", password=PASSWORD)
    client = staff(name="other")
    client.force_login(User.objects.get(username="root"))
    role = Group.objects.create(name="hooks")
    manage = Group.objects.get(name="operator").permissions.get(codename="manage_webhookendpoint")

    path = f"/admin/auth/group/{role.pk}/change/"
    response = client.post(path, {"name": "hooks", "permissions": [str(manage.pk)]})

    assert "also requires" in text(response)


@pytest.mark.parametrize("path", ["change", "edit", "act/disable", "act/unknown"])
def test_an_absent_endpoint_is_a_404(ops, webhook, path):
    absent = f"we_{'0' * 24}"

    assert ops.get(page_of(absent, path)).status_code == 404
    assert ops.get(page_of(webhook, "act", "unknown")).status_code == 404


@chromium.in_chromium
def test_staff_manage_a_webhook_in_a_browser(mongo, settings):
    settings.ALLOWED_HOSTS = ["127.0.0.1"]
    User.objects.create_superuser("root", password=PASSWORD)

    with serving() as url, browser(viewport={"width": 1280, "height": 900}) as page:
        chromium.open_list(page, url, "root")
        page.goto(f"{url}/admin/")
        page.get_by_role("link", name="Webhooks").click()
        faults = faults_of(page)
        page.get_by_role("link", name="Add a webhook").click()
        faults |= faults_of(page)
        page.get_by_label("URL").fill("http://example.org/")
        page.get_by_label("conversation.purged").check()
        page.get_by_role("button", name="Save").click()
        page.get_by_text("Use https.").wait_for()
        page.get_by_label("URL").fill(URL)
        page.get_by_role("button", name="Save").click()
        secret = page.locator("#secret").inner_text()
        faults |= faults_of(page)
        page.get_by_role("link", name="Continue").click()
        page.get_by_role("link", name="Disable").click()
        faults |= faults_of(page)
        page.get_by_role("button", name="Disable").click()
        page.get_by_text("disabled: by staff or a service").wait_for()
        endpoint = mongo["webhook_endpoints"].find_one()
        fail_delivery(mongo, endpoint["_id"])
        page.reload()
        faults |= faults_of(page)
        page.get_by_role("button", name="Deliver e1 again").click()
        page.get_by_text("to be sent again").wait_for()
        page.set_viewport_size({"width": 390, "height": 900})
        width = page.evaluate("document.documentElement.scrollWidth")

    assert faults == set()
    assert width == 390
    assert endpoints.live_secrets(endpoint) == [secret]
    assert endpoint["types"] == ["conversation.purged"]


@chromium.in_chromium
def test_staff_enable_edit_rotate_and_delete_a_webhook_in_a_browser(mongo, settings, webhook):
    settings.ALLOWED_HOSTS = ["127.0.0.1"]
    User.objects.create_superuser("root", password=PASSWORD)
    [first] = endpoints.live_secrets(endpoints.disable(webhook, endpoints.STAFF, by="staff:ana"))

    with serving() as url, browser(viewport={"width": 390, "height": 900}) as page:
        chromium.open_list(page, url, "root")
        page.goto(f"{url}{page_of(webhook)}")
        page.get_by_role("link", name="Enable and send").click()
        page.get_by_role("button", name="Enable and send").click()
        page.get_by_text("Enabled from its position.").wait_for()
        page.get_by_role("link", name="Send a test event").click()
        page.get_by_role("button", name="Send a test event").click()
        page.get_by_text("Sent a test event.").wait_for()
        page.get_by_text("webhook.test").wait_for()
        page.get_by_role("link", name="Edit").click()
        page.get_by_label("Description").fill("Search")
        page.get_by_role("button", name="Save").click()
        page.get_by_text("Edited.").wait_for()
        edited = mongo["webhook_endpoints"].find_one()
        page.get_by_role("link", name="Replace the secret").click()
        page.get_by_role("button", name="Replace the secret").click()
        second = page.locator("#secret").inner_text()
        rotated = mongo["webhook_endpoints"].find_one()
        page.get_by_role("link", name="Continue").click()
        page.get_by_role("link", name="Delete").click()
        page.get_by_role("button", name="Delete").click()
        page.get_by_text("Deleted.").wait_for()

    assert (edited["state"], edited["description"]) == ("enabled", "Search")
    assert endpoints.live_secrets(rotated) == [second, first]
    assert endpoints.list_all() == []
