"""The fields that indexes sort, compare and search, derived from titles and tags."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

from conversations.limits import TITLE_LENGTH

# Sorts after each text with the same prefix: the end of a range of texts with this prefix.
PREFIX_RANGE_END = "\U0010ffff"

# In scripts without spaces: the length in characters. A piece starts at every character.
PIECE = 4

_ASCII_WORD = re.compile("[0-9A-Za-z]+")
# Scripts without spaces, by the first word in their characters' Unicode names.
_UNSPACED = ("CJK", "HIRAGANA", "IDEOGRAPHIC", "KATAKANA", "KHMER", "LAO", "MYANMAR", "THAI")
_LETTERS_APART = 200  # combining class; lower ones make another letter, as in Japanese or Hindi


def derived(title: str, tags: Sequence[str]) -> dict[str, Any]:
    """Return the fields by which indexes sort, compare and search titles and tags."""
    keys = [tag_key(tag) for tag in tags]
    return {
        "title_key": sort_key(title),
        "tag_keys": keys,
        "tag_line": tag_line(keys),
        "search": [searchable(title), *map(searchable, tags)],
    }


def tag_key(tag: str) -> str:
    """Return the form in which two equal tags are the same: without case and width."""
    if tag.isascii():
        return tag.lower()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", tag).casefold())


def sort_key(title: str) -> str:
    """Return the form that orders titles: without case, accents and width."""
    return _without_accents(title)[:TITLE_LENGTH]  # a letter may expand to 18


def fold(text: str) -> str:
    """Return the form that search compares: without case, accents and width.

    Tags with the same tag_key() have the same form.
    """
    return text.lower() if text.isascii() else _without_accents(tag_key(text))


def _without_accents(text: str) -> str:
    """Remove case, width and the marks above and below a letter."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    plain = (mark for mark in decomposed if unicodedata.combining(mark) < _LETTERS_APART)
    return unicodedata.normalize("NFKC", "".join(plain))


def split_words(folded: str) -> list[str]:
    """Return a folded text's different words: runs with letters and digits.

    In scripts without spaces and among emoji, a word starts at every character and has up to
    PIECE characters.
    """
    if folded.isascii():
        return list(dict.fromkeys(_ASCII_WORD.findall(folded)))
    found: list[str] = []
    for run, is_spaced in _runs(folded):
        if is_spaced:
            found.append(run)
        else:
            found += (run[start : start + PIECE] for start in range(len(run)))
    return list(dict.fromkeys(found))


def search_prefixes(folded: str) -> list[str]:
    """Return the prefixes to look up.

    A text matches if, for every prefix, one of its words starts with it. A run without spaces is
    cut into pieces with PIECE characters: a text with all pieces matches, even if they are apart.
    """
    found: list[str] = []
    for run, is_spaced in _runs(folded):
        if is_spaced:
            found.append(run)
        else:
            last = max(0, len(run) - PIECE)
            found += (run[start : start + PIECE] for start in [*range(0, last, PIECE), last])
    return list(dict.fromkeys(found))


def _runs(folded: str) -> Iterator[tuple[str, bool]]:
    """Yield each run with letters and digits, and whether its script has spaces."""
    kind = ""
    kinds = []
    for character in folded:
        if unicodedata.category(character)[0] != "M":  # a mark belongs to the character before it
            kind = _kind(character)
        kinds.append(kind)
    pairs = zip(folded, kinds, strict=True)
    for kind, run in groupby(pairs, key=lambda pair: pair[1]):
        if kind:
            yield "".join(character for character, _ in run), kind == "spaced"


def _kind(character: str) -> str:
    """Return "spaced", "unspaced", or "" for a character that separates words."""
    category = unicodedata.category(character)
    if category == "So":  # emoji and other symbols
        return "unspaced"
    if category[0] not in "LN":
        return ""
    return "unspaced" if unicodedata.name(character, "").startswith(_UNSPACED) else "spaced"


def tag_line(keys: Iterable[str]) -> str:
    """Join tag keys, sorted, into a string with a line for each key.

    A multikey index can neither cover a query nor filter in the index.
    """
    return "\n".join(sorted(keys))


def searchable(text: str) -> dict[str, list[str]]:
    """Return the `search` element for a title or a tag.

    `search` has an element for the title and then for each tag, so that a pipeline can remove a
    tag together with its words.
    """
    return {"words": split_words(fold(text))}
