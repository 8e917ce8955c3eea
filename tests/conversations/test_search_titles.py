"""Search over titles in more than 50 languages, as their users type them."""

import json
import unicodedata
from pathlib import Path

import pytest
from pymongo.database import Database

from conversation_service import clock
from conversations import documents
from conversations.words import MAX_EXTRA_WORDS, split_words
from tests.conversations.test_search import found
from tests.documented import DocumentedClient
from tests.factories import PATH, conversation

TITLES = json.loads((Path(__file__).parent.parent / "data" / "titles.json").read_text("utf-8"))
each_title = pytest.mark.parametrize(
    "entry", TITLES, ids=[f"{number} {e['language']}" for number, e in enumerate(TITLES)]
)
# Letters with marks that can be left out: Latin, Greek, Hebrew, Arabic.
WITHOUT_ACCENTS = [(0x41, 0x250), (0x370, 0x400), (0x591, 0x5F5), (0x600, 0x700), (0x1E00, 0x2000)]


@pytest.fixture
def others(mongo: Database) -> None:
    """Alice has conversations with all titles."""
    mongo["conversations"].insert_many(
        documents.new(
            user_id="alice", character_id="luna", now=clock.now(), title=entry["title"], tags=[]
        )
        for entry in TITLES
    )


@each_title
def test_each_prefix_of_a_title_is_accepted(alice: DocumentedClient, entry: dict) -> None:
    title = entry["title"]
    conversation(alice, title=title)

    statuses = {
        end: alice.get(PATH, {"search": title[:end]}).status_code for end in range(len(title) + 1)
    }

    assert {end: status for end, status in statuses.items() if status != 200} == {}


def without_accents(word: str) -> str:
    plain = ""
    for character in word:
        if any(start <= ord(character) < end for start, end in WITHOUT_ACCENTS):
            decomposed = unicodedata.normalize("NFD", character)
            plain += "".join(c for c in decomposed if unicodedata.category(c) != "Mn")
        else:
            plain += character
    return plain


def in_full_width(word: str) -> str:
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in word)


SPELLINGS = {
    "as it is": str,
    "upper case": str.upper,
    "lower case": str.lower,
    "first letter in upper case": str.capitalize,
    "without accents": without_accents,
    "full width": in_full_width,
    "NFD": lambda word: unicodedata.normalize("NFD", word),
    "curly quotes": lambda word: word.replace("'", "\u2019"),
    "straight quotes": lambda word: word.replace("\u2019", "'"),
    "long dashes": lambda word: word.replace("-", "\u2013"),
}


@each_title
def test_a_title_is_found_by_each_word_in_each_spelling(alice, others, entry):
    searches = {spelled(w) for w in entry["title"].split() for spelled in SPELLINGS.values()}

    missed = [
        search for search in searches if entry["title"] not in found(alice, search, limit=100)
    ]

    assert missed == []


@each_title
def test_a_title_is_found_as_users_type_it(alice, others, entry):
    missed = [s for s in entry["typed"] if entry["title"] not in found(alice, s, limit=100)]

    assert missed == []


@each_title
def test_a_title_is_found_by_the_whole_title(alice, others, entry):
    assert entry["title"] in found(alice, entry["title"], limit=100)


@pytest.mark.parametrize(
    ("title", "search"),
    [
        ("Мои планы", "мой"),  # й is another letter
        ("\u0456 мир", "\u0457"),
        ("ハス", "バス"),  # dakuten
        ("かふぇ", "カフェ"),  # the two kana stay apart
        ("कल", "काल"),
        ("হযেছে", "হয়েছে"),
        ("มา", "ม้า"),
        ("Cat", "c++"),
        ("Cologne", "c#"),
        ("Net worth", ".net"),
        ("No fun", "№5"),
        ("100 things", "1\ufe0f\u20e3"),
        ("Information", "\u2139\ufe0f"),
        ("Time", "™"),
        ("🇫🇷🇪🇸", "🇷🇪"),
        ("👩 and 💻", "👩\u200d💻"),
        ("Hearts", "❤"),
        ("a = b", "≠"),
        ("Hello world", "!"),
        ("Hello world", "🎉"),
        ("하나", "한국"),
    ],
)
def test_another_letter_or_sign_is_not_found(alice, title, search):
    conversation(alice, title=title)

    assert found(alice, search) == []
    assert found(alice, title) == [title]


@each_title
def test_a_title_has_a_bounded_number_of_words(entry):
    title = entry["title"]

    assert len(split_words(title)) <= len(title) + MAX_EXTRA_WORDS


def test_a_title_of_signs_and_joined_words_has_a_bounded_number_of_words():
    signs = "".join(map(chr, [*range(0x21, 0x30), *range(0x2010, 0x2060)]))
    joined = "a-b.c " * 33

    for title in (signs, joined, " ".join(f"a{n}-b" for n in range(40))):
        parts = {part for word in title.split() for part in word.replace(".", "-").split("-")}
        assert len(split_words(title)) <= len(parts) + MAX_EXTRA_WORDS
