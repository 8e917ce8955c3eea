"""Staff accounts and roles: created, changed and used through the rendered pages."""

import inspect
import re
from collections.abc import Iterator

import pytest
from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.hashers import UNUSABLE_PASSWORD_PREFIX
from django.contrib.auth.models import Group, User
from django.db.models import Model
from django.forms import HiddenInput
from django.test import Client
from unfold.admin import ModelAdmin

from conversations.models import Conversation
from tests.conversations.admin import chromium
from tests.conversations.admin.browser import PASSWORD, staff, store
from tests.conversations.admin.chromium import browser, log_in, serving

ACCOUNTS = "/admin/auth/user/"
ROLES = "/admin/auth/group/"
SECRET = "correct horse battery"

in_chromium = pytest.mark.skipif(
    chromium.PATH is None, reason="There is no Chromium on this machine"
)


# Attributes of one base class that another one hides


def hidden_hooks(cls: type) -> list[str]:
    """Return the attributes that one base class of a library hides of an unrelated one.

    Nothing is hidden by a method that calls super(), and nothing is lost if the value is empty.
    This project's own classes hide on purpose.
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
        form = response.context["adminform"].form
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
    settings.ALLOWED_HOSTS = ["127.0.0.1"]
    with serving() as url:
        yield url


WORDS = {
    "en": {
        "username": "Username",
        "password": "Password",
        "confirmation": "Password confirmation",
        "save": "Save",
        "staff": "Staff status",
        "roles": "Roles",
        "taken": "A user with that username already exists.",
        "differ": "The two password fields didn’t match.",  # noqa: RUF001
        "correct": re.compile(r"Please correct the errors? below\."),
        "missing": "This field is required.",
        "change": "Change password",
        "disabled": "Disabled",
        "remove": "Remove the password",
        "set": "Set password",
    },
    "es": {
        "username": "Nombre de usuario",
        "password": "Contraseña",
        "confirmation": "Contraseña (confirmación)",
        "save": "Guardar",
        "staff": "Es staff",
        "roles": "Roles",
        "taken": "Ya existe un usuario con este nombre.",
        "differ": "Los dos campos de contraseña no coinciden.",
        "correct": re.compile(r"Por favor, corrija (el siguiente error|los siguientes errores)\."),
        "missing": "Este campo es requerido.",
        "change": "Cambiar contraseña",
        "disabled": "Deshabilitado",
        "remove": "Quitar la contraseña",
        "set": "Establecer contraseña",
    },
}

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


def create(page, url, words, name, password):
    page.goto(f"{url}{ACCOUNTS}add/")
    field(page, words["username"]).fill(name)
    field(page, words["password"]).fill(password)
    field(page, words["confirmation"]).fill(password)
    save(page, words)


@in_chromium
@each_language
@pytest.mark.parametrize("width", [1280, 390])
def test_an_administrator_creates_a_usable_account(mongo, url, language, width):
    User.objects.create_superuser("root", password=PASSWORD)
    store(mongo, 1, title="Night with Luna")
    words = WORDS[language]
    complaints: list[str] = []
    size = {"width": width, "height": 900}

    with browser(complaints, viewport=size, locale=language) as page:
        log_in(page, url, "root", PASSWORD)
        create(page, url, words, "ana", SECRET)
        page.wait_for_url("**/change/**")
        field(page, words["staff"]).check()
        field(page, words["roles"]).select_option("operator")
        save(page, words)
        page.wait_for_url(f"{url}{ACCOUNTS}")
        page.context.clear_cookies()
        log_in(page, url, "ana", SECRET)
        page.get_by_role("link", name="Night with Luna").click()
        page.locator("a[href*='/act/archive/']").click()
        page.locator("form.c-form button[type=submit]").click()
        page.wait_for_url("**/change/")

    assert complaints == []
    assert mongo["conversations"].find_one()["status"] == "archived"
    ana = User.objects.get(username="ana")
    assert (ana.is_staff, ana.is_superuser) == (True, False)


@in_chromium
@each_language
def test_each_error_is_next_to_its_field(mongo, url, language):
    root = User.objects.create_superuser("root", password=PASSWORD)
    words = WORDS[language]

    with browser([], viewport={"width": 1280, "height": 900}, locale=language) as page:
        log_in(page, url, "root", PASSWORD)
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
        save(page, words)
        page.get_by_text(words["correct"]).wait_for()
        missing.append(row_of(page, "name"))
        page.goto(f"{url}{ACCOUNTS}{root.pk}/password/")
        field(page, words["password"]).fill(SECRET)
        field(page, words["confirmation"]).fill("another")
        page.get_by_role("button", name=words["change"]).click()
        page.get_by_text(words["correct"]).wait_for()
        changed = row_of(page, "password2")

    assert words["taken"] in taken
    assert words["differ"] in differ
    assert [row for row in missing if words["missing"] not in row] == []
    assert words["differ"] in changed


@in_chromium
@each_language
def test_a_password_is_removed_and_set_again(mongo, url, language):
    User.objects.create_superuser("root", password=PASSWORD)
    staff(name="ana")
    ana = User.objects.get(username="ana")
    words = WORDS[language]
    complaints: list[str] = []

    with browser(complaints, viewport={"width": 390, "height": 900}, locale=language) as page:
        log_in(page, url, "root", PASSWORD)
        page.goto(f"{url}{ACCOUNTS}{ana.pk}/change/")
        page.locator("a[href='../password/']").click()
        page.get_by_label(words["disabled"]).check()
        hidden = field(page, words["password"]).count()
        page.get_by_role("button", name=words["remove"]).click()
        page.wait_for_url("**/change/")
        removed = mongo["auth_user"].find_one({"username": "ana"})["password"]
        page.goto(f"{url}{ACCOUNTS}{ana.pk}/password/")
        field(page, words["password"]).fill(SECRET)
        field(page, words["confirmation"]).fill(SECRET)
        page.get_by_role("button", name=words["set"]).click()
        page.wait_for_url("**/change/")

    assert complaints == []
    assert hidden == 0
    assert removed.startswith(UNUSABLE_PASSWORD_PREFIX)
    assert User.objects.get(username="ana").check_password(SECRET)


@in_chromium
@each_language
def test_an_account_is_created_without_a_password(mongo, url, language):
    User.objects.create_superuser("root", password=PASSWORD)
    words = WORDS[language]

    with browser([], viewport={"width": 1280, "height": 900}, locale=language) as page:
        log_in(page, url, "root", PASSWORD)
        page.goto(f"{url}{ACCOUNTS}add/")
        field(page, words["username"]).fill("ana")
        page.get_by_label(words["disabled"]).check()
        hidden = field(page, words["password"]).count()
        save(page, words)
        page.wait_for_url("**/change/**")

    assert hidden == 0
    assert not User.objects.get(username="ana").has_usable_password()


@in_chromium
def test_a_role_is_created_and_changed(mongo, url):
    User.objects.create_superuser("root", password=PASSWORD)
    permissions = ["view_conversation", "export_conversation"]

    with browser([], viewport={"width": 1280, "height": 900}) as page:
        log_in(page, url, "root", PASSWORD)
        page.goto(f"{url}{ROLES}add/")
        field(page, "Name").fill("exporter")
        field(page, "Permissions").select_option(
            [
                option.get_attribute("value")
                for option in page.locator("#id_permissions option").all()
                if re.search(r"view conversation|export", option.inner_text(), re.IGNORECASE)
            ]
        )
        save(page, WORDS["en"])
        page.wait_for_url(f"{url}{ROLES}")
        page.locator("#result_list").get_by_role("link", name="exporter").click()
        field(page, "Name").fill("archivist")
        save(page, WORDS["en"])
        page.wait_for_url(f"{url}{ROLES}")

    names = Group.objects.get(name="archivist").permissions.values_list("codename", flat=True)
    assert sorted(names) == sorted(permissions)
