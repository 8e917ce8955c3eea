"""The export of a user: complete, in any state, with history and an end line."""

import json

import pytest

from conversation_service import clock
from conversation_service.mongodb.connection import collection
from conversations import documents
from tests.conversations.test_schema import stages
from tests.documented import validator
from tests.factories import PATH, conversation

EXPORT = f"{PATH}/export"


def exported(client, **parameters):
    """Return the lines of an export except the last, which is checked."""
    response = client.get(EXPORT, parameters)
    assert response.status_code == 200, response.content
    *lines, end = map(json.loads, response.getvalue().splitlines())
    assert end == {"object": "end", "count": len(lines)}
    return lines


def many(user_id, number):
    rows = [
        documents.new(user_id=user_id, character_id="luna", now=clock.now()) for _ in range(number)
    ]
    for row, status in zip(rows, ["active", "archived", "deleted"] * number, strict=False):
        row["status"] = status
    collection("conversations").insert_many(rows)
    return [str(row["_id"]) for row in rows]


def damage(mongo):
    mongo["conversations"].update_many(
        {}, {"$set": {"metadata": "x"}}, bypass_document_validation=True
    )


def test_every_state_is_exported_as_in_the_api(alice):
    states = [(), ("archived", "pinned"), ("deleted",), ("archived", "deleted")]
    created = [conversation(alice, *steps) for steps in states]

    lines = exported(alice)

    assert [{**line, "history": None} for line in lines] == [
        {**one, "history": None} for one in created
    ]
    assert [len(line["history"]) for line in lines] == [0, 2, 1, 2]
    for line in lines:
        validator({"$ref": "#/components/schemas/Exported"}).validate(line)


def test_the_exported_history_equals_the_history(alice):
    created = conversation(alice, title="Old", tags=["a"])
    path = f"{PATH}/{created['id']}"
    alice.patch(path, {"title": "New", "settings": {"top_p": 0.5}})
    alice.patch(path, {"tags_add": ["b"]})

    [line] = exported(alice)

    revisions = alice.get(f"{path}/history").json()["revisions"]
    assert [
        {name: value for name, value in r.items() if name != "previous_at"} for r in line["history"]
    ] == revisions
    assert [r["previous_at"] for r in line["history"]] == [
        revisions[1]["at"],
        created["metadata"]["created_at"],
    ]


def test_an_export_is_ndjson_with_no_store(alice):
    response = alice.get(EXPORT)

    assert response.getvalue() == b'{"object":"end","count":0}\n'
    assert response.headers["Content-Type"] == "application/x-ndjson"
    assert response.headers["Content-Disposition"].endswith('filename="conversations.ndjson"')
    assert response.headers["Cache-Control"] == "private, no-store"
    assert "Content-Length" not in response.headers


def test_other_users_and_tombstones_are_not_exported(alice, bob):
    conversation(bob)
    purged = conversation(alice, "deleted")
    alice.delete(f"{PATH}/{purged['id']}?mode=purge")

    assert exported(alice) == []


def test_batches_are_in_the_order_of_ids(alice):
    ids = many("alice", 450)

    assert [line["id"] for line in exported(alice)] == sorted(ids)


def test_an_export_continues_after_the_last_received_id(alice):
    ids = sorted(many("alice", 30))

    assert [line["id"] for line in exported(alice, after=ids[9])] == ids[10:]
    assert exported(alice, after=ids[-1]) == []


def test_a_batch_reads_only_its_documents(mongo, commands, alice):
    ids = sorted(many("alice", 500))
    many("bob", 500)
    commands.clear()

    exported(alice, after=ids[99])

    for find in [c for c in commands if "find" in c]:
        keep = ("find", "filter", "sort", "limit", "projection", "hint")
        plan = mongo.command(
            "explain", {k: find[k] for k in keep if k in find}, verbosity="executionStats"
        )
        statistics = plan["executionStats"]
        assert statistics["totalDocsExamined"] == statistics["nReturned"]
        assert "SORT_MERGE" in stages(plan["queryPlanner"]["winningPlan"])
        assert find["filter"]["user_id"] == "alice"


def test_a_failure_in_the_stream_aborts_the_response(alice, mongo):
    many("alice", 250)
    response = alice.get(EXPORT)
    stream = iter(response.streaming_content)
    for _ in range(199):
        next(stream)
    damage(mongo)

    with pytest.raises(AttributeError):
        list(stream)


def test_a_failure_before_the_stream_is_an_error_response(alice, mongo):
    many("alice", 1)
    damage(mongo)
    alice.raise_request_exception = False

    response = alice.get(EXPORT)

    assert response.status_code == 500
    assert response.json()["error"]["code"] == "INTERNAL_ERROR"


@pytest.mark.parametrize("accept", ["*/*", "application/x-ndjson", "text/html, */*;q=0.1"])
def test_clients_that_accept_ndjson_get_it(alice, accept):
    response = alice.get(EXPORT, headers={"Accept": accept})

    assert response.status_code == 200
    response.close()


def test_a_client_that_accepts_only_json_gets_406(alice):
    response = alice.get(EXPORT, headers={"Accept": "application/json"})

    assert response.status_code == 406
    assert response.json()["error"]["code"] == "NOT_ACCEPTABLE"


@pytest.mark.parametrize("parameters", [{"after": "x"}, {"limit": "1"}, {"after": ""}])
def test_parameters_are_checked_before_the_first_byte(alice, parameters):
    response = alice.get(EXPORT, parameters)

    assert response.status_code == 400
    assert response.headers["Content-Type"] == "application/json"
