"""The console's pages for failures: one design, two languages, and the id of the request."""

import re
from types import SimpleNamespace

import pytest
from bson import ObjectId
from django.contrib.auth.models import User
from django.test import Client

from conversations.admin import login
from tests.conversations.admin import chromium
from tests.conversations.admin.browser import LIST, PASSWORD, staff, text, url_of
from tests.conversations.admin.chromium import browser, open_list, serving
from tests.failpoints import failing

TITLES = {
    400: {"en": "The request is not valid", "es": "La petición no es válida"},
    403: {"en": "No permission", "es": "Sin permiso"},
    404: {"en": "Page not found", "es": "Página no encontrada"},
    500: {
        "en": "The server failed to handle the request",
        "es": "El servidor no ha podido procesar la petición",
    },
    503: {
        "en": "The database is unavailable",
        "es": "La base de datos no está disponible",
    },
}


def broken(mongo) -> str:
    document = {"_id": ObjectId(), "user_id": "alice", "status": "active", "metadata": "x"}
    mongo["conversations"].insert_one(document, bypass_document_validation=True)
    return url_of(document["_id"])


@pytest.fixture(params=[False, True], ids=["", "DEBUG"])
def debug(request, settings):
    settings.DEBUG = request.param


def failures(client, mongo, headers):
    with failing(errorCode=50):
        unavailable = client.get(LIST, headers=headers)
    return {
        400: client.get(f"{LIST}?user_id__regex=(", headers=headers),
        403: client.get("/admin/auth/user/", headers=headers),
        404: client.get("/admin/nothing/", headers=headers),
        500: client.get(broken(mongo), headers=headers),
        503: unavailable,
    }


@pytest.mark.usefixtures("debug")
@pytest.mark.parametrize("language", ["en", "es"])
def test_each_failure_is_a_page_with_the_id_of_the_request(mongo, viewer, language):
    found = failures(viewer, mongo, {"Accept-Language": language})

    for status, response in found.items():
        page = response.content.decode()
        assert response.status_code == status
        assert f"<h1>{TITLES[status][language]}</h1>" in page
        assert f'lang="{language}"' in page
        assert "console/console.css" in page
        assert "console/favicon.svg" in page
        assert f'<code id="request-id">{response.headers["X-Request-ID"]}</code>' in page
    assert found[503].headers["Retry-After"] == "2"


@pytest.mark.parametrize(
    ("language", "title"),
    [("en", "The form cannot be accepted"), ("es", "No se puede aceptar el formulario")],
)
def test_a_form_without_its_token_gets_a_page(language, title):
    client = Client(enforce_csrf_checks=True)

    response = client.post("/admin/login/", headers={"Accept-Language": language})

    assert response.status_code == 403
    assert title in text(response)
    assert response.headers["X-Request-ID"] in text(response)


@pytest.mark.usefixtures("debug")
def test_the_api_keeps_its_json(alice, mongo):
    with failing(errorCode=50):
        unavailable = alice.get("/api/v1/conversations")

    assert unavailable.json()["error"]["code"] == "DATABASE_UNAVAILABLE"
    assert alice.get("/api/v1/nothing").json()["error"]["code"] == "NOT_FOUND"


@pytest.mark.usefixtures("debug")
def test_a_page_waits_for_an_unavailable_database_only_once(mongo, commands, monkeypatch):
    """So a page responds within the time limit of an operation, MONGODB_TIMEOUT_MS."""
    User.objects.create_superuser("root", password=PASSWORD)
    root = Client(raise_request_exception=False)
    root.force_login(User.objects.get())
    delays = []
    monkeypatch.setattr(login, "time", SimpleNamespace(sleep=delays.append))
    form = {"username": "root", "password": PASSWORD}
    requests = {
        path: lambda path=path: root.get(path)
        for path in [
            *("/admin/", LIST, f"{LIST}{ObjectId()}/change/", "/admin/admin/logentry/"),
            *("/admin/auth/user/", "/admin/auth/user/add/", "/admin/auth/group/"),
            *("/admin/password_change/", "/admin/nothing/"),
        ]
    } | {"login": lambda: Client(raise_request_exception=False).post("/admin/login/", form)}

    with failing(errorCode=50):
        for name, request in requests.items():
            commands.clear()
            status = request().status_code
            sent = [command for command in commands if command["$db"] == mongo.name]
            assert (name, status, len(sent)) == (name, 503, 1)
    assert delays == []


@pytest.mark.parametrize("path", ["/admin/auth/user/?p=101", "/admin/auth/group/?p=x"])
def test_an_address_with_a_page_that_does_not_exist_gets_a_note(mongo, path):
    User.objects.create_superuser("root")
    root = Client()
    root.force_login(User.objects.get())

    response = root.get(path, follow=True)

    assert "The address has a page or filter that does not exist." in text(response)


@chromium.in_chromium
def test_the_id_of_the_request_can_be_copied(mongo, settings):
    settings.ALLOWED_HOSTS = ["127.0.0.1"]
    staff(role="support", name="ana")
    options = {"permissions": ["clipboard-read", "clipboard-write"], "locale": "es"}

    with serving() as url, browser(**options) as page:
        open_list(page, url, "ana")
        response = page.goto(f"{url}/admin/nothing/")
        page.get_by_role("button", name="Copiar").click()
        page.get_by_role("button", name="Copiado").wait_for()
        copied = page.evaluate("navigator.clipboard.readText()")

    assert copied == response.headers["x-request-id"]
    assert re.fullmatch(r"[0-9a-f]{32}", copied)
