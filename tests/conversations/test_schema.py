"""The validator of the database, and the index of each list."""

import itertools
from datetime import timedelta

import pytest
from django.core.management import call_command
from pymongo.errors import WriteError

from conversation_service import clock
from conversations import documents, states
from conversations.documents import SORT_KEYS
from tests.conversations.plans import documents_examined, explainable
from tests.factories import PATH, client_of, conversation

NOW = clock.now()


def stored(mongo, path, value):
    """Insert a document with one changed value, without the API."""
    document = documents.new(user_id="alice", character_id="luna", now=NOW)
    *parents, last = path.split(".")
    inner = document
    for step in parents:
        inner = inner[step]
    inner[last] = value
    mongo["conversations"].insert_one(document)


AT_THE_BOUNDS = [
    {"character_id": "A-z_0.9:@" + "x" * 55},
    {"title": "x" * 200},
    {"title": "😀" * 200},
    {"title": "हिन्दी ไทย العربية"},
    {"tags": ["x" * 50, "हिन्दी", "a_b-c.d e", "١٢٣"]},
    # Letters that are newer than the Unicode of MongoDB 6.0.
    {"tags": ["\u1c90", "\u0560", "\u08be", "\ua7c0", "\U0001df00"]},
    {"title": "\ufdfa" * 200},
    {"tags": [str(n) for n in range(10)]},
    {"custom": {f"key:_-{n}": "x" * 512 for n in range(16)}},
    {"custom": {"k" * 64: "line\nbreak 😀"}},
    {"settings": {"temperature": 0, "top_p": 0, "max_tokens": 1, "context_window": 1}},
    {"settings": {"temperature": 2, "top_p": 1, "max_tokens": 4096, "context_window": 8192}},
    {"settings": {"frequency_penalty": -2, "presence_penalty": 2}},
    {"settings": {"stop_sequences": ["\n" * 64] * 10}},
]


@pytest.mark.parametrize("fields", AT_THE_BOUNDS)
def test_the_database_accepts_values_that_the_api_accepts(alice, fields):
    created = conversation(alice, **fields)

    path = f"{PATH}/{created['id']}"
    for actions in (["archive"], ["pin"], ["restore"]):
        assert alice.post(f"{path}/{actions[0]}").status_code == 200
    assert alice.delete(path).status_code == 200
    assert alice.delete(f"{path}?mode=purge").status_code == 204


BEYOND_THE_BOUNDS = [
    ("user_id", ""),
    ("user_id", "a b"),
    ("user_id", "x" * 256),
    ("character_id", {"$gt": ""}),
    ("character_id", "luna\n"),
    ("character_status", "unknown"),
    ("title", ""),
    ("title", 1),
    ("title", "x" * 201),
    ("title", "two\nlines"),
    ("title", "\u2028"),
    ("status", "gone"),
    ("tags", "casual"),
    ("tags", [""]),
    ("tags", ["x" * 51]),
    ("tags", ["a,b"]),
    ("tags", [str(n) for n in range(11)]),
    ("custom", {"a.b": "x"}),
    ("custom", {"$x": "x"}),
    ("custom", {"k" * 65: "x"}),
    ("custom", {"k": "x" * 513}),
    ("custom", {"k": 1}),
    ("custom", {str(n): "" for n in range(17)}),
    ("settings.temperature", "1"),
    ("settings.temperature", True),
    ("settings.temperature", -0.1),
    ("settings.temperature", 2.1),
    ("settings.max_tokens", 0),
    ("settings.max_tokens", 2**31),
    ("settings.max_tokens", 1.5),
    ("settings.context_window", 2**31),
    ("settings.top_p", 1.1),
    ("settings.frequency_penalty", -2.1),
    ("settings.presence_penalty", 2.1),
    ("settings.stop_sequences", ["x"] * 11),
    ("settings.stop_sequences", ["x" * 65]),
    ("settings.stop_sequences", [""]),
    ("metadata.message_count", -1),
    ("metadata.created_at", "2026-01-15"),
    ("version", 0),
    ("pinned_at", "now"),
]


@pytest.mark.parametrize(("path", "value"), BEYOND_THE_BOUNDS)
def test_the_database_rejects_values_that_the_api_rejects(mongo, path, value):
    with pytest.raises(WriteError, match="failed validation"):
        stored(mongo, path, value)


@pytest.mark.parametrize("name", ["max_tokens", "context_window"])
def test_the_database_accepts_values_of_another_deployment(mongo, settings, name):
    settings.MAX_TOKENS_CEILING = settings.CONTEXT_WINDOW_CEILING = 10

    call_command("setup_indexes", verbosity=0)
    stored(mongo, f"settings.{name}", 2**31 - 1)

    assert mongo["conversations"].count_documents({}) == 1


def test_a_document_older_than_a_rule_can_be_edited(mongo, alice):
    created = conversation(alice)
    before = {"settings.max_tokens": 2**40}
    mongo.command("collMod", "conversations", validationLevel="off")
    mongo["conversations"].update_one({"user_id": "alice"}, {"$set": before})
    call_command("setup_indexes", verbosity=0)

    response = alice.patch(f"{PATH}/{created['id']}", {"title": "New"})

    assert response.json()["title"] == "New"


def stages(plan):
    return [plan["stage"], *itertools.chain.from_iterable(map(stages, inputs(plan)))]


def inputs(plan):
    return plan.get("inputStages") or ([plan["inputStage"]] if "inputStage" in plan else [])


@pytest.fixture
def crowd(mongo):
    """Many conversations of alice and of others: in every state, with and without filters."""
    rows = []
    for n in range(200):
        mine = n // 2
        document = documents.new(
            user_id="alice" if n % 2 else f"user-{n}",
            character_id="sol" if mine % 5 < 2 else "luna",
            title=f"Title {n * 7919 % 200}",
            tags=["odd one", "at sea"] if mine % 7 < 3 else ["odd"],
            now=NOW - timedelta(minutes=n * 7919 % 200 // 4),
        )
        document["pinned_at"] = None if mine % 3 else NOW
        document["status"] = ["active", "archived", "deleted", "active"][mine % 4]
        rows.append(document)
    mongo["conversations"].insert_many(rows)


def listed(mongo, commands, parameters):
    """Send a list request; return its response and the plan of its only statement."""
    commands.clear()
    body = client_of("alice").get(PATH, parameters).json()
    [find] = commands
    return body, mongo.command("explain", explainable(find), verbosity="executionStats")


FILTERS = [
    {"character_id": "sol"},
    {"pinned": "true"},
    {"pinned": "false"},
    {"tags": "ODD one"},
    {"tags": "odd one,elsewhere", "tags_match": "any"},
    {"search": 'tag:"odd one" tag:"at sea" character:sol'},
    {"character_id": "sol", "pinned": "false", "tags": "odd one,at sea"},
]
LISTS = [{"status": status} for status in states.LISTS]
LISTS += [{"status": status} | filters for status in ("active", "all") for filters in FILTERS]


@pytest.mark.parametrize("wanted", LISTS, ids=str)
def test_a_list_reads_only_its_documents(mongo, commands, crowd, wanted):
    faults = []
    for sort, order in itertools.product(SORT_KEYS, ("asc", "desc")):
        parameters = {"sort": sort, "order": order, "limit": 2} | wanted

        first, first_plan = listed(mongo, commands, parameters)
        cursor = first["pagination"]["next_cursor"]
        second, second_plan = listed(mongo, commands, parameters | {"cursor": cursor})
        cursor = second["pagination"]["prev_cursor"]
        back, back_plan = listed(mongo, commands, parameters | {"cursor": cursor})

        if back["conversations"] != first["conversations"]:
            faults.append(f"{sort} {order}: the way back shows another page")
        for plan in (first_plan, second_plan, back_plan):
            examined = plan["executionStats"]["totalDocsExamined"]
            if examined > 3 or "SORT" in stages(plan["queryPlanner"]["winningPlan"]):
                faults.append(f"{sort} {order}: {examined} read, {plan['queryPlanner']}")
    assert faults == []


@pytest.mark.parametrize("wanted", LISTS, ids=str)
def test_a_total_is_counted_without_document_reads(mongo, commands, crowd, wanted):
    response = client_of("alice").get(PATH, {"include_total": "true", "limit": 1} | wanted)

    [count] = [command for command in commands if "aggregate" in command]
    assert response.json()["pagination"]["total_count"] > 0
    assert documents_examined(mongo, explainable(count)) == 0


def test_the_latest_conversation_of_a_character_is_found_by_index(mongo, commands, alice):
    conversation(alice, character_id="luna")
    commands.clear()

    alice.post(f"{PATH}?get_or_create=character", {"character_id": "luna"})

    [find] = commands
    plan = mongo.command("explain", explainable(find), verbosity="queryPlanner")
    # For a user with one character another index is as fast, and its plan would be cached.
    assert "'user_characters'" in str(plan["queryPlanner"]["winningPlan"])


@pytest.mark.parametrize(
    "parameters",
    [
        {"created_after": "2020-01-01T00:00:00Z"},
        {"activity_before": "2030-01-01T00:00:00Z", "sort": "title", "character_id": "sol"},
    ],
)
def test_every_other_list_reads_only_documents_of_the_user(mongo, commands, crowd, parameters):
    _, plan = listed(mongo, commands, parameters)

    assert plan["executionStats"]["totalDocsExamined"] <= 100
    assert "COLLSCAN" not in stages(plan["queryPlanner"]["winningPlan"])


def test_every_statement_carries_the_user(commands, alice):
    conversation(alice)
    path = f"{PATH}/{conversation(alice)['id']}"
    commands.clear()

    alice.get(path)
    cursor = alice.get(PATH, {"include_total": "true", "limit": 1}).json()["pagination"][
        "next_cursor"
    ]
    alice.get(PATH, {"cursor": cursor})
    alice.get(PATH, {"search": "conversation tag:x", "include_total": "true"})
    alice.get("/api/v1/tags", {"prefix": "x"})
    alice.get(f"{PATH}/summary")
    alice.get(f"{PATH}/overview")
    alice.patch(path, {"title": "x"})
    alice.patch(path, {"title": "x"}, headers={"If-Match": '"v9"'})
    alice.post(f"{path}/archive")
    alice.delete(path)
    alice.delete(f"{path}?mode=purge")

    users = [user_of(filter_of(command)) for command in commands]
    assert len(users) >= 10
    assert set(users) == {"alice"}


def filter_of(command):
    if "pipeline" in command:
        return command["pipeline"][0]["$match"]
    return command.get("filter") or command.get("query") or command["updates"][0]["q"]


def user_of(condition):
    """Return the user id in a filter, or in each of its branches."""
    if "$or" in condition:
        [user] = {user_of(branch) for branch in condition["$or"]}
        return user
    if "user_id" not in condition and "$and" in condition:
        return user_of(condition["$and"][0])
    return condition.get("user_id")
