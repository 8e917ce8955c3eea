"""Export of a selection as a file."""

import csv
import io
import json

import pytest
from django.contrib.admin.models import LogEntry
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conversations import documents
from conversations.admin import export
from tests.conversations.admin.browser import NOON, select, store


def content(response):
    assert response.status_code == 200
    return b"".join(response.streaming_content).decode()


def test_csv_has_a_row_for_each_selected_conversation(ops, mongo):
    stored = store(mongo, 3)

    text = content(select(ops, "export_csv", stored[0]["_id"], stored[2]["_id"]))

    rows = list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"))))
    assert [row["title"] for row in rows] == ["Number 2", "Number 0"]
    assert rows[0]["id"] == str(stored[2]["_id"])
    assert rows[0]["created_at"] == "2026-11-24T12:00:02.000Z"


SIGNS = "=+-@＝＋－＠﹦﹢﹣﹫−⁼"  # noqa: RUF001
INVISIBLE = "\x00\x07\xa0\u200b\u200e\u2060\u3000\u3164\ufe0f\ufeff"


def readings(text):
    """Return the cells of a CSV file as programs with different separators read them."""
    text = text.removeprefix("\ufeff")
    for separator in ",;\t":
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator):
            yield from row


def is_formula(cell):
    visible = cell.lstrip(f" \t\r\n\v\f{INVISIBLE}")
    return visible.startswith(tuple(SIGNS))


def exported(client, mongo, *rows):
    """Export conversations with these fields, which older releases may have stored."""
    stored = [
        documents.new(**{"user_id": "alice", "character_id": "luna"} | row, now=NOON)
        for row in rows
    ]
    mongo["conversations"].delete_many({})
    mongo["conversations"].insert_many(stored, bypass_document_validation=True)
    return content(select(client, "export_csv", *[row["_id"] for row in stored]))


@pytest.mark.parametrize(
    "before",
    [
        *("", " ", "\t", "\r", "\n", '"', '""', "a,", "a;", "a\t", "a\r\n", "a; ", 'a";', 'a;"'),
        *('a\n"', 'a;" ', "a;\t", "a,;", *INVISIBLE, *(f"a;{blank}" for blank in INVISIBLE)),
    ],
)
def test_no_title_becomes_a_formula_in_a_spreadsheet(ops, mongo, before):
    titles = [f"{before}{sign}cmd|' /C calc'!A0;b" for sign in SIGNS]

    text = exported(ops, mongo, *({"title": title} for title in titles))

    assert [cell for cell in readings(text) if is_formula(cell)] == []


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.text(f"ab,;\t\r\n\"' {SIGNS}{INVISIBLE}", min_size=1, max_size=12),
        min_size=3,
        max_size=3,
    )
)
def test_no_mixture_of_separators_quotes_and_signs_becomes_a_formula(ops, mongo, texts):
    user_id, character_id, title = texts

    text = exported(ops, mongo, {"user_id": user_id, "character_id": character_id, "title": title})

    assert [cell for cell in readings(text) if is_formula(cell)] == []
    [row] = csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline=""))
    assert without_apostrophes(row["title"]) == without_apostrophes(title)


def without_apostrophes(text):
    return text.replace("'", "")


@pytest.mark.parametrize(
    ("title", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("1+1=2", "1+1=2"),
        ("Luna; -- and Sol", "Luna; '-- and Sol"),
        ("A café, a tea", "A café, a tea"),
        ("well-known a@b.example", "well-known a@b.example"),
    ],
)
def test_a_title_changes_only_where_a_formula_could_begin(ops, mongo, title, cell):
    text = exported(ops, mongo, {"title": title})

    [row] = csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline=""))
    assert row["title"] == cell


def test_ndjson_has_an_object_for_each_selected_conversation(ops, mongo):
    [stored] = store(mongo, 1, title="Café, «con»")

    response = select(ops, "export_ndjson", stored["_id"])
    [row] = map(json.loads, content(response).splitlines())

    assert response.headers["Content-Disposition"].endswith('conversations.ndjson"')
    assert row == {
        "id": str(stored["_id"]),
        "user_id": "alice",
        "character_id": "luna",
        "title": "Café, «con»",
        "status": "active",
        "held": False,
        "version": 1,
        "message_count": 0,
        "last_activity": "2026-11-24T12:00:00.000Z",
        "created_at": "2026-11-24T12:00:00.000Z",
    }


def test_all_matches_are_exported_up_to_a_limit(ops, mongo):
    [*_, last] = store(mongo, export.LIMIT + 1)
    store(mongo, 1, user_id="bob")

    response = select(ops, "export_ndjson", last["_id"], query="?q=alice", select_across="1")

    lines = content(response).splitlines()
    assert len(lines) == export.LIMIT
    assert {json.loads(line)["user_id"] for line in lines} == {"alice"}


def test_an_export_is_logged(ops, mongo):
    [stored] = store(mongo, 1)

    select(ops, "export_csv", stored["_id"])

    assert LogEntry.objects.get().get_change_message() == "Exported 1 as CSV (no filter)."
