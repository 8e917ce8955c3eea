"""Access to the console, and its error pages."""

from bson import ObjectId
from django.test import Client

from tests.conversations.admin.browser import LIST, PASSWORD, report, staff, store, text


def test_anonymous_requests_get_the_login_page():
    response = Client().get(LIST, follow=True)

    assert response.redirect_chain == [(f"/admin/login/?next={LIST}", 302)]
    assert "Conversation Service" in text(response)


def test_staff_without_permission_get_a_403_page():
    response = staff().get(LIST)

    assert response.status_code == 403
    assert response.headers["Content-Type"].startswith("text/html")
    assert "The roles of the account do not allow this." in text(response)
    assert b'href="/admin/"' in response.content


def test_a_404_page_links_back_in_the_language_of_the_browser():
    response = staff().get("/admin/nothing/", headers={"Accept-Language": "es"})

    assert response.status_code == 404
    assert "No hay ninguna página en esta dirección." in text(response)
    assert b'href="/admin/"' in response.content


def test_an_invalid_host_gets_an_error_page():
    response = Client(headers={"Host": "evil.example"}).get("/admin/login/")

    assert response.status_code == 400
    assert response.headers["Content-Type"].startswith("text/html")


def test_forms_require_their_csrf_token(mongo):
    staff(role="operator")
    [stored] = store(mongo, 1)
    browser = Client(enforce_csrf_checks=True)

    def post(path, **form):
        token = browser.cookies["csrftoken"].value
        return browser.post(path, form | {"csrfmiddlewaretoken": token})

    browser.get("/admin/login/")
    login = post("/admin/login/", username="ops", password=PASSWORD, next=LIST)
    form = {"action": "archive", "index": "0", "_selected_action": str(stored["_id"])}
    form["confirmed"] = "yes"
    forged = browser.post(LIST, form)
    honest = post(LIST, **form)

    assert (login.status_code, login.headers["Location"]) == (302, LIST)
    assert forged.status_code == 403
    assert forged.headers["Content-Type"].startswith("text/html")
    assert report(honest) == "Archived: 1 conversation."


def test_an_unknown_address_is_a_page_in_the_console_and_json_elsewhere(viewer):
    here, elsewhere = viewer.get("/admin/nothing/"), viewer.get("/nothing")

    assert (here.status_code, elsewhere.status_code) == (404, 404)
    assert here.headers["Content-Type"].startswith("text/html")
    assert elsewhere.json()["error"]["code"] == "NOT_FOUND"


def test_a_bug_gets_an_error_page(viewer, mongo):
    broken = {"_id": ObjectId(), "user_id": "alice", "status": "active", "metadata": "x"}
    mongo["conversations"].insert_one(broken, bypass_document_validation=True)

    response = viewer.get(f"{LIST}{broken['_id']}/change/")

    assert response.status_code == 500
    assert response.headers["Content-Type"].startswith("text/html")
