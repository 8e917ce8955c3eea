"""Pictures of the console for README and docs: `make screenshots`."""

from pathlib import Path

import django
from django.conf import settings
from django.core.management import call_command
from django.test.utils import override_settings

from conversation_service.mongodb.connection import database

FOLDER = Path(__file__).resolve().parents[3] / "docs" / "img"
WIDE = {"width": 1280, "height": 800}
NARROW = {"width": 390, "height": 844}


def main() -> None:
    django.setup()
    database().client.drop_database(settings.DATABASES["default"]["NAME"])
    call_command("migrate", verbosity=0, interactive=False)
    call_command("setup_indexes", verbosity=0)
    call_command("seed_demo", conversations=400, verbosity=0)
    # Only now: models need the app registry.
    from django.contrib.auth.models import User  # noqa: PLC0415

    from tests.conversations.admin.chromium import close_chromium  # noqa: PLC0415

    User.objects.create_superuser("ops", password="ops")
    FOLDER.mkdir(exist_ok=True)
    with override_settings(ALLOWED_HOSTS=["127.0.0.1"]):
        take("console", "/admin/", WIDE, "light")
        take("console-list", LIST, WIDE, "light")
        take("console-conversation", HELD, WIDE, "dark")
        take("console-account", "/admin/auth/user/add/", WIDE, "light")
        take("console-narrow", LIST, NARROW, "light", language="es")
    close_chromium()


LIST = "/admin/conversations/conversation/"
HELD = "a conversation under a legal hold"


def take(name: str, path: str, size: dict[str, int], scheme: str, language: str = "en") -> None:
    from tests.conversations.admin.chromium import browser, log_in, serving  # noqa: PLC0415

    options = {"viewport": size, "color_scheme": scheme, "locale": language}
    with serving() as url, browser(**options) as page:
        log_in(page, url, "ops", "ops")
        page.goto(f"{url}{LIST}?held=yes" if path == HELD else f"{url}{path}")
        if path == HELD:
            page.locator(".data-row a").first.click()
            page.wait_for_url("**/change/**")
        page.wait_for_load_state("networkidle")
        page.screenshot(path=FOLDER / f"{name}.png")


if __name__ == "__main__":
    main()
