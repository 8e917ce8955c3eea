"""Random cursors, filters, searches, lines, versions and bodies get documented responses."""

import gzip
import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.faults.fuzzed import fuzz, fuzzed, rows, service, user

pytestmark = pytest.mark.faults

PATH = "/api/v1/conversations"
CHANGES = "/api/v1/changes"
HUGE = st.sampled_from([2**31, 2**53, 2**63 - 1, 2**63, 2**64, 10**400])
NUMBERS = st.integers() | HUGE | st.floats()
TEXT = st.text(max_size=80)
NASTY = st.sampled_from(
    [
        *("", " ", "\0", "\n", "\u2028", "\ufeff", "\u200b", "\u0301" * 40, "\u3164", "%00", "%zz"),
        *("null", "$where", "a.b", "__proto__", "\U0001f600", "\u202e", "İ", "ß", "ﬁ", "ｱ", "א"),
        *("2026-01-15T15:00:00Z", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00", "now"),
        *("true", "1", "-1", "1e400", "NaN", "title", "asc", "deleted", "all", "0" * 24, "g" * 24),
    ]
)
WORDS = st.sampled_from(["title:", "tag:", "before:", "after:", "is:pinned", '"', "-", "OR", "*"])
SEARCHES = st.lists(WORDS | NASTY | TEXT, max_size=12).map(" ".join) | st.text(max_size=600)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT | NASTY,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT | NASTY, inner, max_size=4),
    max_leaves=12,
)
LIST_PARAMETERS = [
    *(
        "limit",
        "cursor",
        "status",
        "character_id",
        "tags",
        "tags_match",
        "pinned",
        "search",
        "page",
    ),
    *("created_after", "created_before", "activity_after", "activity_before", "sort", "order"),
    *("fields", "include_total", "per_page"),
]
FIELDS = ["character_id", "title", "settings", "tags", "custom", "pinned", "status", "tags_add"]
SETTINGS = ["temperature", "max_tokens", "model", "extra", "stop_sequences", "reasoning_effort"]
BODIES = (
    st.dictionaries(st.sampled_from(FIELDS) | NASTY, JSON | NASTY, max_size=4)
    | st.fixed_dictionaries(
        {"character_id": st.just("luna")},
        optional={
            "title": TEXT | NASTY,
            "tags": st.lists(TEXT | NASTY, max_size=4),
            "custom": st.dictionaries(TEXT | NASTY, TEXT | NASTY, max_size=3),
            "settings": st.dictionaries(st.sampled_from(SETTINGS), JSON, max_size=4),
        },
    )
    | JSON
)


@pytest.fixture(scope="module")
def server(django_db_setup, tmp_path_factory):
    with fuzzed(tmp_path_factory.mktemp("random") / "log") as server:
        yield server


@pytest.fixture(scope="module")
def alice(server):
    return user(server, "alice")


@pytest.fixture(scope="module")
def bob(server):
    return user(server, "bob")


def filled(client):
    """Create conversations, and return their ids, one with a history."""
    ids = [client.post(PATH, {"character_id": "luna"}).json()["id"] for _ in range(5)]
    for number in range(3):
        client.patch(f"{PATH}/{ids[0]}", {"title": f"Title {number}"})
    return ids


def paged(client, one):
    """Return requests with a cursor, by name: what to send, and a genuine cursor."""
    page = client.get(PATH, {"limit": 1}).json()["pagination"]
    history = client.get(f"{PATH}/{one}/history", {"limit": 1}).json()
    changes = client.get(CHANGES, {"limit": 1}).json()
    pin = {"action": "pin", "filter": {"status": "active"}}
    return {
        "list": (
            lambda c, cursor: c.get(PATH, {"cursor": cursor, "limit": 1}),
            page["next_cursor"],
        ),
        "history": (
            lambda c, cursor: c.get(f"{PATH}/{one}/history", {"cursor": cursor}),
            history["next_cursor"],
        ),
        "changes": (lambda c, cursor: c.get(CHANGES, {"cursor": cursor}), changes["next_cursor"]),
        "bulk": (lambda c, cursor: c.post(f"{PATH}/bulk", pin | {"cursor": cursor}), None),
    }


@st.composite
def tampered(draw, cursor):
    """Change, cut, extend or replace a cursor."""
    kind = draw(st.sampled_from(["replace", "cut", "insert", "random", "case"]))
    at = draw(st.integers(0, len(cursor) - 1))
    letter = draw(st.sampled_from(string.ascii_letters + string.digits + "-_.=+/% é\0"))
    return {
        "replace": cursor[:at] + letter + cursor[at + 1 :],
        "cut": cursor[:at],
        "insert": cursor[:at] + letter + cursor[at:],
        "random": draw(st.text(max_size=200)),
        "case": cursor.swapcase(),
    }[kind]


@pytest.mark.parametrize("name", ["list", "history", "changes", "bulk"])
def test_no_tampered_or_foreign_cursor_is_accepted(alice, bob, name):
    [one, *_] = filled(alice)
    filled(bob)
    every = paged(alice, one)
    genuine = {other: cursor for other, (_send, cursor) in every.items() if cursor}
    send, own = every[name]
    for other, cursor in genuine.items():
        assert (send(alice, cursor).status_code == 200) is (name == other), other
        assert send(bob, cursor).status_code in {400, 404}, other

    @fuzz
    @given(st.sampled_from([*genuine.values()]).flatmap(tampered))
    def run(cursor):
        status = send(alice, cursor).status_code
        assert status == 400 or cursor == own

    run()


def test_filters_of_lists(alice):
    filled(alice)
    values = NASTY | TEXT | NUMBERS.map(str)
    pairs = st.tuples(st.sampled_from(LIST_PARAMETERS), values) | st.tuples(TEXT, values)

    @fuzz
    @given(st.lists(pairs, max_size=5))
    def run(query):
        alice.get(PATH, dict(query))
        assert alice.get(f"{PATH}/summary", dict(query)).status_code == (400 if query else 200)

    run()


def test_searches(alice):
    for title in ("Río de la Plata", "C++ & C#", "日本語の題", "אבג", "a:b title:x", "\U0001f525"):
        alice.post(PATH, {"character_id": "luna", "title": title})

    @fuzz
    @given(SEARCHES)
    def run(text):
        assert alice.get(PATH, {"search": text}).status_code in {200, 414}
        response = alice.get("/api/v1/tags", {"prefix": text})
        assert response.status_code in {200, 400, 414}
        body = {"action": "pin", "dry_run": True, "filter": {"search": text}}
        assert alice.post(f"{PATH}/bulk", body).status_code in {200, 400}

    run()


def test_bodies(alice, server):
    ids = filled(alice)
    message = service(server)
    paths = [
        *(("POST", PATH), ("PATCH", f"{PATH}/{ids[0]}"), ("POST", f"{PATH}/{ids[0]}/duplicate")),
        *(("POST", f"{PATH}/{ids[0]}/revert"), ("POST", f"{PATH}/bulk"), ("DELETE", f"{PATH}/x")),
        *(("POST", f"{PATH}/{ids[1]}/pin"), ("DELETE", f"{PATH}/{ids[2]}")),
        *(("POST", "/internal/v1/authorize"), ("POST", "/internal/v1/activity")),
        ("PUT", f"/internal/v1/conversations/{ids[0]}/activity"),
    ]
    raw = st.binary(max_size=60) | st.text(max_size=60).map(lambda t: t.encode("utf-8", "replace"))
    text = BODIES.map(lambda body: json.dumps(body).encode()) | raw
    kinds = st.sampled_from(["application/json"] * 5 + ["", "text/plain", "application/x-ndjson"])
    keys = st.none() | st.text(string.printable.strip(), max_size=12)

    @fuzz
    @given(st.sampled_from(paths), text, kinds, keys)
    def run(target, body, content_type, key):
        method, path = target
        client = message if path.startswith("/internal") else alice
        headers = {} if key is None else {"Idempotency-Key": key}
        client.generic(method, path, body, content_type=content_type, headers=headers)

    run()


def test_lines_of_imports(alice):
    filled(alice)
    [exported, *_] = rows(alice.get(f"{PATH}/export"))
    replaced = st.tuples(st.sampled_from([*exported]), JSON | NASTY).map(
        lambda pair: exported | {pair[0]: pair[1]}
    )
    nested = st.tuples(
        st.sampled_from(["metadata", "settings"]), st.dictionaries(TEXT, JSON, max_size=3)
    ).map(lambda pair: exported | {pair[0]: exported[pair[0]] | pair[1]})
    lenient = BODIES.filter(lambda body: isinstance(body, dict)).map(
        lambda body: body | {"external_id": "x", "character_id": "luna"}
    )
    line = (replaced | nested | lenient | JSON).map(lambda value: json.dumps(value).encode())
    lines = st.lists(line | st.binary(max_size=80), max_size=8)

    @fuzz
    @given(lines, st.sampled_from(["", "gzip", "gzip of other data"]))
    def run(sent, coding):
        body = b"\n".join(sent)
        headers = {"Content-Encoding": "gzip"} if coding else {}
        packed = gzip.compress(body) if coding == "gzip" else body
        response = alice.generic(
            "POST", f"{PATH}/import", packed, content_type="application/x-ndjson", headers=headers
        )
        if response.status_code == 200:
            *results, end = rows(response)
            assert end["object"] == "end"
            assert (
                end["count"]
                == len(results)
                == sum(end[k] for k in end.keys() - {"object", "count"})
            )
            assert {result["status"] // 100 for result in results} <= {2, 4}

    run()
    alice.get(f"{PATH}/export")


def test_versions_and_ids(alice, bob):
    ids = filled(alice)
    versions = NUMBERS.map(str) | NASTY | TEXT.filter(str.isprintable)
    tags = versions.map(lambda text: text.encode("ascii", "replace").decode())
    chosen = st.sampled_from([*ids, ids[0].upper(), "f" * 24]) | st.text(
        "0123456789abcdefg", max_size=30
    )

    @fuzz
    @given(chosen, versions, tags, st.sampled_from(["{}", '"v{}"', 'W/"v{}"', '"v{}-gzip", "x"']))
    def run(id_, version, tag, form):
        path = f"{PATH}/{id_}"
        header = form.format(tag.strip() or "1").replace("\n", "")
        alice.get(path, {"as_of": version})
        alice.get(path, headers={"If-None-Match": header})
        alice.patch(path, {"title": "x"}, headers={"If-Match": header})
        alice.post(f"{path}/duplicate", {}, headers={"If-Match": header})
        alice.get(f"{path}/history", {"limit": version})
        if id_:
            assert bob.get(path, {"as_of": version}).status_code == 404

    run()
