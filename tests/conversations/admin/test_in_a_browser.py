"""The pages in a real Chromium, which reports violations of the policy and script errors."""

from collections.abc import Iterator

import pytest
from axe_playwright_python import base
from django.contrib.auth.models import Group, User

from conversation_service.http import ratelimit
from tests.conversations.admin import chromium
from tests.conversations.admin.browser import LIST, PASSWORD, store, url_of
from tests.conversations.admin.chromium import browser, open_list, serving
from tests.factories import PATH, client_of

pytestmark = chromium.in_chromium


@pytest.fixture
def url(settings) -> Iterator[str]:
    settings.ALLOWED_HOSTS = ["127.0.0.1"]
    with serving() as url:
        yield url


def pages(stored) -> list[str]:
    return [
        *("/admin/", LIST, url_of(stored["_id"]), url_of(stored["_id"], "act", "hold")),
        *("/admin/admin/logentry/", "/admin/auth/user/", "/admin/auth/user/add/"),
        *("/admin/auth/group/add/", "/admin/password_change/"),
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_breaks_the_policy_or_is_wider_than_the_screen(mongo, url, scheme):
    User.objects.create_superuser("root", password=PASSWORD)
    [stored] = store(mongo, 1, title="Long " * 40, user_id="u" * 64)
    wide = []

    with browser(color_scheme=scheme) as page:
        open_list(page, url, "root")
        for width in (1280, 390):
            page.set_viewport_size({"width": width, "height": 900})
            for path in pages(stored):
                page.goto(f"{url}{path}")
                if page.evaluate("document.documentElement.scrollWidth") > width:
                    wide.append((path, width))
        dark = page.evaluate("document.documentElement.classList.contains('dark')")

    assert wide == []
    assert dark == (scheme == "dark")


def test_a_narrow_list_without_checkboxes_offers_none(mongo, url):
    User.objects.create_superuser("root", password=PASSWORD)
    [stored] = store(mongo, 1)
    label = "getComputedStyle(document.querySelector('.data-row td'), '::before').content"

    with browser(viewport={"width": 390, "height": 900}) as page:
        open_list(page, url, "root")
        page.goto(f"{url}{url_of(stored['_id'])}")
        page.goto(f"{url}/admin/admin/logentry/")
        of_log = page.evaluate(label)
        page.goto(f"{url}{LIST}")
        of_list = page.evaluate(label)

    assert (of_log, of_list) == ("none", '"Select record"')


def test_the_documentation_breaks_no_policy(url):

    with browser() as page:
        page.goto(f"{url}/api/docs")
        page.wait_for_selector(".opblock")
        page.goto(f"{url}/api/redoc")
        page.wait_for_selector("[data-section-id]")


def test_an_action_can_be_done_by_keyboard(mongo, url):
    User.objects.create_superuser("root", password=PASSWORD)
    store(mongo, 2)

    with browser(viewport={"width": 1280, "height": 900}) as page:
        open_list(page, url, "root")
        page.keyboard.press("/")
        page.keyboard.type("number 1")
        page.keyboard.press("Enter")
        page.wait_for_url("**q=number**")
        page.locator(".action-select").first.focus()
        page.keyboard.press("Space")
        page.locator("select[name=action]").select_option("archive")
        page.locator("button[name=index]").press("Enter")
        page.wait_for_selector("form.c-form")
        heading = page.inner_text("form.c-form h2")
        page.wait_for_selector(".c-form button:focus")
        page.keyboard.press("Enter")
        page.wait_for_selector("#result_list")
        said = page.inner_text("#main")
        page.wait_for_load_state("networkidle")  # or the menu has no script yet
        page.locator(".c-user").press("Enter")
        page.wait_for_selector("button[value=es]")
        page.locator("button[value=es]").press("Enter")
        page.wait_for_selector("html[lang=es]")

    assert heading == "Archive: 1 conversation"
    assert "Archived: 1 conversation." in said


def test_a_title_can_be_reverted_by_mouse(alice, mongo, url):
    User.objects.create_superuser("root", password=PASSWORD)
    [stored] = store(mongo, 1, title="As it was")
    alice.patch(f"{PATH}/{stored['_id']}", {"title": "As it is"})

    with browser(viewport={"width": 1280, "height": 900}) as page:
        open_list(page, url, "root")
        page.get_by_role("link", name="As it is").click()
        page.get_by_role("link", name="Revert to version 1").click()
        page.locator("form.c-form button[type=submit]").click()
        page.locator(".c-head h2", has_text="As it was").wait_for()

    assert mongo["conversations"].find_one()["title"] == "As it was"


def test_axe_reports_no_violation_on_any_page(mongo, url):
    root = User.objects.create_superuser("root", password=PASSWORD)
    role = Group.objects.get(name="support")
    fields = {"title": "Long " * 40, "tags": ["one", "t\u200bwo"], "custom": {"note": "x" * 300}}
    stored, purged, _other = store(mongo, 3, **fields)
    alice, support = client_of("alice"), User.objects.create_user("support", is_staff=True)
    alice.patch(f"{PATH}/{stored['_id']}", {"title": "Short"})
    for mode in ("", "?mode=purge"):
        alice.delete(f"{PATH}/{purged['_id']}{mode}")
    absent = "507f1f77bcf86cd799439014"
    paths = [
        *pages(stored),
        *(url_of(stored["_id"], "revert", "1"), "/admin/nothing/", "/admin/password_change/done/"),
        *(f"/admin/auth/user/{root.pk}/{page}/" for page in ("change", "password")),
        *(f"/admin/auth/group/{role.pk}/{page}/" for page in ("change", "delete")),
        *("/admin/auth/group/", f"/admin/auth/user/{support.pk}/delete/"),
        *(url_of(id_) for id_ in (purged["_id"], absent, "nonsense")),
        *(f"{LIST}?{query}" for query in ("user=alice", "user=absent", "pinned=maybe", "held=yes")),
        f"{LIST}?q={stored['_id']},{purged['_id']},{absent}",
        *(f"{LIST}all/{action}/?user=alice" for action in ("hold", "release", "export")),
        *("/", "/api/errors", "/api/errors/NOT_FOUND"),
    ]

    with browser(viewport={"width": 1280, "height": 900}) as page:
        page.goto(f"{url}/admin/login/")
        faults = faults_of(page)
        open_list(page, url, "root")
        for path in paths:
            page.goto(f"{url}{path}")
            faults |= faults_of(page)
        page.goto(f"{url}{LIST}")
        page.locator(".action-select").first.check()
        page.locator("select[name=action]").select_option("archive")
        page.get_by_role("button", name="Run").click()
        page.wait_for_selector("form.c-form")
        faults |= faults_of(page)
        page.get_by_role("button", name="Archive").click()
        page.get_by_role("button", name="Undo").wait_for()
        faults |= faults_of(page)
        page.route("**/run/**", stay_on_page)
        page.goto(f"{url}{LIST}all/hold/?user=alice")
        page.get_by_label("Reason").fill("Case 12")
        page.get_by_role("button", name="Place a legal hold").click()
        page.wait_for_selector("progress")
        faults |= faults_of(page)
        page.unroute("**/run/**")
        page.goto(f"{url}/admin/")
        page.evaluate("document.getElementById('logout-form').submit()")
        page.wait_for_url(f"{url}/admin/logout/")
        faults |= faults_of(page)

    assert faults == set()


def stay_on_page(route) -> None:
    """Let a page load, and not submit its form."""
    if route.request.method == "GET":
        route.continue_()
    else:
        route.abort("aborted")


AXE = base.AXE_FILE_PATH.read_text(encoding="utf-8")
RUN_AXE = """
async (tags) => {
  const {violations} = await axe.run(document, {runOnly: tags, resultTypes: ["violations"]});
  return violations.filter(fault => fault.impact !== "minor").flatMap(
    fault => fault.nodes.map(node => `${fault.id}: ${node.target} ${node.failureSummary}`)
  );
}
"""
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


def faults_of(page) -> set[str]:
    """Return the faults of the page, which are at least moderate, in both themes and widths."""
    page.wait_for_selector("html:not([x-cloak])")
    page.evaluate(AXE)
    faults = set()
    for width, theme in ((1280, "light"), (390, "dark")):
        page.set_viewport_size({"width": width, "height": 900})
        page.evaluate("theme => document.documentElement.className = theme", theme)
        faults |= {f"{page.url} {width} {fault}" for fault in page.evaluate(RUN_AXE, TAGS)}
    return faults


def test_staff_log_in_without_scripts(mongo, url):
    User.objects.create_superuser("root", password=PASSWORD)
    store(mongo, 1, title="Night with Luna")

    with browser(java_script_enabled=False) as page:
        page.goto(f"{url}/admin/")
        page.locator("#id_username").fill("root")
        page.locator("#id_password").fill(PASSWORD)
        page.locator("#login-form button").click()
        page.wait_for_url(f"{url}/admin/")
        page.get_by_role("link", name="Conversations").first.click()
        page.get_by_text("Night with Luna").wait_for()


def test_the_skip_link_leads_to_the_content(mongo, url):
    User.objects.create_superuser("root", password=PASSWORD)
    focused = "document.activeElement.closest('#content') !== null"

    with browser(viewport={"width": 1280, "height": 900}) as page:
        open_list(page, url, "root")
        for path in ("/admin/", "/admin/auth/group/add/", "/admin/nothing/"):
            page.goto(f"{url}{path}")
            page.wait_for_selector("html:not([x-cloak])")
            page.evaluate("document.activeElement.blur()")
            page.locator(".c-skip").focus()
            page.keyboard.press("Enter")
            page.keyboard.press("Tab")
            assert page.evaluate(focused), path


def test_invisible_characters_are_shown_and_turn_no_text_round(alice, mongo, url):
    User.objects.create_superuser("root", password=PASSWORD)
    title = "a\u202eb\u200bc d\u200de \u2764\ufe0f \U0001f469\u200d\U0001f680"
    shown = "aU+202EbU+200Bc dU+200De \u2764\ufe0f \U0001f469\u200d\U0001f680"
    [stored] = store(mongo, 1, title="Plain", tags=["x\u202ey"])
    alice.patch(f"{PATH}/{stored['_id']}", {"title": title})

    with browser(viewport={"width": 1280, "height": 900}) as page:
        open_list(page, url, "root")
        row = page.locator(".c-title").inner_text()
        page.goto(f"{url}{url_of(stored['_id'])}")
        heading = page.locator(".c-head h2").inner_text()
        tag = page.get_by_text("xU+202Ey").first.is_visible()
        change = page.locator(".c-timeline ins").first.inner_text()
        in_tab = page.title()

    assert (row, heading, change) == (shown, shown, shown)
    assert in_tab.startswith(shown)
    assert tag


@pytest.mark.parametrize("width", [1280, 390])
def test_long_texts_break_no_row(mongo, url, width):
    User.objects.create_superuser("root", password=PASSWORD)
    [stored] = store(mongo, 1, title="Long " * 40, custom={"note": "x" * 500})
    height = "element => element.getBoundingClientRect().height"

    with browser(viewport={"width": width, "height": 900}) as page:
        open_list(page, url, "root")
        title = page.locator(".c-title")
        line = title.evaluate("element => parseFloat(getComputedStyle(element).lineHeight)")
        clamped = title.evaluate(height)
        whole = title.get_attribute("title")
        page.goto(f"{url}{url_of(stored['_id'])}")
        key = page.locator(".c-lines dt", has_text="note").evaluate(height)

    assert clamped <= 2 * line + 1
    assert whole == stored["title"]
    assert key <= line + 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_for_too_many_logins_is_readable_without_scripts(mongo, url, settings, scheme):
    settings.LOGIN_REQUESTS_PER_MINUTE = 1
    settings.REDIS_URL = ""
    ratelimit._local_counts = ratelimit.LocalCounts()

    with browser(color_scheme=scheme) as page:
        page.goto(f"{url}/admin/login/")
        page.goto(f"{url}/admin/login/")
        page.get_by_text("Too many attempts").first.wait_for()
        page.evaluate(AXE)
        faults = page.evaluate(RUN_AXE, TAGS)
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")

    assert faults == []
    assert (background == "rgb(255, 255, 255)") == (scheme == "light")
