"""Search: words in any spelling, literal operators, and a bounded number of reads."""

import json
import signal
import time
import unicodedata
from itertools import product

import pytest
from django.core.management import CommandError, call_command
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from time_machine import travel

from conversation_service import clock
from conversations import documents, words
from conversations.documents import SORT_KEYS
from conversations.folding import fold
from conversations.queries import search as search_query
from conversations.writes import search_index
from tests.conversations.plans import explainable
from tests.conversations.test_listing import listed, titles, walk
from tests.factories import PATH, client_of, conversation
from tests.running import started

SUPPRESSED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


def found(client, search, **parameters):
    return sorted(titles(listed(client, search=search, **parameters)))


@pytest.fixture
def three(alice):
    with travel("2026-03-01T00:00:00Z", tick=False):
        conversation(
            client_of("alice"), title="Café con Luna", tags=["role play"], character_id="luna"
        )
    with travel("2026-03-02T00:00:00Z", tick=False):
        conversation(client_of("alice"), "pinned", title="Lunar eclipse", tags=["Río"])
    with travel("2026-03-03T00:00:00Z", tick=False):
        conversation(client_of("alice"), "archived", title="Moon role", tags=["play"])
    conversation(client_of("bob"), title="Luna of bob")


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        ("caf", ["Café con Luna"]),
        ("CAFÉ", ["Café con Luna"]),
        ("\uff2c\uff35\uff2e\uff21", ["Café con Luna", "Lunar eclipse"]),
        ("lunar", ["Lunar eclipse"]),
        ("luna caf", ["Café con Luna"]),
        ("luna, (café)", ["Café con Luna"]),
        ("una", []),
        ("luna moon", []),
        ("rio", ["Lunar eclipse"]),
        ("luna pl", ["Café con Luna"]),
        ("tag:play", []),
        ('tag:"role play"', ["Café con Luna"]),
        ('TAG:"ROLE play', ["Café con Luna"]),
        ('luna tag:"role play"', ["Café con Luna"]),
        ('lunar tag:"role play"', []),
        ("tag:RÍO", ["Lunar eclipse"]),
        ("tag:rio", []),
        ("character:luna is:pinned", ["Lunar eclipse"]),
        ("character:sol", []),
        ("is:pinned", ["Lunar eclipse"]),
        ("is:archived", ["Moon role"]),
        ("is:archived is:pinned", []),
        ("before:2026-03-02", ["Café con Luna"]),
        ("after:2026-03-01", ["Lunar eclipse"]),
        ("after:2026-02-28T23:00:00Z before:2026-03-02T01:00:00+01:00", ["Café con Luna"]),
        ("nothing:luna", []),
        ("con:luna", ["Café con Luna"]),
        ('"luna', ["Café con Luna", "Lunar eclipse"]),
        ('lu"na', []),
        ("", ["Café con Luna", "Lunar eclipse"]),
        ("  \u200b ", ["Café con Luna", "Lunar eclipse"]),
        ('  ... !? ""', []),
        ("luna ... !?", ["Café con Luna", "Lunar eclipse"]),
    ],
)
def test_a_search_matches_words_of_titles_and_tags(alice, three, search, expected):
    assert found(alice, search) == expected


def test_search_combines_with_every_filter(alice, three):
    assert found(alice, "role", status="all") == ["Café con Luna", "Moon role"]
    assert found(alice, "luna", pinned="true") == ["Lunar eclipse"]
    assert found(alice, "luna", tags="río") == ["Lunar eclipse"]
    assert found(alice, "play", status="archived", tags="play") == ["Moon role"]
    assert found(alice, "is:archived", status="active") == ["Moon role"]
    assert found(alice, "is:pinned", pinned="false") == []
    assert found(alice, "character:luna", character_id="sol") == []
    assert found(alice, "after:2026-03-01", activity_before="2026-03-01T00:00:00Z") == []


@pytest.mark.parametrize(
    ("title", "hits", "misses"),
    [
        (
            "東京の夜に会話する",
            ["東京", "京の", "夜", "夜に会話", "東京の夜に会話する"],
            ["京東", "昼"],
        ),
        ("夜のカフェ chat", ["カフェ", "ｶﾌｪ", "chat", "夜 chat"], ["かふぇ"]),
        ("สนทนายามค่ำ", ["สนทนา", "ยาม", "ค่ำ"], ["เช้า"]),
        ("한국어 대화", ["한국", "대화"], ["국어"]),
        ("हिन्दी में", ["हिन्", "में"], ["न्दी"]),
        ("party🎉🎈", ["🎉", "🎈", "part"], ["🎃"]),
        ("Straße ﬁn №5", ["STRASSE", "fi", "no5"], ["trasse"]),
        ("x-y_z.1", ["x-y", "z.1", "y"], ["x2"]),
    ],
)
def test_words_of_other_scripts_are_found(alice, title, hits, misses):
    conversation(alice, title=title)

    for hit in hits:
        assert found(alice, hit) == [title], hit
    for miss in misses:
        assert found(alice, miss) == [], miss


LETTERS = st.characters(categories=["Lu", "Ll", "Nd"], max_codepoint=0x0587)
WORDS = st.lists(st.text(LETTERS, min_size=1, max_size=8), min_size=1, max_size=4)
SPELLINGS = [
    str,
    str.upper,
    str.lower,
    str.title,
    lambda text: unicodedata.normalize("NFD", text),
    lambda text: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text),
    lambda text: "".join(c + "\u0301" for c in text),
]


@settings(max_examples=40, deadline=None, suppress_health_check=SUPPRESSED)
@given(
    words=WORDS,
    in_tags=st.booleans(),
    spelling=st.sampled_from(SPELLINGS),
    data=st.data(),
)
def test_any_prefix_of_any_word_matches(mongo, words, in_tags, spelling, data):
    title, tags = ("x", [" ".join(words)[:50].strip()]) if in_tags else (" ".join(words), [])
    tags = [unicodedata.normalize("NFC", tag) for tag in tags]
    whole = (tags or [title])[0]
    word = data.draw(st.sampled_from(unicodedata.normalize("NFC", whole).split()))
    beginning = spelling(word[: data.draw(st.integers(1, len(word)))])
    same = fold(word).startswith(fold(beginning)) and "".join(fold(beginning).split())
    mongo["conversations"].delete_many({})
    mongo["conversations"].insert_one(
        documents.new(user_id="alice", character_id="luna", now=clock.now(), title=title, tags=tags)
    )

    if same:
        assert len(found(client_of("alice"), beginning)) == 1
    assert found(client_of("alice"), f"{beginning} qqqq") == []


@pytest.mark.parametrize(
    "search",
    [
        "$where",
        ".*",
        '{"$gt":""}',
        "^luna",
        "luna\\",
        "[$ne]",
        "(",
        '"',
        '""""',
        "tag",
        "a:b:c",
        "::",
    ],
)
def test_hostile_text_is_searched_literally(alice, three, search):
    words = fold(search).strip('$.*{}[]()^\\":, ')

    assert found(alice, search) == (found(alice, words) if words else [])


@pytest.mark.parametrize(
    ("search", "title"),
    [
        ("before:", "Before"),
        ("before:2026-01-", "Before 2026-01-15"),
        ("Before:yesterday", "Yesterday before noon"),
        ("after:2026-02-30", "After 2026-02-30"),
        ("after:2026-01-15T15:00:00", "After 2026-01-15T15:00:00"),
        ("after:20260115", "20260115 and after"),
        ("after:2026-01-15T15:00:00+99:00", "After 2026-01-15T15:00:00 +99:00"),
        ("tag:", "Tag"),
        ("tag: luna", "A tag of Luna"),
        ("tag:a,b", "Tag a b"),
        ('tag:""', "Tag"),
        ('tag:"a, b"', "Tag a b"),
        ("tag:" + "x" * 51, "Tag " + "x" * 51),
        ("character:", "Character"),
        ("character:é", "Character é"),
        ("is:", "Is"),
        ("is:deleted", "Is deleted"),
        ("is:pin", "Is this a pin"),
        ("from:ana", "From Ana"),
        ("https://example.org", "https://example.org"),
        ('say "hello', "Say hello"),
        ('say" hello', 'Say" hello'),
        ("nul\0 and\x1f\x85\u2028\ufffd lines", "Nul and lines"),
    ],
)
def test_an_invalid_operator_is_searched_as_words(alice, search, title):
    conversation(alice, title=title)
    conversation(alice, title="Another")

    assert found(alice, search) == [title]
    assert found(alice, f"{search} qqqq") == []


def test_bytes_that_are_not_utf_8_and_lone_surrogates_are_no_words(alice, three):
    for query in ("search=luna%ED%A0%80", "search=luna%FF%00", "search=%00luna"):
        response = alice.get(f"{PATH}?{query}")
        assert titles(response.json()) == ["Lunar eclipse", "Café con Luna"], query


def test_the_first_eight_words_are_searched_and_the_others_are_listed(alice):
    title = "One two three four five six seven eight"
    conversation(alice, title=title)

    for search, ignored in (
        ("luna", []),
        (title, []),
        (f"{title}, (NINE) - c++ nine", ["NINE", "c++", "nine"]),
        (f"{title} eight, nine-ten", ["nine-ten"]),
        ("one two three four five six seven-eight-nine", ["nine"]),
    ):
        body = listed(alice, search=search)
        assert body["search"] == {"ignored": ignored}, search
    assert found(alice, f"{title} nine ten") == [title]
    assert "search" not in listed(alice)


@pytest.mark.parametrize(
    ("search", "is_found"),
    [
        ("word " * 2_000, True),
        ("word " + " ".join(map(str, range(2_500))), False),
        ("word " + "- " * 5_000, True),
        ("a" * 10_000, False),
        ("字" * 10_000, False),
        ("e" + "\u0301" * 10_000, False),
        ("🎉" * 10_000, False),
        ("a-" * 5_000, False),
        ("!" * 10_000, False),
        ('"' * 10_000, False),
        ("".join(map(chr, range(0x4E00, 0x4E00 + 5_000))), False),
        (" ".join(f"tag:t{n}" for n in range(1_000)), False),
        (" ".join(f"before:2026-01-01T00:00:00.{n:03}Z" for n in range(300)), False),
    ],
)
def test_a_pasted_text_of_10_000_characters_is_searched(alice, commands, search, is_found):
    conversation(alice, title="Word")
    commands.clear()

    response = alice.get(PATH, {"search": search})

    assert response.status_code == 200
    ignored = response.json()["search"]["ignored"]
    assert len(ignored) <= 100
    assert max(map(len, ignored), default=0) <= 100
    assert titles(response.json()) == ["Word"] * is_found
    assert len(commands) <= 20


def test_a_bulk_action_rejects_a_search_of_which_words_are_ignored(alice):
    conversation(alice, title="a b c d e f g h")
    bulk = {"action": "pin", "filter": {"search": "a b c d e f g h i"}}

    response = alice.post(f"{PATH}/bulk", bulk)
    accepted = alice.post(f"{PATH}/bulk", {"action": "pin", "filter": {"search": "a b before:"}})

    [error] = response.json()["error"]["details"]["errors"]
    assert (response.status_code, error["pointer"]) == (400, "/filter/search")
    assert accepted.json()["summary"]["matched"] == 0


def test_the_search_parameter_has_no_operators_and_is_not_repeated(alice):
    assert alice.get(PATH, {"search[$ne]": "x"}).status_code == 400
    assert alice.get(f"{PATH}?search=a&search=b").status_code == 400


@pytest.fixture
def many(mongo, monkeypatch):
    """Conversations of alice and bob with a rare word and with a word in all of them."""
    monkeypatch.setattr(search_query, "IN_MEMORY_SORT_MAX", 100)
    now = clock.now()
    rows = []
    for n in range(600):
        rare = " rarity" if n % 25 == 0 else ""
        document = documents.new(
            user_id="alice" if n % 10 else "bob",
            character_id="luna",
            title=f"Common{rare} {n * 7919 % 600:04}",
            tags=["odd one"] if n % 50 == 1 else ["all"],
            now=now,
        )
        document["metadata"] |= {
            name: now.replace(hour=n % 5, minute=0) for name in ("last_activity", "created_at")
        }
        rows.append(document | {"status": ["active", "archived", "deleted"][n % 7 % 3]})
    mongo["conversations"].insert_many(rows)
    return [row for row in rows if row["user_id"] == "alice"]


@pytest.mark.parametrize("search", ["rar", "com", "common rar", "rar tag:all"])
def test_pages_of_a_search_join_without_a_gap(alice, many, search):
    wanted = [row for row in many if row["status"] != "deleted"]
    if "rar" in search:
        wanted = [row for row in wanted if "rarity" in row["title"]]
    limit = 5 if "rar" in search else 100

    faults = {}
    for sort, order in product(SORT_KEYS, ("asc", "desc")):
        parameters = {"search": search, "sort": sort, "order": order, "status": "all"}
        seen, last = walk(alice, **parameters, limit=limit)
        cursor = last["pagination"]["prev_cursor"]
        back, _ = walk(alice, "prev", **parameters, limit=limit, cursor=cursor)

        in_order = sorted_titles(wanted, sort, descending=order == "desc")
        if not seen == back + titles(last) == in_order:
            faults[sort, order] = {"there": seen, "back": back + titles(last), "right": in_order}
    assert faults == {}


def sorted_titles(rows, sort, *, descending):
    def key(row):
        value = row
        for step in SORT_KEYS[sort].split("."):
            value = value[step]
        return value, row["_id"]

    return [row["title"] for row in sorted(rows, key=key, reverse=descending)]


def test_a_requested_total_of_a_search_is_exact(alice, many):
    active = [row for row in many if row["status"] == "active"]

    body = listed(alice, search="comm", limit=5, include_total="true")
    few = listed(alice, search="rari comm", include_total="true", per_page=5, page=2)

    assert body["pagination"]["total_count"] == len(active)
    rare = sum("rarity" in row["title"] for row in active)
    assert few["pagination"]["total_count"] == rare


def test_a_cursor_belongs_to_its_search(alice, many):
    cursor = listed(alice, search="common", limit=5)["pagination"]["next_cursor"]

    response = alice.get(PATH, {"search": "commo", "cursor": cursor})

    assert response.json()["error"]["code"] == "INVALID_CURSOR"


def examined(mongo, commands, **parameters):
    """Return the number of documents and index keys that each statement of a list examined."""
    commands.clear()
    assert client_of("alice").get(PATH, parameters).status_code == 200
    return [plan_of(mongo, command) for command in [*commands]]


def plan_of(mongo, command):
    plan = mongo.command("explain", explainable(command), verbosity="executionStats")
    plan = plan["stages"][0]["$cursor"] if "stages" in plan else plan
    stats = plan["executionStats"]
    assert "COLLSCAN" not in str(plan["queryPlanner"]["winningPlan"])
    assert "alice" in str(plan["queryPlanner"]["winningPlan"])
    return stats["totalDocsExamined"]


@pytest.mark.parametrize(
    "parameters",
    [
        {"search": "rar"},
        {"search": "common rar"},
        {"search": "rar common", "sort": "title"},
        {"search": "common", "tags": "odd one"},
        {"search": "common", "tags": "odd one,elsewhere", "tags_match": "any"},
        {"search": 'common tag:"odd one"', "limit": 3},
        {"tags": "odd one", "created_after": "2000-01-01T00:00:00Z"},
    ],
)
def test_rare_words_are_found_by_the_index_of_words(mongo, commands, many, parameters):
    word = {"rarity"} if "rar" in str(parameters) else {"odd"}
    have = sum(any(word & {*entry["words"]} for entry in row["search"]) for row in many)

    *probes, page = examined(mongo, commands, **parameters)

    assert page <= have
    assert all(probe <= 100 for probe in probes)


@pytest.mark.parametrize("search", ["common rar-ity", "rar-ity", "comm-on łódź", "łódź"])
def test_words_with_several_spellings_are_found_by_the_index(mongo, commands, many, search):
    mongo["conversations"].update_many(
        {"title": "Common rarity 0000"},
        {"$set": {"search.0.words": ["common", "rarity", "łodz", "c"]}},  # as 0.1.0 stores them
    )

    *probes, page = examined(mongo, commands, search=search, status="all", limit=5)

    assert page <= 60
    assert all(probe <= 100 for probe in probes)


@pytest.mark.parametrize("sort", SORT_KEYS)
def test_frequent_words_are_found_by_the_index_of_the_sort(mongo, commands, many, sort):
    parameters = {"search": "comm", "sort": sort, "status": "all", "limit": 10}
    cursor = listed(client_of("alice"), **parameters)["pagination"]["next_cursor"]

    first = examined(mongo, commands, **parameters)
    second = examined(mongo, commands, **parameters, cursor=cursor)

    # One row more than shown, and one more for each branch that is merged.
    assert first[-1] <= 12
    assert second[-1] <= 15
    assert max(first + second) <= 150


def test_a_search_above_the_time_limit_is_aborted(alice, three, monkeypatch):
    monkeypatch.setattr(search_query, "SEARCH_BUDGET_S", 0.000_001)

    response = alice.get(PATH, {"search": "luna"})

    assert response.status_code == 503
    assert response.json()["error"]["code"] == "DATABASE_UNAVAILABLE"


def test_a_search_follows_every_change_of_title_and_tags(alice, mongo):
    path = f"{PATH}/{conversation(alice, title='Erste', tags=['one', 'two'])['id']}"
    steps = [
        ({"title": "Zweite"}, ["zwei", "one", "two"], ["erste"]),
        ({"tags_add": ["Drei", "ONE"]}, ["zwei", "one", "two", "drei"], []),
        ({"tags_remove": ["ONE"]}, ["two", "drei"], ["one"]),
        (
            {"title": "Dritte", "tags_add": ["vier"], "tags_remove": ["two"]},
            ["dritte", "drei", "vier"],
            ["zwei", "two"],
        ),
        ({"tags": ["fünf"]}, ["funf", "dritte"], ["drei", "vier"]),
        ({"tags": None}, ["dritte"], ["funf"]),
        ({"title": "Sechs", "tags": ["$user_id"[1:]]}, ["sechs", "user"], ["dritte"]),
    ]
    for patch, hits, misses in steps:
        assert alice.patch(path, patch).status_code == 200
        assert [len(found(alice, hit)) for hit in hits] == [1] * len(hits), patch
        assert [len(found(alice, miss)) for miss in misses] == [0] * len(misses), patch
        assert_current(mongo)

    assert alice.post(f"{path}/revert", {"version": 2, "fields": ["title"]}).status_code == 200
    assert (len(found(alice, "zweite user")), len(found(alice, "sechs"))) == (1, 0)
    assert alice.post(f"{path}/revert", {"version": 2, "fields": ["tags"]}).status_code == 200
    assert (len(found(alice, "zweite one two")), len(found(alice, "user"))) == (1, 0)
    assert_current(mongo)


def assert_current(mongo):
    for row in mongo["conversations"].find():
        derived = words.derived(row["title"], row["tags"])
        assert {name: row[name] for name in derived} == derived


@pytest.mark.parametrize(
    ("tag", "equal"),
    [
        ("\u2139 help", "I HELP"),
        ("Ⅷ", "viii"),
        ("ﬁn", "FIN"),
        ("Straße", "STRASSE"),
        ("ŉ", "\u02bcN"),
    ],
)
def test_equal_tags_are_found_together_with_words(alice, mongo, tag, equal):
    path = f"{PATH}/{conversation(alice, title='Word', tags=[tag])['id']}"
    conversation(alice, title="Another word", tags=[equal])

    assert found(alice, f'word tag:"{equal}"') == ["Another word", "Word"]
    assert found(alice, "word", tags=tag) == ["Another word", "Word"]
    for patch in ({"tags_remove": [equal]}, {"tags_add": [tag]}, {"tags": [equal]}):
        assert alice.patch(path, patch).status_code == 200
        assert_current(mongo)
    assert found(alice, f'word tag:"{tag}"') == ["Another word", "Word"]


# Titles with the words that release 0.1.0 stores for them, and searches that find them there.
FORMER = [
    ("C++ and .NET", ["c", "and", "net"], ["c++", ".net", "C", "net"]),
    ("Мой ёж", ["мои", "еж"], ["мой", "МОЙ", "ёж", "еж"]),
    ("Łódź", ["łodz"], ["łódź", "ŁODZ"]),
    ("한국어", ["한국어"], ["한국", "한"]),
    ("علی", ["علی"], ["علی"]),
    ("東京の夜", ["東京の夜", "京の夜", "の夜", "夜"], ["東京", "夜"]),
    ("party🎉🎈", ["party", "🎉🎈", "🎈"], ["🎉🎈", "party🎉"]),
    ("Wi-Fi 5 €", ["wi", "fi", "5"], ["wi-fi", "wi fi", "5 €"]),
    ("क़लम", ["क़लम"], ["क़लम"]),
]


@pytest.fixture
def former(mongo):
    """Conversations as release 0.1.0 has stored them."""
    for title, by_former_rules, _ in FORMER:
        document = documents.new(
            user_id="alice", character_id="luna", now=clock.now(), title=title, tags=["C"]
        )
        document["search"] = [{"words": by_former_rules}, {"words": ["c"]}]
        mongo["conversations"].insert_one(document)


@pytest.mark.parametrize(("title", "_words", "searches"), FORMER)
def test_titles_of_release_0_1_0_are_found_as_before_and_after_reindexing(
    alice, former, title, _words, searches
):
    for search in searches:
        assert title in found(alice, search), search
    call_command("reindex_search")
    for search in searches:
        assert title in found(alice, search), search


def test_former_words_are_not_searched_in_new_titles(alice, former):
    for title in ("Cat", "Мои дела", "Net worth", "Luna"):
        conversation(alice, title=title, tags=["C"])
    call_command("reindex_search")

    assert found(alice, "c++") == ["C++ and .NET"]
    assert found(alice, ".net") == ["C++ and .NET"]
    assert found(alice, "мой") == ["Мой ёж"]
    assert len(found(alice, "tag:c", limit=100)) == len(FORMER) + 4


def test_tags_of_release_0_1_0_are_completed(alice, mongo):
    document = documents.new(
        user_id="alice", character_id="luna", now=clock.now(), title="x", tags=["Łódź", "Мой"]
    )
    document["search"] = [{"words": ["x"]}, {"words": ["łodz"]}, {"words": ["мои"]}]
    mongo["conversations"].insert_one(document)

    for prefix, tag in (("łód", "Łódź"), ("мой", "Мой")):
        response = alice.get("/api/v1/tags", {"prefix": prefix})
        assert [row["tag"] for row in response.json()["tags"]] == [tag]
    for tag in ("łódź", "мой"):
        assert found(alice, f"tag:{tag}") == ["x"]
        assert titles(listed(alice, tags=tag, search="x")) == ["x"]


def test_copies_and_imports_are_found(alice, bob, mongo):
    created = conversation(alice, title="Café con Luna", tags=["Río", "x y"])
    alice.post(f"{PATH}/{created['id']}/duplicate", {"title": "Otra"})
    exported = b"".join(alice.get(f"{PATH}/export").streaming_content)

    sent = bob.generic("POST", f"{PATH}/import", exported, content_type="application/x-ndjson")
    assert b'"created":2' in b"".join(sent.streaming_content)

    assert found(bob, "rio") == ["Café con Luna", "Otra"]
    assert found(bob, "caf rio") == ["Café con Luna"]
    assert_current(mongo)


def outdate(mongo, **fields):
    outdated = {"title_key": "?", "tag_line": ""} | fields
    mongo["conversations"].update_many({"status": {"$ne": "purged"}}, {"$set": outdated})


def test_a_conversation_without_search_words_keeps_all_fields(alice, mongo):
    path = f"{PATH}/{conversation(alice, title='Luna', tags=['one'])['id']}"
    mongo.command("collMod", "conversations", validationLevel="off")
    mongo["conversations"].update_many({}, {"$unset": {"search": 1}})
    call_command("setup_indexes", verbosity=0)

    edited = alice.patch(path, {"tags_add": ["two"]}).json()
    call_command("reindex_search")

    assert edited["tags"] == ["one", "two"]
    assert found(alice, "luna one two") == ["Luna"]
    assert_current(mongo)


def test_reindexing_rewrites_only_the_search_words(alice, bob, mongo, capsys):
    conversation(alice, "pinned", title="Luna", tags=["Río"])
    conversation(bob, title="Sol")
    gone = f"{PATH}/{conversation(bob, 'deleted')['id']}"
    bob.delete(f"{gone}?mode=purge")
    before = [*mongo["conversations"].find().sort("_id")]
    outdate(mongo, search=[{"words": ["old"]}])

    call_command("reindex_search", dry_run=True)
    call_command("reindex_search")
    call_command("reindex_search")

    printed = capsys.readouterr().out.splitlines()
    assert printed == [
        "Conversations: 2 read, 2 to derive again.",
        "Conversations: 2 read, 2 derived again.",
        "Conversations: 2 read, 0 derived again.",
    ]
    live = {"status": {"$ne": "purged"}}
    after = [*mongo["conversations"].find(live).sort("_id")]
    assert after == [row for row in before if row["status"] != "purged"]


def test_reindexing_resumes_after_an_id(alice, mongo, capsys):
    first, second = conversation(alice, title="a"), conversation(alice, title="b")
    outdate(mongo)

    call_command("reindex_search", f"--after={first['id']}")

    keys = {row["title"]: row["title_key"] for row in mongo["conversations"].find()}
    assert keys == {"a": "?", "b": "b"}
    with pytest.raises(CommandError):
        call_command("reindex_search", "--after=x")
    assert second


def test_reindexing_works_in_batches(alice, mongo, monkeypatch, capsys):
    monkeypatch.setattr(search_index, "BATCH", 2)
    for title in "abcde":
        conversation(alice, title=title)
    outdate(mongo)

    call_command("reindex_search")

    assert capsys.readouterr().out == "Conversations: 5 read, 5 derived again.\n"
    assert_current(mongo)


def test_an_edit_during_reindexing_is_kept(alice, mongo):
    path = f"{PATH}/{conversation(alice, title='Old', tags=['one'])['id']}"
    outdate(mongo)
    [batch] = search_index.batches(documents.ObjectId("0" * 24))
    alice.patch(path, {"title": "New"})

    search_index.reindex(batch, dry_run=False)

    assert found(alice, "new one") == ["New"]
    assert_current(mongo)


def test_ctrl_c_keeps_the_work_and_reindexing_resumes_after_an_id(mongo):
    number = 8_000
    now = clock.now()
    rows = (documents.new(user_id="x", character_id="y", now=now) for _ in range(number))
    mongo["conversations"].insert_many(rows)
    outdate(mongo)

    stopped = started(mongo, "reindex_search", "--json")
    while not mongo["conversations"].find_one({"title_key": {"$ne": "?"}}, hint="_id_"):
        assert stopped.poll() is None, stopped.communicate()
        time.sleep(0.01)
    stopped.send_signal(signal.SIGINT)
    out, err = stopped.communicate(timeout=60)

    first = json.loads(out)
    assert stopped.returncode == 4, err
    assert 0 < first["read"] == first["outdated"] < number
    assert f"--after {first['after']}." in err
    again = started(mongo, "reindex_search", "--json", f"--after={first['after']}")
    second = json.loads(again.communicate(timeout=120)[0])
    assert first["outdated"] + second["outdated"] == number
    assert_current(mongo)
