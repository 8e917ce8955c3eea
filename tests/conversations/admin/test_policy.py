"""The content security policy, the languages and unused addresses of the console."""

import re
from urllib.parse import quote

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client

from tests.conversations.admin.browser import LIST, store, text, url_of
from tests.factories import PATH, client_of

POLICY = "Content-Security-Policy"


@pytest.fixture
def root(mongo):
    User.objects.create_superuser("root")
    client = Client(raise_request_exception=False)
    client.force_login(User.objects.get())
    return client


def policy(response):
    parts = (part.strip().split(" ") for part in response.headers[POLICY].split(";"))
    return {name: values for name, *values in parts}


@pytest.mark.parametrize("path", ["/admin/", "/admin/login/", LIST, "/admin/nothing/"])
def test_the_console_allows_only_its_own_scripts(viewer, path):
    allowed = policy(viewer.get(path))

    assert allowed["script-src"] == ["'self'"]
    assert allowed["default-src"] == ["'none'"]
    assert allowed["frame-ancestors"] == ["'none'"]
    assert allowed["style-src"] == ["'self'"]


@pytest.mark.parametrize("path", ["/api/docs", "/api/redoc"])
def test_documentation_pages_allow_no_inline_script(path):
    response = Client().get(path)

    assert policy(response)["script-src"] == ["'self'"]
    assert not re.search(rb"<script(?![^>]*src=)", response.content)


def test_no_page_has_an_inline_script_or_style(root, mongo):
    [stored] = store(mongo, 1)
    for path in ("/admin/", LIST, url_of(stored["_id"]), "/admin/auth/user/add/", "/admin/x/"):
        page = root.get(path).content.decode()

        assert not re.search(r"<script(?![^>]*src=)(?![^>]*application/json)", page), path
        assert "<style" not in page, path
        assert not re.search(r"<[^>]+\s(style|on\w+)=", page), path


MARKUP = "<img/src=x/onerror=alert(1)>'\"&amp;</script>"


def test_markup_in_any_field_is_text_on_every_page(root, mongo):
    user = client_of(MARKUP)
    texts = {"title": MARKUP, "tags": [MARKUP], "custom": {"note": MARKUP}}
    other = {"title": f"Other {MARKUP}", "tags": [f"Other {MARKUP}"], "custom": {"note": "Other"}}
    stops = {"settings": {"stop_sequences": [MARKUP]}}
    held, purged = (
        user.post(PATH, {"character_id": MARKUP, **texts, **stops}).json()["id"] for _ in range(2)
    )
    assert user.patch(f"{PATH}/{held}", other).status_code == 200
    user.delete(f"{PATH}/{purged}")
    root.post(url_of(held, "act", "hold"), {"reason": MARKUP})
    role = Group.objects.create(name=MARKUP)
    owned = {"user": MARKUP}
    shown = [
        (LIST, {}),
        (LIST, {"q": MARKUP}),
        (LIST, {"user": MARKUP, "character": MARKUP}),
        (LIST, {"created_from": MARKUP}),
        (url_of(held), {}),
        (url_of(held, "act", "trash"), {}),
        (url_of(held, "revert", "1"), {}),
        (f"{LIST}all/archive/", owned),
        (f"{LIST}all/export/", owned),
        ("/admin/admin/logentry/", {"q": MARKUP}),
        ("/admin/admin/logentry/", {}),
        ("/admin/auth/group/", {}),
        (f"/admin/auth/group/{role.pk}/change/", {}),
        ("/admin/auth/user/", {"q": MARKUP}),
    ]
    others = [("/admin/", {}), (f"/admin/{quote(MARKUP)}/", {}), (url_of(quote(MARKUP)), {})]
    others += [("/admin/login/", {"next": MARKUP}), (f"{LIST}run/", {"run": MARKUP})]
    user.delete(f"{PATH}/{purged}?mode=purge")
    others += [(url_of(purged), {})]

    for path, query in shown + others:
        page = root.get(path, query).content.decode()

        assert "<img/src" not in page, path
        assert "'\"&amp;</script>" not in page, path
    for path, query in shown:
        assert "&lt;img/src=x/onerror=alert(1)&gt;" in root.get(path, query).content.decode(), path


def test_files_that_pages_load_exist(viewer):
    page = viewer.get(LIST).content.decode()
    addresses = re.findall(r'(?:src|href)="(/static/[^"]+)"', page)

    assert any(address.endswith("favicon.svg") for address in addresses)
    for address in addresses:
        response = viewer.get(address)
        response.close()
        assert response.status_code == 200, address


@pytest.mark.parametrize(
    "path",
    [
        "/admin/r/1/2/",
        "/admin/r/x/y/",
        "/admin/search/?s=a",
    ],
)
def test_unused_addresses_are_404(root, path):
    assert root.get(path).status_code == 404


@pytest.mark.parametrize(
    "query", ["username__regex=(", "password__startswith=pbkdf2", "username__iregex=["]
)
def test_lists_accept_only_offered_filters(root, query):
    assert root.get(f"/admin/auth/user/?{query}").status_code == 400


@pytest.mark.parametrize("term", ["(", "[", "*", "\\", "$where", "a" * 500])
@pytest.mark.parametrize(
    "path", [LIST, "/admin/auth/user/", "/admin/auth/group/", "/admin/admin/logentry/"]
)
def test_any_search_text_is_accepted(root, path, term):
    assert root.get(path, {"q": term}).status_code == 200


def test_the_language_follows_the_browser_until_it_is_selected(viewer):
    by_browser = viewer.get("/admin/", headers={"Accept-Language": "es"})
    chosen = viewer.post("/admin/i18n/setlang", {"language": "es", "next": LIST})
    by_hand = viewer.get(LIST)

    assert "Resumen" in text(by_browser)
    assert chosen.headers["Location"] == LIST
    assert "Conversaciones" in text(by_hand)
    assert 'lang="es"' in viewer.get("/admin/").content.decode()
    assert by_hand.headers["Content-Language"] == "es"


def test_the_whole_console_is_in_spanish(root, mongo):
    [stored] = store(mongo, 1, title="Luna")
    root.cookies["django_language"] = "es"

    words = " ".join(
        text(root.get(path))
        for path in ("/admin/", LIST, url_of(stored["_id"]), url_of(stored["_id"], "act", "hold"))
    )

    for english in ("Overview", "Archive ", "Select", "Counted", "History", "Reason", "Legal"):
        assert english not in words


def test_roles_are_groups_created_by_the_migration(root):
    page = text(root.get("/admin/auth/group/"))

    assert all(role in page for role in ("support", "operator", "auditor"))
