# ruff: noqa: RUF001
"""The form in which search compares letters, digits and signs, by the practice of each script.

Unicode decomposes many letters into a base letter and marks, but not all: *đ* and *ø* are letters
of their own. For Latin letters this follows CLDR's transform Latin-ASCII, which PostgreSQL's
`unaccent` uses too; for Arabic, Persian and Hindi the normalizers of Lucene and Meilisearch. ICU
folds more, but it is a large library and folds й to и and ӂ to ж. Unidecode transliterates
between scripts.
"""

import re
import unicodedata
from collections.abc import Iterable
from itertools import chain

from conversation_service.visibility import IGNORABLE

_MARK_ABOVE_OR_BELOW = 200  # combining class; lower ones make another letter, as in Japanese

# Also the Arabic tatweel, which stretches a word, the marks of annotations, and the skin tones.
_LEFT_OUT = f"{IGNORABLE}\u0640\ufff9-\ufffb\U0001f3fb-\U0001f3ff"
_PICTURES = "\u2190-\u2bff\U0001f000-\U0001faff"
_ARABIC, _HEBREW = "\u0621-\u06ff\ufb50-\ufefc", "\u05d0-\u05f2"
_KANA = "\u3041-\u3096\u30a1-\u30fa\u30fc\uff66-\uff9f"
_REMOVED = re.compile(
    rf"[{_LEFT_OUT}]"
    # The zero width joiner stays between pictures: 👩‍💻 is another picture than 👩💻.
    rf"|(?<![{_PICTURES}\ufe0f])\u200d|\u200d(?![{_PICTURES}])"
    rf"|(?<=[{_KANA}])[\u30fb\uff65](?=[{_KANA}])"  # スパイダー・マン
)
# Writers put a zero width non-joiner, a hyphen or a space between two parts of a Persian word.
_PERSIAN_HYPHEN = re.compile(rf"(?<=[{_ARABIC}])\u200c(?=[{_ARABIC}])")
_HEBREW_ABBREVIATION = re.compile(rf'(?<=[{_HEBREW}])["\u05f4](?=[{_HEBREW}])')

# Pictures that NFKC would replace by letters: private characters stand for them. The acute accent,
# which it would replace by a space. №, so that №7 is the same as № 7 and No7.
_PICTURES_OF_LETTERS = (
    "\u2122\u2139\u24c2\u3297\u3299\U0001f201\U0001f202\U0001f21a\U0001f22f\U0001f232\U0001f233"
    "\U0001f234\U0001f235\U0001f236\U0001f237\U0001f238\U0001f239\U0001f23a\U0001f250\U0001f251"
)
_BEFORE_NFKC: dict[int, str] = {
    ord(picture): chr(0xE000 + number) for number, picture in enumerate(_PICTURES_OF_LETTERS)
} | {0xB4: "'", 0x2116: "no·"}

# Not decomposed: Cyrillic, in which й and ў are letters of their own; and signs such as ≠.
_DECOMPOSED = re.compile("[^\u0400-\u052f\u2190-\u22ff\u2a00-\u2aff]+")

# One letter, or two, in the names of Latin letters: L WITH STROKE, AE, SMALL CAPITAL G.
_LATIN = re.compile(
    r"LATIN (?:SMALL LETTER|SMALL LIGATURE|LETTER SMALL CAPITAL) ([A-Z]{1,2})(?: WITH .+| DIGRAPH)?"
)
_OTHER_LETTERS = {
    "i": "ıɩ", "j": "ȷ", "a": "ɑ", "e": "əǝɛɜ", "o": "ɔ", "u": "ʊ", "d": "ð", "g": "ɡɣȝ",
    "n": "ŋ", "q": "ĸ", "s": "ʃ", "z": "ʒ", "th": "þ", "w": "ƿ",
    "е": "ёѐ", "и": "ѝ", "г": "ґ",
    # Keyboards for Arabic, Persian, Urdu, Kurdish and Uyghur have different letters for the same.
    "\u0627": "\u0671", "\u0647": "\u0629\u06c1\u06c3\u06be\u06d5", "\u0643": "\u06a9\u06aa",
    "\u064a": "\u0649\u06cc",
    "\u05d5\u05d5": "\u05f0", "\u05d5\u05d9": "\u05f1", "\u05d9\u05d9": "\u05f2",
    "\u0902": "\u0901",  # चाँद, चांद
    # Malayalam letters without a vowel: before Unicode 5.1 a consonant, a virama and a joiner.
    "\u0d23\u0d4d": "\u0d7a", "\u0d28\u0d4d": "\u0d7b", "\u0d30\u0d4d": "\u0d7c",
    "\u0d32\u0d4d": "\u0d7d", "\u0d33\u0d4d": "\u0d7e", "\u0d15\u0d4d": "\u0d7f",
    "'": "`‘’‚‛′ʹʻʼʽʾʿˈˊˋ՚׳ꞌ", '"': "“”„‟″״«»", "-": "‐‑‒–—―−֊־⁻", "·": "‧•∙⋅",
    "#": "♯",
}  # fmt: skip
_NUKTA = 0x93C  # Hindi is written with and without it
# Scripts in which each mark can be left out: Latin and Greek, Hebrew, Arabic.
_OPTIONAL_MARKS = [
    range(0x300, 0x370), range(0x591, 0x5C8), range(0x610, 0x61B), range(0x64B, 0x660),
    range(0x670, 0x671), range(0x6D6, 0x6EE), range(0x8CA, 0x900),
]  # fmt: skip
# All marks above or below, digits and Latin letters are in these ranges, or NFKC replaces them.
_SCANNED = [
    range(0x80, 0x3100), range(0xA4D0, 0xAC00), range(0xFE20, 0xFE30), range(0x10000, 0x12000),
    range(0x16A00, 0x16C00), range(0x1DF00, 0x1E000), range(0x1E000, 0x1EA00),
]  # fmt: skip

# Hangul as its keystrokes, so that a syllable which is not yet complete is a prefix: 하, 한, 하나.
_INITIALS = "ㄱㄲㄴㄷㄸㄹㅁㅂㅃㅅㅆㅇㅈㅉㅊㅋㅌㅍㅎ"
_VOWELS = "ㅏ ㅐ ㅑ ㅒ ㅓ ㅔ ㅕ ㅖ ㅗ ㅗㅏ ㅗㅐ ㅗㅣ ㅛ ㅜ ㅜㅓ ㅜㅔ ㅜㅣ ㅠ ㅡ ㅡㅣ ㅣ"
_FINALS = (
    "ㄱ ㄲ ㄱㅅ ㄴ ㄴㅈ ㄴㅎ ㄷ ㄹ ㄹㄱ ㄹㅁ ㄹㅂ ㄹㅅ ㄹㅌ ㄹㅍ ㄹㅎ "
    "ㅁ ㅂ ㅂㅅ ㅅ ㅆ ㅇ ㅈ ㅊ ㅋ ㅌ ㅍ ㅎ"
)


def fold(text: str) -> str:
    """Return the form in which two spellings of a word are the same."""
    if text.isascii():
        return text.lower()
    text = _PERSIAN_HYPHEN.sub("-", text)
    text = _REMOVED.sub("", text).replace("\u200c", "").translate(_BEFORE_NFKC)
    text = unicodedata.normalize("NFKC", text)
    text = _DECOMPOSED.sub(lambda run: unicodedata.normalize("NFD", run[0]), text)
    text = text.translate(_MARKS).casefold()
    text = unicodedata.normalize("NFC", text.translate(_LETTERS))
    text = text.replace("\u0565\u0582", "\u0565\u057e")  # Armenian capitals have no և
    text = text.replace("เเ", "แ")  # which look the same
    return _HEBREW_ABBREVIATION.sub("'", text)


def _optional_marks() -> Iterable[int]:
    for code in chain(*_SCANNED):
        if unicodedata.combining(chr(code)) >= _MARK_ABOVE_OR_BELOW:
            yield code
    for code in chain(*_OPTIONAL_MARKS):
        if unicodedata.category(chr(code)) == "Mn":
            yield code
    yield _NUKTA


def _letters() -> dict[int, str]:
    """Return a table for str.translate(), for decomposed text in lower case."""
    table: dict[int, str] = {}
    for code in chain(*_SCANNED):
        character = chr(code)
        digit = unicodedata.decimal(character, None)
        if digit is not None:
            table[code] = str(digit)
        elif match := _LATIN.fullmatch(unicodedata.name(character, "")):
            table[code] = match[1].lower()
    for letter, others in _OTHER_LETTERS.items():
        table |= dict.fromkeys(map(ord, others), letter)
    table |= dict(enumerate(_INITIALS, 0x1100))
    table |= dict(enumerate(_VOWELS.split(), 0x1161))
    return table | dict(enumerate(_FINALS.split(), 0x11A8))


_MARKS = dict.fromkeys(_optional_marks())
_LETTERS = _letters()
