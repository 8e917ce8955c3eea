import json
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from io import StringIO

import pytest
from django.apps import apps
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command
from pymongo import IndexModel
from pymongo.database import Database
from pymongo.errors import WriteError

from conversation_service import clock
from conversation_service.mongodb.collections import CollectionSchema
from conversations import documents
from tests.running import started

OWNER = IndexModel([("owner", 1), ("_id", -1)], name="by_owner")
EXPIRY = IndexModel("expires_at", name="expiry", expireAfterSeconds=60)
VALIDATOR = {"$jsonSchema": {"required": ["owner"], "properties": {"n": {"bsonType": "int"}}}}


@pytest.fixture
def things(mongo):
    """A collection that only these tests declare."""
    mongo.drop_collection("things")
    yield mongo["things"]
    mongo.drop_collection("things")


@pytest.fixture
def declare(things, monkeypatch):
    def declare(*indexes, validator=None):
        schema = CollectionSchema("things", indexes, validator)
        config = apps.get_app_config("conversation_service")
        monkeypatch.setattr(config, "collections", [schema], raising=False)

    return declare


def setup_indexes(*arguments, **options):
    """Run the command, and return its result for each index and validator of things."""
    out = StringIO()
    call_command("setup_indexes", "--json", *arguments, stdout=out, **options)
    return results(out.getvalue())


def results(text):
    *lines, _ = [json.loads(line) for line in text.splitlines()]
    return {line["name"]: line["result"] for line in lines if line["collection"] == "things"}


def names(collection):
    return set(collection.index_information()) - {"_id_"}


def test_missing_indexes_are_created_once(declare, things):
    declare(OWNER, EXPIRY, validator=VALIDATOR)

    first, second = setup_indexes(), setup_indexes()

    assert first == {"by_owner": "created", "expiry": "created", "validator": "set"}
    assert second == {"by_owner": "kept", "expiry": "kept", "validator": "kept"}
    assert names(things) == {"by_owner", "expiry"}


def test_the_validator_rejects_invalid_documents(declare, things):
    declare(validator=VALIDATOR)
    setup_indexes()

    with pytest.raises(WriteError, match="failed validation"):
        things.insert_one({"owner": "ada", "n": "one"})


def test_a_changed_validator_is_replaced(declare, things):
    declare(validator=VALIDATOR)
    setup_indexes()
    declare(validator={"$jsonSchema": {"required": ("owner", "n")}})

    assert setup_indexes() == {"validator": "changed"}
    assert setup_indexes() == {"validator": "kept"}


def test_a_validator_that_only_warns_is_drift(declare, things):
    declare(validator=VALIDATOR)
    setup_indexes()
    things.database.command("collMod", "things", validationAction="warn")

    assert setup_indexes() == {"validator": "changed"}


@pytest.mark.parametrize(
    "options",
    [
        {"unique": True},
        {"sparse": True},
        {"partialFilterExpression": {"owner": {"$in": ("ada", "bob")}}},
        {"collation": {"locale": "en", "strength": 2}},
        {"hidden": True},
    ],
    ids=lambda options: next(iter(options)),
)
def test_an_index_with_options_is_recognised(declare, things, options):
    declare(IndexModel([("owner", 1), ("at", -1)], name="special", **options))

    assert setup_indexes() == {"special": "created"}
    assert setup_indexes() == {"special": "kept"}


@pytest.mark.parametrize("stored", [EXPIRY, IndexModel("expires_at", name="expiry")])
def test_a_new_expiry_is_set_without_rebuilding_the_index(declare, things, stored):
    things.create_indexes([stored])
    declare(IndexModel("expires_at", name="expiry", expireAfterSeconds=3_600))

    assert setup_indexes() == {"expiry": "changed"}
    assert things.index_information()["expiry"]["expireAfterSeconds"] == 3_600


@pytest.mark.parametrize(
    "stored",
    [
        pytest.param(IndexModel("owner", name="by_owner"), id="other key, same name"),
        pytest.param(IndexModel(list(OWNER.document["key"].items()), name="old"), id="other name"),
        pytest.param(
            IndexModel([("_id", -1), ("owner", 1)], name="by_owner"), id="other order of fields"
        ),
        pytest.param(
            IndexModel([("owner", 1), ("_id", -1)], name="by_owner", unique=True), id="unique"
        ),
    ],
)
def test_a_conflicting_index_is_replaced_only_on_request(declare, things, stored):
    things.create_indexes([stored])
    before = things.index_information()
    declare(OWNER)

    with pytest.raises(CommandError, match=r"by_owner.*\n.*--replace-conflicting"):
        setup_indexes()
    assert things.index_information() == before

    assert setup_indexes("--replace-conflicting") == {"by_owner": "replaced"}
    assert setup_indexes() == {"by_owner": "kept"}
    assert names(things) == {"by_owner"}


def test_the_same_key_may_be_indexed_twice_with_different_filters(declare):
    everyone = IndexModel("owner", name="all")
    declare(everyone)
    setup_indexes()
    declare(everyone, IndexModel("owner", name="open", partialFilterExpression={"open": True}))

    assert setup_indexes() == {"all": "kept", "open": "created"}
    assert setup_indexes() == {"all": "kept", "open": "kept"}


def test_an_undeclared_index_is_shown_and_dropped_only_on_request(declare, things):
    things.create_index("n", name="stray")
    declare(OWNER)

    assert setup_indexes() == {"by_owner": "created", "stray": "extra"}
    assert names(things) == {"by_owner", "stray"}
    assert setup_indexes("--drop-extra") == {"by_owner": "kept", "stray": "dropped"}
    assert names(things) == {"by_owner"}


def test_a_unique_index_over_duplicates_is_rejected_without_showing_them(declare, things):
    things.insert_many([{"owner": "ada@example.com"}, {"owner": "ada@example.com"}])
    declare(IndexModel("owner", name="one_each", unique=True))

    with pytest.raises(CommandError, match="one_each cannot be built") as caught:
        setup_indexes()

    assert "ada@example.com" not in str(caught.value)


@pytest.mark.parametrize("index", ["stray", "by_owner"])
def test_check_fails_on_any_drift_and_changes_nothing(declare, things, index):
    declare(OWNER, validator=VALIDATOR)
    setup_indexes()
    things.drop_index("by_owner") if index == "by_owner" else things.create_index("n", name=index)
    before = names(things)

    with pytest.raises(CommandError, match="1 indexes or validators differ"):
        setup_indexes("--check")

    assert names(things) == before


def test_check_passes_without_drift(declare):
    declare(OWNER, validator=VALIDATOR)
    setup_indexes()

    assert setup_indexes("--check") == {"by_owner": "kept", "validator": "kept"}


def test_a_dry_run_shows_the_steps_and_changes_nothing(declare, things):
    declare(OWNER, validator=VALIDATOR)

    assert setup_indexes("--dry-run") == {"by_owner": "missing", "validator": "missing"}
    assert "things" not in things.database.list_collection_names()


def test_all_missing_indexes_are_built_in_one_scan(declare, commands):
    declare(OWNER, EXPIRY, IndexModel("n", name="by_n"))
    setup_indexes()

    [build] = [command for command in commands if "createIndexes" in command]
    assert [index["name"] for index in build["indexes"]] == ["by_owner", "expiry", "by_n"]


def test_indexes_can_be_built_in_several_scans(declare, commands):
    declare(OWNER, EXPIRY, IndexModel("n", name="by_n"))
    setup_indexes("--builds=2")

    builds = [command["indexes"] for command in commands if "createIndexes" in command]
    assert sorted([index["name"] for index in build] for build in builds) == [
        ["by_owner", "by_n"],
        ["expiry"],
    ]


def test_a_failed_unique_index_is_named_among_others(declare, things):
    things.insert_many([{"owner": "ada"}, {"owner": "ada"}])
    declare(EXPIRY, IndexModel("owner", name="one_each", unique=True), OWNER)

    with pytest.raises(CommandError, match=r"one_each cannot be built.*The other indexes"):
        setup_indexes()

    assert names(things) == set()


@pytest.mark.parametrize("builds", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_wait_reports_the_state_of_the_build(mongo, number, builds):
    dropped = list(mongo["conversations"].index_information())[-2:]
    for name in dropped:
        mongo["conversations"].drop_index(name)
    with mongo.client.start_session() as session, session.start_transaction():
        # A build does not start during a write.
        mongo["conversations"].insert_one(
            documents.new(user_id="x", character_id="y", now=clock.now()), session=session
        )
        stopped = started(mongo, "setup_indexes", f"--builds={builds}")
        while not waits_for_its_build(mongo):
            assert stopped.poll() is None, stopped.communicate()
            time.sleep(0.05)
        stopped.send_signal(number)
        _, err = stopped.communicate(timeout=60)
        session.abort_transaction()

    assert stopped.returncode == 4, err
    assert "MongoDB completes the running build" in err
    call_command("setup_indexes", verbosity=0)
    assert set(dropped) <= mongo["conversations"].index_information().keys()


def waits_for_its_build(mongo):
    wanted = {"command.createIndexes": "conversations", "waitingForLock": True}
    stages = [{"$currentOp": {"allUsers": True}}, {"$match": wanted}]
    return mongo.client.admin.aggregate(stages).to_list()


def test_the_last_json_line_counts_the_results(declare, things):
    things.create_index("n", name="stray")
    declare(OWNER)
    out = StringIO()
    call_command("setup_indexes", "--json", stdout=out)

    *lines, last = [json.loads(line) for line in out.getvalue().splitlines()]
    assert last == {"kept": len(lines) - 2, "created": 1, "extra": 1, "dry_run": False}


def test_without_json_it_prints_a_line_per_index(declare):
    declare(OWNER)
    out = StringIO()

    call_command("setup_indexes", stdout=out)

    assert "created   things  by_owner\n" in out.getvalue()


def test_it_rejects_to_run_before_the_migrations(declare, mongo):
    applied = mongo["django_migrations"].find_one_and_delete({"app": "sessions"})
    declare(OWNER)

    try:
        with pytest.raises(CommandError, match="migrate first"):
            setup_indexes()
    finally:
        mongo["django_migrations"].insert_one(applied)


def test_concurrent_runs_succeed(declare, things):
    things.insert_many({"owner": str(number)} for number in range(2_000))
    declare(OWNER, EXPIRY, validator=VALIDATOR)

    with ThreadPoolExecutor(4) as threads:
        runs = list(threads.map(lambda _: setup_indexes(), range(4)))

    assert all(set(run.values()) <= {"created", "set", "changed", "kept"} for run in runs)
    assert set(setup_indexes().values()) == {"kept"}


SHARD = {"shardCollection": "test_conversation_service.conversations", "key": {"user_id": 1}}


def test_the_commands_for_shards_are_printed_and_not_executed_without_a_mongos(commands, capsys):
    call_command("setup_indexes", "--shard", verbosity=0)

    [line] = capsys.readouterr().out.splitlines()
    assert json.loads(line.removeprefix("db.adminCommand(").removesuffix(")")) == SHARD
    assert not [command for command in commands if "shardCollection" in command]


@pytest.mark.parametrize(("options", "executed"), [([], [SHARD]), (["--dry-run"], [])])
def test_a_mongos_shards_the_collections(monkeypatch, capsys, options, executed):
    sent = []

    def command_of_a_mongos(admin, command, *arguments, **named):
        if command == "hello":
            return {"msg": "isdbgrid"}
        if "shardCollection" in command:
            return sent.append(command)
        return original(admin, command, *arguments, **named)

    original = Database.command
    monkeypatch.setattr(Database, "command", command_of_a_mongos)

    call_command("setup_indexes", "--shard", *options, verbosity=0)

    assert sent == executed
    assert "shardCollection" in capsys.readouterr().out


def test_sessions_expire():
    index = Session._meta.db_table, "django_session_expire_date_a5c62663"

    out = StringIO()
    call_command("setup_indexes", "--check", "--json", stdout=out)

    *lines, _ = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [index] == [
        (line["collection"], line["name"])
        for line in lines
        if line["collection"] == "django_session"
    ]
