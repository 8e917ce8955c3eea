"""No page of the console shows English to staff with Spanish browsers."""

import re
from html import unescape

import pytest
from babel.messages.pofile import read_po
from django.contrib.admin.models import ADDITION, LogEntry
from django.contrib.auth.models import Group, User
from django.test import Client

from config.env import BASE_DIR
from conversations.events import log
from conversations.webhooks import endpoints
from tests.conversations.admin.browser import LIST, PASSWORD, confirm, store, url_of
from tests.conversations.admin.test_webhooks import WEBHOOKS, fail_delivery, page_of

# Data, and names that are equal in both languages.
SAME = {
    *("root", "ana", "alice", "luna", "Luna", "zzz", "qqq", "operator", "auditor", "support"),
    *("Conversation Service", "MongoDB", "Redis", "English", "Español", "Total", "superusuario"),
    *("Roles", "roles", "tokens", "UTC"),
    *("ID", "No", "temperature", "max_tokens", "context_window", "top_p", "frequency_penalty"),
    *("Webhooks", "webhooks", "Standard Webhooks", "CloudEvents 1.0", "URL", *log.TYPES),
    *("https://zzz.example.org/", "staff:ana", "timeout", "15000 ms"),
    *("presence_penalty", "stop_sequences", "model", "reasoning_effort", "extra", "note"),
}
# Words that the glossary replaces in one meaning, and that have another one.
COMMON = {
    *("bloqueo", "borrar", "cambio", "deshacer", "dirección", "estado anterior", "nombre"),
    *("límite", "marca", "orden", "origen", "registro", "sistema"),
}
ID = re.compile("(we_)?[0-9a-f]{24,32}")
ICON = re.compile(r"<span[^>]*material-symbols-outlined[^>]*>[^<]*</span>")
NOT_SHOWN = re.compile(r"<(script|style)\b.*?</\1>|<!--.*?-->", re.DOTALL)
ATTRIBUTES = re.compile(r'\b(?:title|aria-label|placeholder|alt|data-label|data-copied)="([^"]*)"')


def texts(response) -> set[str]:
    """Return the texts between the tags of a page, and the shown ones in its attributes."""
    page = ICON.sub("", NOT_SHOWN.sub("", response.content.decode()))
    found = {*re.split(r"<[^>]*>", page), *ATTRIBUTES.findall(page)}
    words = {" ".join(unescape(text).split()).strip(" :.·,()") for text in found}
    words = {text.removesuffix(" | Conversation Service") for text in words}
    return {text for text in words if re.search(r"[^\W\d_]{3}", text) and not ID.fullmatch(text)}


@pytest.fixture
def root(mongo):
    User.objects.create_superuser("root", password=PASSWORD)
    client = Client(raise_request_exception=False)
    client.force_login(User.objects.get())
    return client


def pages(alice, mongo) -> list[str]:
    """Return addresses with data for everything that the console can show."""
    [stored, trashed] = store(mongo, 2, title="zzz", tags=["qqq"], custom={"note": "zzz"})
    path = f"/api/v1/conversations/{stored['_id']}"
    alice.patch(path, {"title": "Luna", "settings": {"temperature": 0.7}, "pinned": True})
    alice.post(f"{path}/archive")
    alice.delete(f"/api/v1/conversations/{trashed['_id']}")
    alice.post(f"/api/v1/conversations/{trashed['_id']}/restore")
    alice.delete(f"/api/v1/conversations/{trashed['_id']}")
    ana = User.objects.create_user("ana", is_staff=False)
    account, role = f"/admin/auth/user/{ana.pk}", Group.objects.get(name="operator").pk
    one, two = stored["_id"], trashed["_id"]
    enabled, disabled = (
        endpoints.create({"url": "https://zzz.example.org/"}, created_by="staff:ana")[0]["_id"]
        for _ in range(2)
    )
    endpoints.disable(disabled, endpoints.GONE, by="staff:ana")
    fail_delivery(mongo, enabled)
    return [
        *("/admin/", LIST, f"{LIST}?q=nothing", url_of(one), url_of(two)),
        *(url_of(one, "act", name) for name in ("archive", "restore", "trash", "hold")),
        *(url_of(one, "revert", "1"), "/admin/admin/logentry/", "/admin/nothing/"),
        *("/admin/auth/user/", "/admin/auth/user/add/", f"{account}/change/"),
        *(f"{account}/password/", f"{account}/delete/", "/admin/auth/user/?e=1"),
        *("/admin/auth/group/", "/admin/auth/group/add/", f"/admin/auth/group/{role}/change/"),
        *(f"/admin/auth/group/{role}/delete/", "/admin/password_change/"),
        "/admin/password_change/done/",
        *(WEBHOOKS, f"{WEBHOOKS}add/", page_of(enabled), page_of(enabled, "edit")),
        *(page_of(enabled, "act", name) for name in ("rotate", "disable", "delete")),
        *(
            page_of(disabled),
            page_of(disabled, "act", "resume"),
            page_of(disabled, "act", "restart"),
        ),
    ]


def test_no_page_has_a_text_that_is_equal_in_english(alice, root, mongo):
    paths = pages(alice, mongo)
    staff = User.objects.get(username="root")
    LogEntry.objects.log_actions(staff.pk, [staff], ADDITION, change_message=[{"added": {}}])
    for action in ("hold", "release", "restore"):
        for id_ in mongo["conversations"].distinct("_id"):
            confirm(root, action, id_, reason="zzz")
    untranslated = {}

    for path in paths:
        english, spanish = (
            texts(root.get(path, headers={"Accept-Language": language}))
            for language in ("en", "es")
        )
        untranslated[path] = (english & spanish) - SAME

    assert {path: found for path, found in untranslated.items() if found} == {}


def test_the_spanish_catalogs_use_the_words_of_the_glossary():
    """In docs/glossary.md, the words that a Spanish term replaces follow a semicolon."""
    glossary = (BASE_DIR / "docs" / "glossary.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| [^|]+ \| [^|]+ \| [^|]+ \| [^|;]*; ([^|]+) \|$", glossary, re.MULTILINE)
    replaced = {word.strip() for row in rows for word in row.split(",") if "(" not in word}
    texts = []
    for app in ("conversations", "conversation_service"):
        path = BASE_DIR / app / "locale" / "es" / "LC_MESSAGES" / "django.po"
        with path.open("rb") as file:
            catalog = read_po(file, locale="es")
        for message in catalog:
            texts += [message.string] if isinstance(message.string, str) else message.string

    wrong = [
        (word, text)
        for word in sorted(replaced - COMMON)
        for text in texts
        # The term for purged contains a word that the term for the trash replaces.
        for text in [text.replace("borrada definitivamente", "")]
        if re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE)
    ]

    assert len(replaced) > 50
    assert wrong == []


def test_numbers_have_a_decimal_comma(alice, root, mongo):
    [stored] = store(mongo, 1)
    alice.patch(f"/api/v1/conversations/{stored['_id']}", {"settings": {"temperature": 0.3}})

    page = root.get(url_of(stored["_id"]), headers={"Accept-Language": "es"})

    assert {"0,3", "0,7"} <= set(re.findall(r"\b0[.,][37]\b", page.content.decode()))
    assert not re.search(r">0\.[37]<", page.content.decode())
