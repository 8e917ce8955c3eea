"""Pages in Spanish: the same sections, code and tables as in English."""

import re
from collections import Counter
from os.path import relpath
from pathlib import Path

import pytest

from config.env import BASE_DIR
from tests.docs.guide import PAGES, PAGES_IN_SPANISH

by_page = pytest.mark.parametrize(
    ("english", "spanish"),
    [
        *zip(PAGES, PAGES_IN_SPANISH, strict=True),
        (BASE_DIR / "docs" / "versioning.md", BASE_DIR / "docs" / "versionado.md"),
    ],
    ids=lambda page: page.stem,
)

BLOCK = re.compile(r"^```\w*\n.*?^```$", re.MULTILINE | re.DOTALL)


def prose(page: Path) -> str:
    return BLOCK.sub("", page.read_text("utf-8"))


@by_page
def test_both_languages_have_the_same_code(english: Path, spanish: Path):
    shown = BLOCK.findall(english.read_text("utf-8"))

    assert shown
    assert BLOCK.findall(spanish.read_text("utf-8")) == shown


@by_page
@pytest.mark.parametrize(
    "form",
    [r"^#+(?= )", r"^- ", r"^\|.*\|$", r"\]\([^)]+\.md"],
    ids=["sections", "lists", "tables", "links"],
)
def test_both_languages_have_the_same_form(english: Path, spanish: Path, form: str):
    found = [re.findall(form, prose(page), re.MULTILINE) for page in (english, spanish)]

    if form.startswith("^#"):
        assert found[0] == found[1]
    else:
        counts = [[part.count("|") for part in parts] for parts in found]
        assert counts[0] == counts[1]


@by_page
def test_both_languages_name_the_same_things_in_code(english: Path, spanish: Path):
    named = [Counter(re.findall(r"`[^`\n]+`", prose(page))) for page in (english, spanish)]

    assert named[0] == named[1]


@by_page
def test_each_page_links_to_the_other_language(english: Path, spanish: Path):
    for language, page, other in (
        ("En español", english, spanish),
        ("In English", spanish, english),
    ):
        link = relpath(other, page.parent)
        assert f"\n\n*[{language}]({link})*\n" in prose(page)
