"""A selection as a file."""

import csv
import io
import json

import pytest
from django.contrib.admin.models import LogEntry

from conversations.console import export
from tests.conversations.console.browser import select, store


def content(response):
    assert response.status_code == 200
    return b"".join(response.streaming_content).decode()


def test_csv_has_a_row_for_each_that_was_selected(ops, mongo):
    stored = store(mongo, 3)

    text = content(select(ops, "export_csv", stored[0]["_id"], stored[2]["_id"]))

    rows = list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"))))
    assert [row["title"] for row in rows] == ["Number 2", "Number 0"]
    assert rows[0]["id"] == str(stored[2]["_id"])
    assert rows[0]["created_at"] == "2026-11-24T12:00:02.000Z"


@pytest.mark.parametrize("title", ["=1+1", "+1", "-1", "@SUM(A1)"])
def test_no_title_becomes_a_formula_in_a_spreadsheet(ops, mongo, title):
    [stored] = store(mongo, 1, title=title)

    text = content(select(ops, "export_csv", stored["_id"]))

    assert f",'{title}," in text


def test_ndjson_has_an_object_for_each(ops, mongo):
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


def test_all_that_match_are_exported_up_to_a_limit(ops, mongo):
    [*_, last] = store(mongo, export.LIMIT + 1)
    store(mongo, 1, user_id="bob")

    response = select(ops, "export_ndjson", last["_id"], query="?q=alice", select_across="1")

    lines = content(response).splitlines()
    assert len(lines) == export.LIMIT
    assert {json.loads(line)["user_id"] for line in lines} == {"alice"}


def test_who_exported_is_on_record(ops, mongo):
    [stored] = store(mongo, 1)

    select(ops, "export_csv", stored["_id"])

    assert LogEntry.objects.get().get_change_message().startswith("Exported")
