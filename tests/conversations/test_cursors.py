"""Pages of a list join in both directions, for each type of the sort value."""

from datetime import datetime, timedelta

import pytest
from bson import Int64

from conversation_service import clock
from conversations import documents
from conversations.documents import SORT_KEYS
from conversations.serializers.listing import list_parameters
from tests.conversations.plans import explainable
from tests.conversations.test_schema import stages
from tests.factories import PATH

MISSING = object()
YEAR_2100 = datetime(2100, 1, 1)  # noqa: DTZ001  # as PyMongo reads it
TYPES = {
    "time": [datetime(1969, 7, 20), YEAR_2100, YEAR_2100, YEAR_2100 + timedelta(milliseconds=1)],  # noqa: DTZ001
    "string": ["", "a", "a", "b", "1", "2100-01-01T00:00:00Z", "ñ" * 200],
    "count": [0, 1, 1, 2, 1_700_000_000_000],
    "integer": [-5, 0, 1, 1, 1_700_000_000_000, 2**53 + 1, 2**53 + 2, Int64(2**63 - 1)],
    "float": [-1.5, 0.1, 0.1, 0.30000000000000004, 1e300, float("inf"), float("-inf")],
    "numbers": [1, 1.0, 1.5, 2, Int64(2), 2.0, 3],
    "boolean": [False, False, True, True, True],
    "nothing": [],
}


@pytest.fixture(params=["probe", "metadata.probe"])
def sort_key(request, mongo, monkeypatch):
    """Add a sort with its index, like those of a new field."""
    monkeypatch.setitem(SORT_KEYS, "probe", request.param)
    field = list_parameters.fields["sort"]
    monkeypatch.setattr(field, "choices", {**field.choices, "probe": "probe"})
    keys = [("user_id", 1), ("status", 1), (request.param, -1), ("_id", -1)]
    mongo["conversations"].create_index(keys, name="list_probe")
    yield request.param
    mongo["conversations"].drop_index("list_probe")


def stored(mongo, path, values):
    """Insert a conversation for each value, and return the ids in the order of their values."""
    rows = []
    for number, value in enumerate(values):
        now = clock.now() + timedelta(seconds=number)
        row = documents.new(user_id="alice", character_id="luna", title=f"{number}", now=now)
        row["status"] = "archived" if number % 3 == 1 else "active"
        *parents, name = path.split(".")
        inner = row
        for parent in parents:
            inner = inner[parent]
        inner.pop(name, None)
        if value is not MISSING:
            inner[name] = value
        rows.append(row)
    mongo["conversations"].insert_many(rows)
    found = mongo["conversations"].find({"user_id": "alice"}, sort=[(path, 1), ("_id", 1)])
    return [str(row["_id"]) for row in found]


def followed(client, parameters, name, pages=50):
    """Return the ids of the pages in the order in which they were read, and the last page."""
    page = client.get(PATH, parameters).json()
    read = [page]
    while (cursor := page["pagination"][name]) and len(read) < pages:
        page = client.get(PATH, parameters | {"cursor": cursor}).json()
        read.append(page)
    return [[row["id"] for row in page["conversations"]] for page in read], page


def check(client, sort, order, limit, expected):
    parameters = {"sort": sort, "order": order, "limit": limit, "status": "all"}

    forward, last = followed(client, parameters, "next_cursor")
    cursor = last["pagination"]["prev_cursor"]
    back = []
    if cursor:
        back, _ = followed(client, parameters | {"cursor": cursor}, "prev_cursor")

    assert [id_ for page in forward for id_ in page] == (
        expected if order == "asc" else expected[::-1]
    )
    assert back[::-1] == forward[:-1]


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("limit", [1, 3])
@pytest.mark.parametrize(
    "lacking",
    [[MISSING] * 3, [None] * 3, [MISSING, None, MISSING, None, None, MISSING]],
    ids=["missing", "null", "missing or null"],
)
@pytest.mark.parametrize("kind", TYPES)
def test_pages_join_for_every_type_of_value(alice, mongo, sort_key, kind, lacking, order, limit):
    expected = stored(mongo, sort_key, [*lacking[1:], *TYPES[kind], lacking[0]])

    check(alice, "probe", order, limit, expected)


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("limit", [1, 2])
@pytest.mark.parametrize("sort", SORT_KEYS)
def test_pages_join_in_every_sort_with_equal_and_missing_values(alice, mongo, sort, order, limit):
    kind = "time" if sort in documents.METADATA_TIMES else "string"
    kind = "count" if sort in documents.COUNTERS else kind
    expected = stored(mongo, SORT_KEYS[sort], [MISSING, *TYPES[kind], MISSING])

    check(alice, sort, order, limit, expected)


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("status", ["active", "all"])
def test_a_page_of_rows_without_the_sort_key_reads_no_others(
    alice, mongo, commands, sort_key, order, status
):
    stored(mongo, sort_key, [[MISSING, None][number % 2] for number in range(60)])
    parameters = {"sort": "probe", "order": order, "limit": 2, "status": status}
    _, third = followed(alice, parameters, "next_cursor", pages=3)
    parameters["cursor"] = third["pagination"]["next_cursor"]
    commands.clear()

    alice.get(PATH, parameters)

    [find] = commands
    plan = mongo.command("explain", explainable(find), verbosity="executionStats")
    assert plan["executionStats"]["totalDocsExamined"] <= 3
    assert plan["executionStats"]["totalKeysExamined"] <= 12
    assert "SORT" not in stages(plan["queryPlanner"]["winningPlan"])
