"""Staff accounts and roles: created, changed and used through the rendered pages."""

import inspect
import re
from collections.abc import Iterator

import pytest
from django.contrib import admin
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.hashers import UNUSABLE_PASSWORD_PREFIX
from django.contrib.auth.models import Group, Permission, User
from django.db import connection
from django.db.models import Model
from django.forms import HiddenInput
from django.test import Client
from django.test.utils import CaptureQueriesContext
from unfold.admin import ModelAdmin

from conversations.models import Conversation
from tests.conversations.admin import chromium
from tests.conversations.admin.browser import PASSWORD, staff, store, text
from tests.conversations.admin.chromium import browser, log_in, open_list, serving

ACCOUNTS = "/admin/auth/user/"
ROLES = "/admin/auth/group/"
SECRET = "correct horse battery"

# Attributes of one base class that another one hides


def hidden_hooks(cls: type) -> list[str]:
    """Return the attributes that one base class of a library hides of an unrelated one.

    Methods that call super(), empty values, and this project's own classes do not count.
    """
    hidden = []
    for name in sorted({name for base in cls.__mro__ for name in vars(base)} - MADE_BY_PYTHON):
        definers = [base for base in cls.__mro__ if name in vars(base)]
        while definers and (passes_on(vars(definers[0])[name])):
            del definers[0]
        if not definers or definers[0].__module__.startswith("conversations."):
            continue
        first, *others = definers
        hidden += [
            f"{first.__name__}.{name} hides {other.__name__}.{name}"
            for other in others
            if not issubclass(first, other) and vars(other)[name]
        ]
    return hidden


# `media` is made by Django's metaclass for each class.
MADE_BY_PYTHON = {
    *vars(object),
    "__dict__",
    "__module__",
    "__weakref__",
    "__annotations__",
    "media",
}


def passes_on(value: object) -> bool:
    return inspect.isfunction(value) and "super" in inspect.unwrap(value).__code__.co_names


@pytest.mark.parametrize("model", admin.site._registry, ids=lambda model: model.__name__)
def test_no_base_class_of_an_admin_page_hides_what_another_declares(model):
    assert hidden_hooks(type(admin.site._registry[model])) == []


def test_a_base_class_that_hides_declared_fields_is_found():
    class Wrong(ModelAdmin, UserAdmin):
        pass

    assert "ModelAdmin.add_fieldsets hides UserAdmin.add_fieldsets" in hidden_hooks(Wrong)


# Rendered pages


@pytest.fixture
def root(mongo) -> Client:
    User.objects.create_superuser("root", password=PASSWORD)
    client = Client()
    client.force_login(User.objects.get(username="root"))
    return client


def pages_with_forms(model: type[Model]) -> Iterator[str]:
    base = f"/admin/{model._meta.app_label}/{model._meta.model_name}/"
    yield f"{base}add/"
    if model is not Conversation and (stored := model._default_manager.first()):
        yield f"{base}{stored.pk}/change/"


@pytest.mark.parametrize("model", admin.site._registry, ids=lambda model: model.__name__)
def test_a_page_shows_every_field_that_its_form_validates(root, model):
    for path in pages_with_forms(model):
        response = root.get(path)
        if response.status_code == 403:  # a read-only page
            continue
        context = response.context
        form = context["adminform"].form if "adminform" in context else context["form"]
        page = response.content.decode()

        assert form.fields, path
        for name, field in form.fields.items():
            shown = f'name="{name}"' in page or f'id="id_{name}"' in page
            assert shown or isinstance(field.widget, HiddenInput), (path, name)


def test_the_password_page_shows_every_field_that_its_form_validates(root):
    page = root.get(f"{ACCOUNTS}{User.objects.get().pk}/password/").content.decode()

    for name in ("usable_password", "password1", "password2"):
        assert f'name="{name}"' in page


TITLES = {
    "en": ["Accounts", "Add an account", "Account", "Roles", "Add a role", "Role"],
    "es": ["Cuentas", "Añadir una cuenta", "Cuenta", "Roles", "Añadir un rol", "Rol"],
}


@pytest.mark.parametrize("language", TITLES)
def test_pages_are_titled_as_in_the_menu(root, language):
    account, role = User.objects.get(), Group.objects.get(name="support")
    paths = [
        *(ACCOUNTS, f"{ACCOUNTS}add/", f"{ACCOUNTS}{account.pk}/change/"),
        *(ROLES, f"{ROLES}add/", f"{ROLES}{role.pk}/change/"),
    ]
    headers = {"Accept-Language": language}

    titles = [
        re.findall(r"<h1[^>]*>([^<]*)</h1>", root.get(path, headers=headers).content.decode())
        for path in paths
    ]

    assert titles == [[title] for title in TITLES[language]]


@pytest.mark.parametrize(("language", "count"), [("en", "1 row"), ("es", "1 fila")])
def test_a_list_says_how_many_rows_it_has(root, language, count):
    page = root.get(ACCOUNTS, headers={"Accept-Language": language}).content.decode()

    assert re.search(rf"\b{count}\s*</div>", page)


# In a browser


@pytest.fixture
def url(settings) -> Iterator[str]:
    settings.ALLOWED_HOSTS = ["127.0.0.1", "testserver"]
    with serving() as url:
        yield url


WORDS = {
    "en": {
        "username": "Username",
        "password": "Password",
        "confirmation": "Password confirmation",
        "save": "Save",
        "taken": "A user with that username already exists.",
        "differ": "The two password fields didn’t match.",  # noqa: RUF001
        "correct": re.compile(r"Please correct the errors? below\."),
        "missing": "This field is required.",
        "short": "This password is too short. It must contain at least 8 characters.",
        "incorrect": "Your old password was entered incorrectly. Please enter it again.",
        "old": "Old password",
        "new": "New password",
        "again": "New password confirmation",
        "changed": "Your password was changed.",
        "change": "Change password",
        "disabled": "Not possible",
        "remove": "Remove the password",
        "set": "Set password",
        "saved": "The account “ana” was changed successfully.",
        "active": "Active",
        "refused": "Please enter the correct username and password for a staff account.",
        "add_role": "Add a role",
        "name": "Name",
        "delete": "Delete the role",
        "view": "view conversations and their history",
        "export": "export",
        "requires": "Actions on conversations also require",
        "menu": {
            "support": ["Overview", "Conversations"],
            "operator": ["Overview", "Conversations", "Webhooks"],
            "auditor": ["Overview", "Conversations", "Webhooks", "Action log"],
            "reviewer": ["Overview", "Accounts", "Roles"],
        },
    },
    "es": {
        "username": "Nombre de usuario",
        "password": "Contraseña",
        "confirmation": "Contraseña (confirmación)",
        "save": "Guardar",
        "taken": "Ya existe un usuario con este nombre.",
        "differ": "Los dos campos de contraseña no coinciden.",
        "correct": re.compile(r"Por favor, corrija (el siguiente error|los siguientes errores)\."),
        "missing": "Este campo es requerido.",
        "short": "La contraseña es demasiado corta.",
        "incorrect": "Su contraseña antigua es incorrecta. Por favor, vuelva a introducirla.",
        "old": "Contraseña antigua",
        "new": "Contraseña nueva",
        "again": "Contraseña nueva (confirmación)",
        "changed": "Su contraseña ha sido cambiada.",
        "change": "Cambiar contraseña",
        "disabled": "Desactivado",
        "remove": "Quitar la contraseña",
        "set": "Establecer contraseña",
        "saved": "Se ha modificado: cuenta «ana».",
        "active": "Activa",
        "refused": "para una cuenta de personal.",
        "add_role": "Añadir un rol",
        "name": "Nombre",
        "delete": "Eliminar el rol",
        "view": "ver las conversaciones y su historial",
        "export": "exportar",
        "requires": "Las acciones sobre conversaciones también requieren",
        "menu": {
            "support": ["Resumen", "Conversaciones"],
            "operator": ["Resumen", "Conversaciones", "Webhooks"],
            "auditor": ["Resumen", "Conversaciones", "Webhooks", "Registro de acciones"],
            "reviewer": ["Resumen", "Cuentas", "Roles"],
        },
    },
}

WIDE = {"width": 1280, "height": 900}
each_language = pytest.mark.parametrize("language", WORDS)


def field(page, label):
    """Return the visible field with this label; a star marks a required one."""
    return page.get_by_label(re.compile(rf"^\s*{re.escape(label)}\s*[*:]?\s*$")).locator(
        "visible=true"
    )


def save(page, words):
    page.get_by_role("button", name=words["save"], exact=True).click()


def row_of(page, name):
    """Return the text around a field: its label, help and errors."""
    return page.locator(f".field-{name}").inner_text()


def create(page, url, words, name, password, *role_names):
    page.goto(f"{url}{ACCOUNTS}add/")
    field(page, words["username"]).fill(name)
    field(page, words["password"]).fill(password)
    field(page, words["confirmation"]).fill(password)
    for role in role_names:
        page.get_by_label(re.compile(rf"^\s*{role}: ")).check()
    save(page, words)


def menu_of(page):
    return [link.inner_text().split("\n")[-1] for link in page.locator("#nav-sidebar ol a").all()]


def submit_login(page, words, name, password):
    page.locator("#id_username").fill(name)
    page.locator("#id_password").fill(password)
    page.keyboard.press("Enter")


@chromium.in_chromium
@each_language
def test_each_role_logs_in_and_sees_its_pages(mongo, url, language):
    User.objects.create_superuser("root", password=PASSWORD)
    reviewer = Group.objects.create(name="reviewer")
    reviewer.permissions.set(Permission.objects.filter(codename__in=["view_user", "view_group"]))
    words = WORDS[language]
    seen = {}

    try:
        with browser(viewport=WIDE, locale=language) as page:
            open_list(page, url, "root")
            for role in words["menu"]:
                create(page, url, words, f"{role}-1", SECRET, role)
                page.wait_for_url("**/change/**")
            for role in words["menu"]:
                page.context.clear_cookies()
                page.goto(f"{url}/admin/")
                submit_login(page, words, f"{role}-1", SECRET)
                page.wait_for_url(f"{url}/admin/")
                seen[role] = menu_of(page)
                for link in page.locator("#nav-sidebar ol a").all():
                    assert page.request.get(f"{url}{link.get_attribute('href')}").status == 200
    finally:
        reviewer.delete()

    assert seen == words["menu"]


@chromium.in_chromium
@each_language
def test_an_administrator_creates_a_usable_account_on_a_narrow_screen(mongo, url, language):
    User.objects.create_superuser("root", password=PASSWORD)
    store(mongo, 1, title="Night with Luna")
    words = WORDS[language]
    size = {"width": 390, "height": 900}

    with browser(viewport=size, locale=language) as page:
        open_list(page, url, "root")
        create(page, url, words, "ana", SECRET, "operator")
        page.wait_for_url("**/change/**")
        page.context.clear_cookies()
        log_in(page, url, "ana", SECRET)
        page.get_by_role("link", name="Night with Luna").click()
        page.locator("a[href*='/act/archive/']").click()
        page.locator("form.c-form button[type=submit]").click()
        page.wait_for_url("**/change/")

    assert mongo["conversations"].find_one()["status"] == "archived"
    ana = User.objects.get(username="ana")
    assert (ana.is_staff, ana.is_superuser) == (True, False)


@chromium.in_chromium
@each_language
def test_each_error_is_next_to_its_field(mongo, url, language):
    root = User.objects.create_superuser("root", password=PASSWORD)
    words = WORDS[language]

    with browser(viewport=WIDE, locale=language) as page:
        open_list(page, url, "root")
        page.goto(f"{url}{ACCOUNTS}add/")
        field(page, words["username"]).fill("root")
        field(page, words["password"]).fill(SECRET)
        field(page, words["confirmation"]).fill("another")
        save(page, words)
        page.get_by_text(words["correct"]).wait_for()
        taken, differ = row_of(page, "username"), row_of(page, "password2")
        page.goto(f"{url}{ACCOUNTS}add/")
        save(page, words)
        page.get_by_text(words["correct"]).wait_for()
        missing = [row_of(page, name) for name in ("username", "password1", "password2")]
        page.goto(f"{url}{ROLES}add/")
        page.get_by_label(words["export"], exact=True).check()
        save(page, words)
        page.get_by_text(words["correct"]).wait_for()
        missing.append(row_of(page, "name"))
        lacking = row_of(page, "permissions")
        page.goto(f"{url}{ACCOUNTS}{root.pk}/password/")
        field(page, words["password"]).fill(SECRET)
        field(page, words["confirmation"]).fill("another")
        page.get_by_role("button", name=words["change"]).click()
        page.get_by_text(words["correct"]).wait_for()
        changed = row_of(page, "password2")

    assert words["taken"] in taken
    assert words["differ"] in differ
    assert [row for row in missing if words["missing"] not in row] == []
    assert words["requires"] in lacking
    assert words["differ"] in changed


@chromium.in_chromium
@each_language
def test_an_account_changes_its_own_password(mongo, url, language):
    staff(name="ana", role="support")
    words = WORDS[language]

    with browser(viewport=WIDE, locale=language) as page:
        open_list(page, url, "ana")
        page.locator(".c-user").click()
        page.get_by_role("link", name=words["change"]).click()
        for old, new, error in [
            ("wrong", SECRET, words["incorrect"]),
            (PASSWORD, "x1", words["short"]),
        ]:
            field(page, words["old"]).fill(old)
            field(page, words["new"]).fill(new)
            field(page, words["again"]).fill(new)
            page.get_by_role("button", name=words["change"]).click()
            page.get_by_text(error).first.wait_for()
        field(page, words["old"]).fill(PASSWORD)
        field(page, words["new"]).fill(SECRET)
        field(page, words["again"]).fill(SECRET)
        page.get_by_role("button", name=words["change"]).click()
        page.get_by_text(words["changed"]).wait_for()

    assert User.objects.get(username="ana").check_password(SECRET)


@chromium.in_chromium
@each_language
def test_a_deactivated_account_cannot_log_in(mongo, url, language):
    root = User.objects.create_superuser("root", password=PASSWORD)
    open_session = staff(name="ana", role="support")
    ana = User.objects.get(username="ana")
    words = WORDS[language]

    with browser(viewport=WIDE, locale=language) as page:
        open_list(page, url, "root")
        page.goto(f"{url}{ACCOUNTS}{ana.pk}/change/")
        page.get_by_label(words["active"]).uncheck()
        save(page, words)
        page.get_by_text(words["saved"]).wait_for()
        page.goto(f"{url}{ACCOUNTS}{root.pk}/change/")
        own = page.get_by_label(words["active"]).count()
        page.context.clear_cookies()
        page.goto(f"{url}/admin/")
        submit_login(page, words, "ana", PASSWORD)
        page.get_by_text(words["refused"]).wait_for()

    assert own == 0
    assert open_session.get("/admin/").status_code == 302
    assert open_session.get("/admin/login/").status_code == 200


@chromium.in_chromium
@each_language
def test_a_password_is_removed_and_set_again(mongo, url, language):
    User.objects.create_superuser("root", password=PASSWORD)
    staff(name="ana")
    ana = User.objects.get(username="ana")
    words = WORDS[language]

    with browser(viewport={"width": 390, "height": 900}, locale=language) as page:
        open_list(page, url, "root")
        page.goto(f"{url}{ACCOUNTS}{ana.pk}/change/")
        page.locator("a[href='../password/']").click()
        page.get_by_label(words["disabled"]).check()
        hidden = field(page, words["password"]).count()
        page.get_by_role("button", name=words["remove"]).click()
        page.wait_for_url("**/change/")
        removed = mongo["auth_user"].find_one({"username": "ana"})["password"]
        page.locator("a[href='../password/']").click()
        field(page, words["password"]).fill(SECRET)
        field(page, words["confirmation"]).fill(SECRET)
        page.get_by_role("button", name=words["set"]).click()
        page.wait_for_url("**/change/")

    assert hidden == 0
    assert removed.startswith(UNUSABLE_PASSWORD_PREFIX)
    assert User.objects.get(username="ana").check_password(SECRET)


@chromium.in_chromium
@each_language
def test_an_account_is_created_without_a_password(mongo, url, language):
    User.objects.create_superuser("root", password=PASSWORD)
    words = WORDS[language]

    with browser(viewport=WIDE, locale=language) as page:
        open_list(page, url, "root")
        page.goto(f"{url}{ACCOUNTS}add/")
        field(page, words["username"]).fill("ana")
        page.get_by_label(words["disabled"]).check()
        hidden = field(page, words["password"]).count()
        save(page, words)
        page.wait_for_url("**/change/**")

    assert hidden == 0
    assert not User.objects.get(username="ana").has_usable_password()


@chromium.in_chromium
@each_language
def test_a_role_is_created_from_words_changed_and_deleted(mongo, url, language):
    User.objects.create_superuser("root", password=PASSWORD)
    words = WORDS[language]

    with browser(viewport=WIDE, locale=language) as page:
        open_list(page, url, "root")
        page.goto(f"{url}{ROLES}add/")
        field(page, words["name"]).fill("exporter")
        page.get_by_label(words["view"], exact=True).check()
        page.get_by_label(words["export"], exact=True).check()
        save(page, words)
        page.wait_for_url(f"{url}{ROLES}")
        row = page.locator("#result_list tr", has_text="exporter").inner_text()
        page.locator("#result_list").get_by_role("link", name="exporter").click()
        field(page, words["name"]).fill("archivist")
        save(page, words)
        page.wait_for_url(f"{url}{ROLES}")
        page.locator("#result_list").get_by_role("link", name="archivist").click()
        page.locator("#id_permissions").wait_for()
        checked = page.locator("#id_permissions label:has(:checked)").all_inner_texts()
        page.locator("a[href$='/delete/']").click()
        page.get_by_role("button", name=words["delete"]).click()
        page.wait_for_url(f"{url}{ROLES}")

    assert [text.lower() for text in checked] == [words["view"], words["export"]]
    assert f"{words['view'].capitalize()}, {words['export']}" in row
    assert not Group.objects.filter(name="archivist").exists()


# Rules that a page cannot show


def test_a_role_keeps_permissions_that_its_page_does_not_offer(root):
    role = Group.objects.create(name="former")
    role.permissions.set(Permission.objects.filter(codename="change_user"))
    try:
        page = root.get(f"{ROLES}{role.pk}/change/")
        [kept] = page.context["adminform"].form["permissions"].value()
        shown = page.content.decode()
        saved = root.post(f"{ROLES}{role.pk}/change/", {"name": "later", "permissions": [kept]})

        assert saved.status_code == 302
        assert Group.objects.get(pk=role.pk).name == "later"
        assert "Can change user" in shown
        assert role.permissions.get().codename == "change_user"
    finally:
        role.delete()


def test_the_page_of_a_new_role_offers_no_permission_on_accounts(root):
    role = {"name": "x", "permissions": [Permission.objects.get(codename="change_user").pk]}

    response = root.post(f"{ROLES}add/", role)

    assert response.status_code == 200
    assert not Group.objects.filter(name="x").exists()


def test_an_account_in_the_action_log_cannot_be_deleted(root, mongo):
    staff(name="ana", role="support")
    ana = User.objects.get(username="ana")
    delete = f"{ACCOUNTS}{ana.pk}/delete/"
    before = root.get(delete).status_code
    LogEntry.objects.create(user=ana, action_flag=CHANGE)

    assert before == 200
    assert root.post(delete, {"post": "yes"}).status_code == 403
    assert User.objects.filter(username="ana").exists()


def test_no_account_takes_its_own_access_away(root):
    own = User.objects.get(username="root")

    saved = root.post(f"{ACCOUNTS}{own.pk}/change/", {"username": "root", "first_name": "Ana"})
    deleted = root.post(f"{ACCOUNTS}{own.pk}/delete/", {"post": "yes"})

    own.refresh_from_db()
    assert (saved.status_code, own.first_name) == (302, "Ana")
    assert (own.is_active, own.is_superuser) == (True, True)
    assert deleted.status_code == 403


def test_the_number_of_statements_of_the_list_does_not_grow_with_the_accounts(root):
    def statements(count):
        for n in range(count):
            staff(role=("support", "auditor")[n % 2], name=f"a{User.objects.count()}")
        with CaptureQueriesContext(connection) as captured:
            page = text(root.get(ACCOUNTS))
        assert page.count("support") >= (count + 1) // 2
        return len(captured)

    assert statements(2) == statements(9)
