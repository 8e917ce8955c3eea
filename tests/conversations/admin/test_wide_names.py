"""Titles and tags in any script, with signs and quotes, are shown and exported as they are."""

import csv
import io
import json

import pytest
from django.contrib.auth.models import User
from django.utils.html import escape

from tests.conversations.admin import chromium
from tests.conversations.admin.browser import LIST, PASSWORD, select, shown, store, url_of
from tests.conversations.admin.chromium import browser, serving
from tests.factories import PATH, WIDE_NAMES

BY_TENS = [WIDE_NAMES[at : at + 10] for at in range(0, len(WIDE_NAMES), 10)]


def with_codes(name):
    """Return a name as the page's script shows it: marks for the direction by their code."""
    return name.replace("\u202e", "U+202E").replace("\u202c", "U+202C")


def test_the_record_page_shows_each_tag(viewer, mongo):
    for names in BY_TENS:
        [stored] = store(mongo, 1, tags=names)

        page = viewer.get(url_of(stored["_id"])).content.decode()

        assert [f'<span class="c-badge">{escape(name)}</span>' in page for name in names] == [
            True
        ] * len(names)


@chromium.in_chromium
@pytest.mark.parametrize("language", ["en", "es"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_each_name_on_a_page_that_fits(
    alice, mongo, settings, scheme, language, tmp_path
):
    settings.ALLOWED_HOSTS = ["127.0.0.1"]
    settings.LANGUAGE_CODE = language
    User.objects.create_superuser("root", password=PASSWORD)
    stored = [store(mongo, 1, title=names[-1], tags=names)[0] for names in BY_TENS]
    for row, names in zip(stored, BY_TENS, strict=True):
        for tags in ([], names):  # the history shows them, too
            assert alice.patch(f"{PATH}/{row['_id']}", {"tags": tags}).status_code == 200
    wide, badges = [], []

    with (
        serving() as url,
        browser(color_scheme=scheme, locale=language) as page,
    ):
        chromium.open_list(page, url, "root")
        for width in (1280, 390):
            page.set_viewport_size({"width": width, "height": 900})
            for number, row in enumerate(stored):
                page.goto(f"{url}{url_of(row['_id'])}")
                badges.append(page.locator(".c-head .c-badge").all_text_contents()[1:])
                page.screenshot(
                    full_page=True, path=tmp_path / f"{width}-{scheme}-{language}-{number}.png"
                )
                if page.evaluate("document.documentElement.scrollWidth") > width:
                    wide.append((number, width))

    assert wide == []
    assert badges == [[*map(with_codes, names)] for names in BY_TENS] * 2


def test_the_list_and_its_search_show_each_title(viewer, mongo):
    for name in WIDE_NAMES:
        store(mongo, 1, title=name)

    assert set(shown(viewer.get(LIST))) == {*WIDE_NAMES}
    for name in WIDE_NAMES:
        page = viewer.get(LIST, {"q": name, "status__exact": "active"})
        assert name in shown(page)
        title = escape(name)
        assert f'<span class="c-title" title="{title}">{title}</span>' in page.content.decode()
        assert f'value="{escape(name)}"' in page.content.decode()


def test_csv_and_ndjson_have_each_title_once(ops, mongo):
    stored = [store(mongo, 1, title=name)[0]["_id"] for name in WIDE_NAMES]

    table = b"".join(select(ops, "export_csv", *stored).streaming_content).decode()
    lines = b"".join(select(ops, "export_ndjson", *stored).streaming_content).decode()

    rows = [*csv.DictReader(io.StringIO(table.removeprefix("\ufeff"), newline=""))]
    by_id = {row["id"]: row["title"] for row in rows}
    plain = {str(id_): name for id_, name in zip(stored, WIDE_NAMES, strict=True)}
    assert {id_: title.removeprefix("'") for id_, title in by_id.items()} == plain
    assert {id_ for id_, title in by_id.items() if title != plain[id_]} == {
        id_ for id_, name in plain.items() if name.startswith(("=", "@", "-", "+"))
    }
    assert {row["id"]: row["title"] for row in map(json.loads, lines.splitlines())} == plain
