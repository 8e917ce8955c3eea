"""The words by which a conversation is found, taken from text that documents.fold() has folded."""

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from itertools import groupby

# Sorts after each text with the same prefix: the end of a range of texts with this prefix.
PREFIX_RANGE_END = "\U0010ffff"
# Characters of a script without spaces that are stored together, from each one on.
PIECE = 4

_ASCII_WORD = re.compile("[0-9A-Za-z]+")
# Such scripts, by the beginning of Unicode's names for their characters.
_UNSPACED = ("CJK", "HIRAGANA", "IDEOGRAPHIC", "KATAKANA", "KHMER", "LAO", "MYANMAR", "THAI")


def of(folded: str) -> list[str]:
    """Return the words of a text: what lies between characters that are no letters or digits.

    Where a script has no spaces, and among emoji, a word begins at each character.
    """
    if folded.isascii():
        return list(dict.fromkeys(_ASCII_WORD.findall(folded)))
    return list(dict.fromkeys(word for run, kind in _runs(folded) for word in _words(run, kind)))


def sought(folded: str) -> list[str]:
    """Return with what some word of a text must begin, each, for the text to be found.

    What is written without spaces is sought in pieces: up to PIECE characters are found exactly
    as they stand there, longer runs where all their pieces are.
    """
    return list(dict.fromkeys(word for run, kind in _runs(folded) for word in _asked(run, kind)))


def _words(run: str, kind: str) -> Iterator[str]:
    if kind == "spaced":
        yield run
    else:
        yield from (run[start : start + PIECE] for start in range(len(run)))


def _asked(run: str, kind: str) -> Iterator[str]:
    if kind == "spaced":
        yield run
        return
    last = max(0, len(run) - PIECE)
    yield from (run[start : start + PIECE] for start in [*range(0, last, PIECE), last])


def _runs(folded: str) -> Iterator[tuple[str, str]]:
    kind = ""
    kinds = []
    for character in folded:
        # A mark belongs to what it stands on.
        if unicodedata.category(character)[0] != "M":
            kind = _kind(character)
        kinds.append(kind)
    pairs = zip(folded, kinds, strict=True)
    for kind, run in groupby(pairs, key=lambda pair: pair[1]):
        if kind:
            yield "".join(character for character, _ in run), kind


@lru_cache(maxsize=4_096)
def _kind(character: str) -> str:
    """Return "spaced", "unspaced", or nothing for what separates words."""
    category = unicodedata.category(character)
    if category == "So":  # emoji and other symbols
        return "unspaced"
    if category[0] not in "LN":
        return ""
    return "unspaced" if unicodedata.name(character, "").startswith(_UNSPACED) else "spaced"
