"""Swagger UI and Redoc as a reader sees them."""

import pytest

from tests.conversations.admin import chromium
from tests.conversations.admin.chromium import browser, close_chromium, serving
from tests.conversations.admin.test_in_a_browser import AXE, RUN_AXE, TAGS
from tests.documented import DOCUMENT
from tests.factories import token

pytestmark = chromium.in_chromium
BROKEN = """[...document.images].filter(
    (image) => image.checkVisibility() && !image.naturalWidth).map((image) => image.outerHTML)"""
LIST, CREATE = (
    f"#operations-conversations-{operation}"
    for operation in ("listConversations", "createConversation")
)


@pytest.fixture(scope="module")
def url():
    with serving() as address:
        yield address
    close_chromium()


def test_each_operation_has_a_tag_that_is_described():
    tags = {tag["name"]: tag["description"] for tag in DOCUMENT["tags"]}
    operations = [op for path in DOCUMENT["paths"].values() for op in path.values()]

    assert {tag for op in operations for tag in op["tags"]} == {*tags}
    assert all(tags.values())
    assert len(tags) > 5


def test_swagger_opens_on_the_conversations(url):
    with browser() as page:
        page.goto(f"{url}/api/docs")
        page.wait_for_selector(".opblock")
        sections = page.eval_on_selector_all(".opblock-tag", "tags => tags.map(t => t.dataset.tag)")
        paths = page.eval_on_selector_all(
            ".opblock-summary", "all => all.slice(0, 2).map((one) => one.innerText)"
        )

        assert page.evaluate("document.documentElement.lang") == "en"

    assert sections == [tag["name"] for tag in DOCUMENT["tags"]]
    assert ["GET" in paths[0], "POST" in paths[1]] == [True, True]
    assert all("/api/v1/conversations" in path.replace("\u200b", "") for path in paths)


def test_swagger_takes_the_token_of_a_user_first_and_keeps_it(url):
    with browser() as page:
        page.goto(f"{url}/api/docs")
        page.click(".btn.authorize")
        page.wait_for_selector(".modal-ux input:focus")
        page.keyboard.type(token("reader"))
        page.keyboard.press("Enter")
        page.wait_for_selector(".modal-ux .auth-container >> text=Authorized")
        page.reload()
        page.click(LIST)
        page.click(f"{LIST} .execute")
        status = page.inner_text(f"{LIST} .live-responses-table .response .response-col_status")

    assert status.split()[0] == "200"


def test_swagger_shows_an_operation_on_few_screens(url):
    with browser(viewport={"width": 1280, "height": 900}) as page:
        page.goto(f"{url}/api/docs")
        page.click(CREATE)
        page.wait_for_selector(".opblock.is-open .responses-wrapper")
        height = page.evaluate("document.querySelector('.opblock.is-open').offsetHeight")

    assert height < 3_000


@pytest.mark.parametrize("width", [390, 1280])
def test_redoc_shows_no_broken_picture(url, width):
    with browser(viewport={"width": width, "height": 900}) as page:
        page.goto(f"{url}/api/redoc")
        page.wait_for_selector("[data-section-id]")

        assert page.evaluate("document.documentElement.lang") == "en"
        assert page.evaluate(BROKEN) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("path", "loaded"), [("/api/docs", ".opblock"), ("/api/redoc", "[data-section-id]")]
)
def test_axe_reports_no_violation_in_either_theme(url, path, loaded, scheme):
    with browser(color_scheme=scheme, viewport={"width": 1280, "height": 900}) as page:
        page.goto(f"{url}{path}")
        page.wait_for_selector(loaded)
        page.evaluate(AXE)
        faults = page.evaluate(RUN_AXE, TAGS)
        background = page.evaluate("getComputedStyle(document.documentElement).colorScheme")

    assert faults == []
    assert (background == "dark") == (scheme == "dark")
