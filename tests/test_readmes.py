"""The READMEs: equal in both languages, and correct for this repository."""

import re
from collections import Counter
from pathlib import Path

import pytest

from tests.documented import DOCUMENT

ROOT = Path(__file__).resolve().parents[1]
ENGLISH = (ROOT / "README.md").read_text(encoding="utf-8")
SPANISH = (ROOT / "README.es.md").read_text(encoding="utf-8")

both = pytest.mark.parametrize("text", [ENGLISH, SPANISH], ids=["english", "spanish"])

FENCED = re.compile(r"^```(.*?)^```$", re.MULTILINE | re.DOTALL)
TRANSLATION = re.compile(r"\*\[En español\]\((.+?)\)\*")
# `GET · PATCH /path/word · word`, with … for the common part of the rows
CALL = re.compile(r"((?:[A-Z]+(?: · )?)*) ?((?:/api/v1|/internal/v1|…)/[^ ?]+)((?: · \w+)*)")


def test_both_show_the_same_commands():
    assert _commands(ENGLISH)
    assert _commands(SPANISH) == _commands(ENGLISH)


def test_both_have_the_same_headings():
    assert _headings(SPANISH) == _headings(ENGLISH)


def test_both_name_the_same_things_in_code():
    assert Counter(_code(SPANISH)) == Counter(_code(ENGLISH))


def test_both_link_to_the_same_pages_in_their_language_and_to_each_other():
    translated = {"README.es.md": "README.md"}
    for name in _links(ENGLISH):
        page = ROOT / name
        if page.suffix == ".md" and (found := TRANSLATION.search(page.read_text("utf-8"))):
            translated[name] = (page.parent / found[1]).resolve().relative_to(ROOT).as_posix()

    assert _links(SPANISH) == {translated.get(name, name) for name in _links(ENGLISH)}


@both
def test_every_relative_link_has_a_file(text):
    missing = {link for link in _links(text) if "://" not in link and not (ROOT / link).is_file()}

    assert not missing


@both
def test_every_request_is_documented(text):
    calls = _calls(text)
    served = {
        (method.upper(), path)
        for path, operations in DOCUMENT["paths"].items()
        for method in operations
    } | {("", path) for path in DOCUMENT["paths"]}

    assert ("PATCH", "/api/v1/conversations/{id}") in calls
    assert ("POST", "/api/v1/conversations/{id}/unpin") in calls
    assert ("", "/internal/v1/activity") in calls
    assert calls <= served


def _commands(text: str) -> list[list[str]]:
    """Return the lines of each block, without comments and the blank lines that remain."""
    blocks = [
        re.sub(r"(^|\s+)# .*", "", block, flags=re.MULTILINE) for block in FENCED.findall(text)
    ]
    return [[line for line in block.splitlines() if line.strip()] for block in blocks]


def _prose(text: str) -> str:
    return FENCED.sub("", text)


def _headings(text: str) -> list[str]:
    return re.findall(r"^#+(?= )", _prose(text), re.MULTILINE)


def _code(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", _prose(text))


def _links(text: str) -> set[str]:
    found = re.findall(r"\]\(([^)#]+)[^)]*\)|<(https?://[^>]+)>", _prose(text))
    return {relative or absolute for relative, absolute in found}


def _calls(text: str) -> set[tuple[str, str]]:
    """Return each request as method and path; the method is empty if none is given."""
    calls = set()
    for line in _prose(text).splitlines():
        common = "/internal/v1" if "`/internal/v1/" in line else "/api/v1/conversations"
        for call in filter(None, map(CALL.fullmatch, _code(line))):
            methods, path, siblings = call.groups()
            parent, _, last = path.replace("…", common).rpartition("/")
            for method in methods.split(" · "):
                for name in (last, *re.findall(r"\w+", siblings)):
                    calls.add((method, f"{parent}/{name}"))
    return calls
