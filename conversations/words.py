"""The fields that indexes sort, compare and search, derived from titles and tags."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import Any

from conversations.folding import fold
from conversations.limits import IGNORED_LENGTH, IGNORED_WORDS, SEARCH_WORDS, TITLE_LENGTH

# Sorts after each text with the same prefix: the end of a range of texts with this prefix.
PREFIX_RANGE_END = "\U0010ffff"

# The first word of a title or a tag with words by these rules. Release 0.1.0 has stored none.
RULES_MARK = "\x02"

# In scripts without spaces: the length in characters. A piece starts at every character.
PIECE = 4
MAX_PIECES = 12  # to look up for one run; they are spread over a longer run
MAX_RUN = 250  # characters of a search between two blanks; longer than a title
MAX_EXTRA_WORDS = 16  # of a title or a tag: joined words, words with a dot, and signs

# Scripts without spaces, by the start of their characters' Unicode names.
_UNSPACED = (
    "BALINESE", "CJK", "HENTAIGANA", "HIRAGANA", "IDEOGRAPHIC", "JAVANESE", "KATAKANA", "KHMER",
    "LAO", "MYANMAR", "NEW TAI", "NUSHU", "TAI", "TANGUT", "THAI",
)  # fmt: skip

# In a shape, one character stands for each kind of character. ASCII stands for itself.
_LETTER, _DIGIT, _UNSPACED_LETTER, _MARK = "a", "0", "字", "\u0301"
_SYMBOL, _FLAG_HALF, _ZWJ, _STAND_FOR_THEMSELVES = "☺", "⚑", "\u200d", "\u200d\u20e3"
_KINDS = {"L": _LETTER, "N": _DIGIT, "M": _MARK, "S": _SYMBOL, "Co": _SYMBOL}  # by category

# C++ and C# are words; so are the parts of 1+1.
_PART = r"[a-z0-9][a-z0-9\u0301\u20e3]*(?:\+\+|\+(?![a-z0-9])|(?<![a-z0-9\u0301][a-z])(?<=[a-z])#)?"
_JOIN = r"(?:[-'._·]|(?<=[0-9]),(?=[0-9]))?"
_TOKEN = re.compile(
    rf"(?P<word>(?:(?<![\w.])\.(?=[a-z]))?{_PART}(?:{_JOIN}{_PART})*)"
    "|(?P<unspaced>字[字\u0301]*)"
    "|(?P<symbol>⚑⚑?|☺\u0301*(?:\u200d☺\u0301*)*|[^\\s\\w]\u20e3)"
)
_PARTS = re.compile(_PART)
_DOTTED = re.compile(rf"(?<!\.)\.(?=[a-z]){_PART}")
_SIGN = re.compile("[^\\w\\s☺⚑\u0301\u200d\u20e3]|_")
_AROUND_WORDS = "".join(c for c in map(chr, range(0x3100)) if unicodedata.category(c)[0] in "PZC")
_ASCII_WORD = re.compile("[0-9a-z]+")
_IN_A_WORD = re.compile("[-'._,][0-9a-z]|[+#]")  # a sign in folded ASCII text

_MARK_ABOVE_OR_BELOW = 200  # combining class
_FORMER_UNSPACED = (
    "CJK", "HIRAGANA", "IDEOGRAPHIC", "KATAKANA", "KHMER", "LAO", "MYANMAR", "THAI",
)  # fmt: skip

Clause = str | tuple[str, ...]


def derived(title: str, tags: Sequence[str]) -> dict[str, Any]:
    """Return the fields by which indexes sort, compare and search titles and tags."""
    keys = [tag_key(tag) for tag in tags]
    return {
        "title_key": sort_key(title),
        "tag_keys": keys,
        "tag_line": tag_line(keys),
        "search": [searchable(title), *map(searchable, keys)],
    }


def tag_key(tag: str) -> str:
    """Return the form in which two equal tags are the same: without case and width."""
    if tag.isascii():
        return tag.lower()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", tag).casefold())


def sort_key(title: str) -> str:
    """Return the form that orders titles: without case, accents and width."""
    return _without_accents(title)[:TITLE_LENGTH]  # a letter may expand to 18


def _without_accents(text: str) -> str:
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    plain = (mark for mark in decomposed if unicodedata.combining(mark) < _MARK_ABOVE_OR_BELOW)
    return unicodedata.normalize("NFKC", "".join(plain))


def tag_line(keys: Iterable[str]) -> str:
    """Join tag keys, sorted, into a string with a line for each key.

    A multikey index can neither cover a query nor filter in the index.
    """
    return "\n".join(sorted(keys))


def searchable(text: str) -> dict[str, list[str]]:
    """Return the `search` element for a title or a tag key: equal tags have equal words.

    `search` has an element for the title and then for each tag, so that a pipeline can remove a
    tag together with its words.
    """
    words = split_words(text)
    return {"words": [RULES_MARK, *words] if words else words}


def split_words(text: str) -> list[str]:
    """Return a text's different words, by the rules of docs/guide/search.md.

    The last words, MAX_EXTRA_WORDS at most, are the joined ones (`wifi` for *Wi-Fi*), the ones with
    a dot (`.net` for *ASP.NET*) and the signs.
    """
    folded = text.lower() if text.isascii() else fold(text)
    if folded.isascii() and not _IN_A_WORD.search(folded):
        signs = dict.fromkeys(_SIGN.findall(folded))
        return [*dict.fromkeys(_ASCII_WORD.findall(folded)), *list(signs)[:MAX_EXTRA_WORDS]]
    shape = _shape(folded)
    words: list[str] = []
    extra: list[str] = []
    for token in _TOKEN.finditer(shape):
        start, end = token.span()
        run = folded[start:end]
        if token.lastgroup == "unspaced":
            words += (run[at : at + PIECE] for at in range(len(run)))
        elif token.lastgroup == "symbol":
            words += run.split(_ZWJ)
            extra.append(run)
        elif run.isalnum():
            words.append(run)
        else:
            parts = _parts(folded, shape, start, end)
            words += parts
            extra.append("".join(parts))
            extra += (folded[m.start() : m.end()] for m in _DOTTED.finditer(shape, start, end))
    different = dict.fromkeys(words)
    extra = [
        word for word in dict.fromkeys([*extra, *_SIGN.findall(shape)]) if word not in different
    ]
    return [*different, *extra[:MAX_EXTRA_WORDS]]


def longest_words(tag: str) -> list[str]:
    """Return a tag's longest word by the present and by the former rules; equal tags share them.

    Returns no words if the tag has no word by the present or by the former rules.
    """
    by_rules = (split_words(tag_key(tag)), _former_prefixes(tag))
    longest = [max(words, key=len, default="") for words in by_rules]
    return [*dict.fromkeys(longest)] if all(longest) else []


def _parts(folded: str, shape: str, start: int, end: int) -> list[str]:
    return [folded[part.start() : part.end()] for part in _PARTS.finditer(shape, start, end)]


@dataclass(frozen=True)
class Lookup:
    """The words to look up for a search.

    A text matches if, for each clause, one of its words starts with the clause's prefix, or with
    one of the clause's prefixes. `former` has the prefixes for texts without RULES_MARK, if such a
    text can match them but not the clauses. `ignored` has the words after the first SEARCH_WORDS.
    """

    clauses: list[Clause] = field(default_factory=list)
    former: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)


def prefixes(clause: Clause) -> tuple[str, ...]:
    return (clause,) if isinstance(clause, str) else clause


def look_up(text: str, *, signs: bool = True) -> Lookup:
    """Return the words to look up.

    Signs count only in a text without words and symbols, and only with `signs`.
    """
    found: dict[Clause, None] = {}
    former: dict[str, None] = {}
    ignored: dict[str, None] = {}
    room = SEARCH_WORDS
    chunks = text.split()
    for number, chunk in enumerate(chunks):
        if not room:
            for rest in chunks[number:]:
                word = rest[:IGNORED_LENGTH].strip(_AROUND_WORDS)
                if word and fold(word) not in found:
                    ignored[word] = None
            break
        words = {
            word: clauses
            for word, clauses in _words_of_search(chunk[:MAX_RUN])
            if not found.keys() >= {*clauses}
        }
        if words:
            former |= dict.fromkeys(_former_prefixes(chunk[:MAX_RUN]))
        for word, clauses in words.items():
            if room:
                found |= dict.fromkeys(clauses)
                room -= 1
            else:
                ignored[word] = None
    if not found and signs:
        every = [*dict.fromkeys(_SIGN.findall(_shape(fold(text[:MAX_RUN]))))]
        found, ignored = dict.fromkeys(every[:SEARCH_WORDS]), dict.fromkeys(every[SEARCH_WORDS:])
    are_implied = all(any(word.startswith(prefixes(clause)) for word in former) for clause in found)
    return Lookup(
        [*found],
        [] if are_implied else [*former][:MAX_PIECES],
        [word[:IGNORED_LENGTH] for word in islice(ignored, IGNORED_WORDS)],
    )


def _words_of_search(chunk: str) -> Iterator[tuple[str, list[Clause]]]:
    """Yield each word with its clauses: *Wi-Fi* matches `wi` and `fi`, or `wifi`.

    A run without spaces is one word, which is cut into pieces. A text with all pieces matches, even
    if they are apart.
    """
    folded = fold(chunk)
    shape = _shape(folded)
    for token in _TOKEN.finditer(shape):
        start, end = token.span()
        run = folded[start:end]
        if token.lastgroup == "unspaced":
            last = max(0, len(run) - PIECE)
            starts = [*range(0, last, PIECE), last]
            if (size := len(starts)) > MAX_PIECES:
                starts = [starts[n * (size - 1) // (MAX_PIECES - 1)] for n in range(MAX_PIECES)]
            yield run, [run[at : at + PIECE] for at in starts]
        elif token.lastgroup == "symbol":
            yield run, [run]
        else:
            first, *others = _parts(folded, shape, start, end)
            joined = "".join([first, *others])
            first = f".{first}" if run.startswith(".") else first
            yield first, [first]
            for part in others:
                yield part, [(part, joined)]


def _shape(folded: str) -> str:
    """Return a text as long as `folded`, with one character for each kind of character."""
    return folded if folded.isascii() else "".join(map(_kind, folded))


def _kind(character: str) -> str:
    category = unicodedata.category(character)
    if character.isascii() or character in _STAND_FOR_THEMSELVES or category[0] == "P":
        return character
    if category[0] in "LN" and unicodedata.name(character, "").startswith(_UNSPACED):
        return _UNSPACED_LETTER
    if "\U0001f1e6" <= character <= "\U0001f1ff":
        return _FLAG_HALF
    return _KINDS.get(category[0]) or _KINDS.get(category, " ")


def _former_prefixes(text: str) -> list[str]:
    """Return the prefixes that release 0.1.0 looks up, which has also stored words by its rules.

    Needed until manage.py reindex_search has derived the words of all conversations again.
    """
    folded = text.lower() if text.isascii() else _without_accents(tag_key(text))
    kind = ""
    kinds = []
    for character in folded:
        if unicodedata.category(character)[0] != "M":  # a mark belongs to the character before it
            kind = _former_kind(character)
        kinds.append(kind)
    found: list[str] = []
    for kind, pairs in groupby(zip(folded, kinds, strict=True), key=lambda pair: pair[1]):
        run = "".join(character for character, _ in pairs)
        if kind == "spaced":
            found.append(run)
        elif kind:
            last = max(0, len(run) - PIECE)
            found += (run[start : start + PIECE] for start in [*range(0, last, PIECE), last])
    return found


def _former_kind(character: str) -> str:
    category = unicodedata.category(character)
    if category == "So":
        return "unspaced"
    if category[0] not in "LN":
        return ""
    name = unicodedata.name(character, "")
    return "unspaced" if name.startswith(_FORMER_UNSPACED) else "spaced"
