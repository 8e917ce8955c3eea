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
from conversations.queries import search as search_query
from conversations.words import fold
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
        ('  ... !? ""', ["Café con Luna", "Lunar eclipse"]),
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
    expected = found(alice, words) if words else found(alice, "")

    assert found(alice, search) == expected


@pytest.mark.parametrize(
    "search",
    [
        "a" * 201,
        "a" * 10_000,
        "nul\0",
        "a b c d e f g h i",
        "".join(map(chr, range(0x4E00, 0x4E00 + 40))),
        "tag:",
        "tag: luna",
        "tag:a,b",
        "tag:{$gt}",
        'tag:""',
        "character:",
        "character:é",
        "is:",
        "is:deleted",
        "before:yesterday",
        "before:2026-02-30",
        "after:2026-01-15T15:00:00",
        "after:20260115",
    ],
)
def test_an_invalid_search_is_rejected(alice, search):
    response = alice.get(PATH, {"search": search})

    assert response.status_code == 400
    [error] = response.json()["error"]["details"]["errors"]
    assert error["pointer"] == "/search"


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
    out, err = stopped.communicate(timeout=30)

    first = json.loads(out)
    assert stopped.returncode == 4, err
    assert 0 < first["read"] == first["outdated"] < number
    assert f"--after {first['after']}." in err
    again = started(mongo, "reindex_search", "--json", f"--after={first['after']}")
    second = json.loads(again.communicate(timeout=120)[0])
    assert first["outdated"] + second["outdated"] == number
    assert_current(mongo)
