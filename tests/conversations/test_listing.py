"""Lists: filters, sorts, and cursors that neither skip nor repeat."""

from random import Random

import pytest
from time_machine import travel

from conversation_service import clock
from conversations import documents
from conversations.serializers.listing import ListParameters
from conversations.words import tag_key
from tests.factories import PATH, client_of, conversation


def listed(client, **parameters):
    response = client.get(PATH, parameters)
    assert response.status_code == 200, response.json()
    return response.json()


def titles(body):
    return [row["title"] for row in body["conversations"]]


def walk(client, direction="next", **parameters):
    """Return the titles of all pages from the given one on, and the last page."""
    body = listed(client, **parameters)
    seen = titles(body)
    while cursor := body["pagination"][f"{direction}_cursor"]:
        body = listed(client, **parameters | {"cursor": cursor})
        seen = seen + titles(body) if direction == "next" else titles(body) + seen
    return seen, body


@pytest.fixture
def five(alice):
    """Five conversations of alice, a second apart; the middle three in the same millisecond."""
    for name, second in zip("abcde", [1, 2, 2, 2, 3], strict=True):
        with travel(f"2026-03-01T10:00:0{second}Z", tick=False):
            conversation(client_of("alice"), title=name)


def test_the_latest_active_comes_first(alice, five):
    body = listed(alice)

    assert titles(body) == ["e", "d", "c", "b", "a"]
    assert body["pagination"] == {
        "total_count": 5,
        "has_next": False,
        "has_prev": False,
        "next_cursor": None,
        "prev_cursor": None,
        "limit": 20,
    }


@pytest.mark.parametrize("sort", ["last_activity", "created_at", "updated_at", "title"])
@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("limit", [1, 2, 3])
def test_pages_join_without_a_gap_in_every_sort(alice, five, sort, order, limit):
    seen, last = walk(alice, sort=sort, order=order, limit=limit)

    assert seen == (list("abcde") if order == "asc" else list("edcba"))
    cursor = last["pagination"]["prev_cursor"]
    back, _ = walk(alice, "prev", sort=sort, order=order, limit=limit, cursor=cursor)
    assert back + titles(last) == seen


def test_titles_are_sorted_without_case_or_accents(alice):
    for title in ["zebra", "Ángel", "apple", "Éclair", "Banana"]:
        conversation(alice, title=title)

    assert titles(listed(alice, sort="title", order="asc")) == [
        "Ángel",
        "apple",
        "Banana",
        "Éclair",
        "zebra",
    ]


def test_a_create_between_pages_shifts_no_page(alice, five):
    first = listed(alice, limit=2)
    conversation(alice, title="new")

    second = listed(alice, limit=2, cursor=first["pagination"]["next_cursor"])

    assert titles(first) + titles(second) == ["e", "d", "c", "b"]


def test_an_emptied_page_links_back(alice, five):
    first = listed(alice, limit=4)
    oldest = listed(alice, sort="created_at", order="asc", limit=1)["conversations"][0]
    alice.delete(f"{PATH}/{oldest['id']}")

    empty = listed(alice, limit=4, cursor=first["pagination"]["next_cursor"])
    back = listed(alice, limit=4, cursor=empty["pagination"]["prev_cursor"])

    assert titles(empty) == []
    assert titles(back) == titles(first)


def test_links_lead_to_both_directions(alice, five):
    first = alice.get(f"{PATH}?limit=2")
    next_url = first.headers["Link"].removeprefix("<").partition(">")[0]

    second = alice.get(next_url)

    assert titles(second.json()) == ["c", "b"]
    assert 'rel="next"' in second.headers["Link"]
    assert 'rel="prev"' in second.headers["Link"]


def test_links_of_a_numbered_page_continue_by_cursor(alice, five):
    first = alice.get(f"{PATH}?page=2&per_page=2&order=asc")
    links = [link.split(">")[0].removeprefix("<") for link in first.headers["Link"].split(", ")]
    *links, _deprecation = links

    after, before = (alice.get(link) for link in links)

    assert (titles(after.json()), titles(before.json())) == (["e"], ["a", "b"])
    assert before.json()["pagination"]["limit"] == 2


@pytest.mark.parametrize("tag", ["caf\u00e9 solo", "\u65e5\u672c", "a_b-c.d"])
def test_a_link_keeps_the_text_of_a_parameter(alice, tag):
    for title in ("a", "b", "c"):
        conversation(alice, title=title, tags=[tag])

    first = alice.get(PATH, {"tags": tag, "limit": 2, "fields": "title"})
    second = alice.get(first.headers["Link"].removeprefix("<").partition(">")[0])

    assert (titles(first.json()), titles(second.json())) == (["c", "b"], ["a"])


def test_a_link_keeps_a_repeated_parameter(alice):
    for title in ("a", "b", "c"):
        conversation(alice, title=title, tags=["x", "y"])

    first = alice.get(f"{PATH}?tags=x&tags=y&limit=2")
    second = alice.get(first.headers["Link"].removeprefix("<").partition(">")[0])

    assert (titles(first.json()), titles(second.json())) == (["c", "b"], ["a"])


@pytest.mark.parametrize("name", ["limit", "search", "character_id", "sort", "pinned", "cursor"])
def test_a_repeated_parameter_is_rejected_if_it_is_no_list(alice, name):
    response = alice.get(f"{PATH}?{name}=1&{name}=1")

    assert response.status_code == 400
    assert response.json()["error"]["details"]["errors"] == [
        {
            "pointer": f"/{name}",
            "code": "repeated",
            "message": "Send this parameter only once.",
        }
    ]


def test_a_repeated_unknown_parameter_is_unknown(alice):
    response = alice.get(f"{PATH}?colour=1&colour=1")

    assert response.json()["error"]["code"] == "UNKNOWN_FIELD"


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("active", ["pinned", "plain"]),
        ("archived", ["put away"]),
        ("deleted", ["thrown away"]),
        ("all", ["pinned", "plain", "put away"]),
    ],
)
def test_status_filters_the_list(alice, status, expected):
    conversation(alice, title="plain")
    conversation(alice, "pinned", title="pinned")
    conversation(alice, "archived", title="put away")
    conversation(alice, "deleted", title="thrown away")

    assert sorted(titles(listed(alice, status=status))) == expected


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"character_id": "luna"}, ["b", "a"]),
        *(({"pinned": word}, ["b"]) for word in ("true", "True", "1", "t", "yes")),
        *(({"pinned": word}, ["c", "a"]) for word in ("false", "FALSE", "0", "f", "no")),
        ({"tags": "Río,sea"}, ["a"]),
        ({"tags": ["RÍO", "sea"]}, ["a"]),
        ({"tags": "río,sea", "tags_match": "any"}, ["b", "a"]),
        ({"created_after": "2026-03-01T10:00:01Z"}, ["c", "b"]),
        ({"created_before": "2026-03-01T11:00:02+01:00"}, ["a"]),
        (
            {"activity_after": "2026-03-01T10:00:01Z", "activity_before": "2026-03-01T10:00:03Z"},
            ["b"],
        ),
        ({"status": "all", "character_id": "luna", "sort": "title", "order": "asc"}, ["a", "b"]),
    ],
)
def test_filters_select_conversations(alice, parameters, expected):
    rows = [("a", "luna", ["Río", "Sea"]), ("b", "luna", ["sea"]), ("c", "sol", [])]
    for second, (title, character, tags) in enumerate(rows, start=1):
        with travel(f"2026-03-01T10:00:0{second}Z", tick=False):
            states = ["pinned"] if title == "b" else []
            client = client_of("alice")
            conversation(client, *states, title=title, character_id=character, tags=tags)

    assert titles(listed(alice, **parameters)) == expected


# Includes characters of regular expressions, also after case folding.
TAGS = ["a", "b", "a.b", "axb", "a b", "a-b", "a_b", ".", "..", "⑴", "1", "²", "½", "ﬁn", "fin"]
TAGS += ["Río", "rio", "日本", "日本語", "हिन्दी", "\U0001df00", "x" * 50, "\ufdfa" * 50]


def test_a_tag_filter_matches_the_whole_tag(alice, mongo):
    chance = Random(1)  # noqa: S311
    rows = []
    for n in range(80):
        by_key = {tag_key(tag): tag for tag in chance.sample(TAGS, n % 8)}
        tags = [*by_key.values()]
        rows.append(
            documents.new(
                user_id="alice", character_id="x", now=clock.now(), tags=tags, title=str(n)
            )
        )
    mongo["conversations"].insert_many(rows)

    for tag in TAGS:
        expected = {row["title"] for row in rows if tag_key(tag) in row["tag_keys"]}
        assert {*titles(listed(alice, tags=tag, limit=100))} == expected, tag
        assert {*titles(listed(alice, search=f'tag:"{tag}"', limit=100))} == expected, tag


def test_a_tag_filter_accepts_the_longest_tag(alice):
    longest = ["\ufdfa" * 49 + letter for letter in "abcdefghij"]
    conversation(alice, title="all", tags=longest)
    conversation(alice, title="last", tags=longest[-1:])

    assert titles(listed(alice, tags=",".join(longest), tags_match="any")) == ["last", "all"]
    assert titles(listed(alice, tags=",".join(longest))) == ["all"]


def test_a_range_on_the_sort_key_has_pages(alice, five):
    seen, _ = walk(alice, activity_after="2026-03-01T10:00:01Z", limit=2)

    assert seen == ["e", "d", "c", "b"]


def test_a_requested_total_is_exact_or_null_above_the_bound(alice, five):
    assert listed(alice, limit=2)["pagination"]["total_count"] is None
    assert listed(alice, limit=2, include_total="true")["pagination"]["total_count"] == 5
    assert listed(alice, page=2, per_page=3)["pagination"]["total_count"] == 5
    assert listed(alice, page=9, per_page=3)["pagination"]["total_count"] is None


def test_pages_have_numbers(alice, five):
    body = listed(alice, page=2, per_page=2)

    assert titles(body) == ["c", "b"]
    assert (body["pagination"]["has_prev"], body["pagination"]["has_next"]) == (True, True)
    after = listed(alice, per_page=2, page=3)
    assert titles(after) == ["a"]


def test_a_limit_above_100_is_100(alice):
    assert listed(alice, limit=1000)["pagination"]["limit"] == 100


def test_only_requested_fields_are_returned(alice):
    created = conversation(alice, title="x")

    body = listed(alice, fields="title,status")

    assert body["conversations"] == [{"id": created["id"], "title": "x", "status": "active"}]


def test_an_unchanged_page_is_304(alice, five):
    first = alice.get(PATH)
    tag = first.headers["ETag"]

    again = alice.get(PATH, headers={"If-None-Match": f'"other", {tag}'})
    conversation(alice)
    changed = alice.get(PATH, headers={"If-None-Match": tag})

    assert tag.startswith('W/"')
    assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", tag)
    assert first.headers["Cache-Control"] == "private, no-cache"
    assert changed.status_code == 200
    assert changed.headers["ETag"] != tag


def test_a_rejected_choice_names_the_valid_ones(alice):
    response = alice.get(PATH, {"sort": "version"})

    [error] = response.json()["error"]["details"]["errors"]
    assert error["message"] == "Use one of: last_activity, created_at, updated_at, title."


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"limit": "0"}, "VALIDATION_ERROR"),
        ({"limit": "-1"}, "VALIDATION_ERROR"),
        ({"limit": "ten"}, "VALIDATION_ERROR"),
        ({"limit": ""}, "VALIDATION_ERROR"),
        ({"limit": "9" * 5000}, "VALIDATION_ERROR"),
        ({"page": "0"}, "VALIDATION_ERROR"),
        ({"page": "1", "limit": "5"}, "VALIDATION_ERROR"),
        ({"page": "1", "cursor": "x.y"}, "VALIDATION_ERROR"),
        ({"page": "102", "per_page": "100"}, "PAGE_TOO_DEEP"),
        ({"page": "9" * 100}, "PAGE_TOO_DEEP"),
        ({"status": "purged"}, "VALIDATION_ERROR"),
        ({"status": ["active", "archived"]}, "VALIDATION_ERROR"),
        ({"status[$ne]": "active"}, "UNKNOWN_FIELD"),
        ({"searching": "caf"}, "UNKNOWN_FIELD"),
        ({"sort": "version"}, "VALIDATION_ERROR"),
        ({"order": "up"}, "VALIDATION_ERROR"),
        ({"pinned": "maybe"}, "VALIDATION_ERROR"),
        ({"pinned": ""}, "VALIDATION_ERROR"),
        ({"tags": ""}, "VALIDATION_ERROR"),
        ({"tags": "a,\u200b"}, "VALIDATION_ERROR"),
        ({"tags": ",".join(map(str, range(11)))}, "VALIDATION_ERROR"),
        ({"tags_match": "none"}, "VALIDATION_ERROR"),
        ({"character_id": "a b"}, "VALIDATION_ERROR"),
        ({"character_id": "luna\n"}, "VALIDATION_ERROR"),
        ({"created_after": "2026-01-15"}, "VALIDATION_ERROR"),
        ({"created_after": "2026-01-15T15:00:00"}, "VALIDATION_ERROR"),
        ({"created_before": "0001-01-01T00:00:00+23:59"}, "VALIDATION_ERROR"),
        ({"activity_after": "now"}, "VALIDATION_ERROR"),
        ({"fields": "title,revisions"}, "VALIDATION_ERROR"),
        ({"include_total": "2"}, "VALIDATION_ERROR"),
        ({"cursor": ""}, "VALIDATION_ERROR"),
        ({"cursor": "x"}, "INVALID_CURSOR"),
        ({"cursor": "é.x"}, "INVALID_CURSOR"),
        ({"cursor": "a" * 3000}, "INVALID_CURSOR"),
    ],
)
def test_bad_parameters_are_rejected(alice, parameters, code):
    response = alice.get(PATH, parameters)

    assert response.status_code == 400
    assert response.json()["error"]["code"] == code


@pytest.mark.parametrize(
    "other",
    [
        {"sort": "created_at"},
        {"order": "asc"},
        {"status": "all"},
        {"pinned": "false"},
        {"search": "a"},
    ],
)
def test_a_cursor_belongs_to_its_list(alice, five, other):
    cursor = listed(alice, limit=2)["pagination"]["next_cursor"]

    response = alice.get(PATH, {"cursor": cursor} | other)

    assert response.status_code == 400
    assert response.json()["error"]["code"] == "INVALID_CURSOR"


def test_a_cursor_belongs_to_its_user(alice, bob, five):
    cursor = listed(alice, limit=2)["pagination"]["next_cursor"]

    assert bob.get(PATH, {"cursor": cursor}).json()["error"]["code"] == "INVALID_CURSOR"


@pytest.mark.parametrize("position", [0, 10, -10])
def test_a_forged_cursor_is_rejected(alice, five, position):
    cursor = list(listed(alice, limit=2)["pagination"]["next_cursor"])
    cursor[position] = "A" if cursor[position] != "A" else "B"

    response = alice.get(PATH, {"cursor": "".join(cursor)})

    assert response.json()["error"]["code"] == "INVALID_CURSOR"


def test_the_page_size_may_change_between_pages(alice, five):
    first = listed(alice, limit=2)

    rest = listed(alice, limit=10, cursor=first["pagination"]["next_cursor"])

    assert titles(rest) == ["c", "b", "a"]


def test_titles_that_grow_by_case_folding_have_pages(alice):
    for count in (60, 120, 200):
        conversation(alice, title="\ufdfa" * count)

    seen, _ = walk(alice, sort="title", order="asc", limit=1)

    assert len(seen) == 3


# A value of each filter that an untagged, active conversation with "luna" does not match.
EXCLUDING = {
    "status": "archived",
    "character_id": "sol",
    "tags": "work",
    "tags_match": "any",  # with `tags`
    "pinned": "true",
    "search": "elsewhere",
    "created_after": "2999-01-01T00:00:00Z",
    "created_before": "2000-01-01T00:00:00Z",
    "activity_after": "2999-01-01T00:00:00Z",
    "activity_before": "2000-01-01T00:00:00Z",
}
NO_FILTERS = {"limit", "cursor", "page", "per_page", "sort", "order", "fields", "include_total"}


@pytest.mark.parametrize("name", sorted({*ListParameters().fields} - NO_FILTERS))
def test_each_filter_excludes_a_conversation_that_does_not_match(alice, name):
    conversation(alice, character_id="luna")
    others = {"tags": "work"} if name == "tags_match" else {}

    assert titles(listed(alice, **{name: EXCLUDING[name]}, **others)) == []
