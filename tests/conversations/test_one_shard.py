"""Statements name their user, so that a cluster sharded by `user_id` sends each to one shard."""

import json

import pytest

from conversation_service.mongodb.collections import declared
from tests.conversations.test_internal import report, service_with
from tests.documented import OPERATIONS
from tests.factories import PATH, client_of, conversation

FILTERS = {"find": "filter", "findAndModify": "query", "count": "query", "distinct": "query"}
IMPORT = f"{PATH}/import"

# The response distinguishes an absent conversation from one of another user.
SENT_TO_ALL_SHARDS = "authorize"
READS_NO_CONVERSATION = "getEvents"

# A request for each operation of the API, with the id of a conversation.
REQUESTS = {
    "getChanges": lambda user, _: user.get("/api/v1/changes"),
    "listConversations": lambda user, _: [
        user.get(PATH),
        user.get(PATH, {"search": "evening", "tags": "a", "sort": "title"}),
        user.get(PATH, {"character_id": "luna", "pinned": "true", "page": 1}),
    ],
    "createConversation": lambda user, _: [
        user.post(PATH, {"character_id": "luna"}, HTTP_IDEMPOTENCY_KEY="k"),
        user.post(PATH, {"character_id": "luna"}, HTTP_IDEMPOTENCY_KEY="k"),
        user.post(f"{PATH}?get_or_create=character", {"character_id": "luna"}),
    ],
    "getConversation": lambda user, id_: [
        user.get(f"{PATH}/{id_}"),
        user.get(f"{PATH}/{id_}", {"as_of": 1}),
    ],
    "patchConversation": lambda user, id_: [
        user.patch(f"{PATH}/{id_}", {"title": "New"}, HTTP_IDEMPOTENCY_KEY="k"),
        user.patch(f"{PATH}/{id_}", {"title": "Newer"}, HTTP_IF_MATCH='"1"'),
    ],
    "deleteConversation": lambda user, id_: [
        user.delete(f"{PATH}/{id_}"),
        user.delete(f"{PATH}/{id_}?mode=purge"),
    ],
    "archiveConversation": lambda user, id_: user.post(f"{PATH}/{id_}/archive"),
    "duplicateConversation": lambda user, id_: user.post(f"{PATH}/{id_}/duplicate"),
    "getHistory": lambda user, id_: user.get(f"{PATH}/{id_}/history"),
    "pinConversation": lambda user, id_: user.post(f"{PATH}/{id_}/pin"),
    "restoreConversation": lambda user, id_: user.post(f"{PATH}/{id_}/restore"),
    "revertConversation": lambda user, id_: user.post(
        f"{PATH}/{id_}/revert", {"version": 1, "fields": ["title"]}
    ),
    "unpinConversation": lambda user, id_: user.post(f"{PATH}/{id_}/unpin"),
    "bulkConversations": lambda user, id_: [
        user.post(f"{PATH}/bulk", {"action": "pin", "ids": [id_]}),
        user.post(f"{PATH}/bulk", {"action": "tag", "tags": ["x"], "filter": {"tags": ["a"]}}),
        user.post(f"{PATH}/bulk", {"action": "trash", "filter": {}, "dry_run": True}),
    ],
    "exportConversations": lambda user, _: user.get(f"{PATH}/export").getvalue(),
    "importConversations": lambda user, id_: [
        user.post(IMPORT, json.dumps(line), content_type="application/x-ndjson").getvalue()
        for line in (
            {"character_id": "luna", "external_id": "1"},
            user.get(f"{PATH}/{id_}").json(),
            conversation(client_of("bob")),
        )
    ],
    "getEvents": lambda *_: service().get("/internal/v1/events"),
    "getOverview": lambda user, _: user.get(f"{PATH}/overview"),
    "getSummary": lambda user, _: user.get(f"{PATH}/summary"),
    "listTags": lambda user, _: user.get("/api/v1/tags", {"prefix": "a"}),
    "postActivity": lambda user, id_: service().post(
        "/internal/v1/activity", {"items": [report(1) | {"id": id_, "user_id": "alice"}]}
    ),
    "authorize": lambda user, id_: service().post(
        "/internal/v1/authorize", {"user_id": "alice", "ids": [id_]}
    ),
    "putActivity": lambda user, id_: service().put(
        f"/internal/v1/conversations/{id_}/activity?on_message=unarchive",
        report(1) | {"user_id": "alice"},
    ),
}


def service():
    return service_with("conversations:authorize", "conversations:activity", "events:read")


def unnamed(command):
    """Return the parts of a command on conversations that name no user."""
    name, target = next(iter(command.items()))
    if target != "conversations":
        return []
    if name in FILTERS:
        filters = [command[FILTERS[name]]]
    elif name == "update":
        filters = [statement["q"] for statement in command["updates"]]
    elif name == "delete":
        filters = [statement["q"] for statement in command["deletes"]]
    elif name == "insert":
        filters = command["documents"]
    elif name == "aggregate":
        filters = matches(command["pipeline"])
    else:
        raise AssertionError(name)
    return [found for found in filters if not names_user(found)]


def names_user(found):
    user = found.get("user_id")
    named = isinstance(user, str) or bool(user and user.keys() == {"$in"})
    return named or any(names_user(part) for part in found.get("$and", ()))


def matches(pipeline):
    """Return the first filter of a pipeline, and of each pipeline that it joins."""
    joined = [
        stage[name]["pipeline"]
        for stage in pipeline
        for name in ("$unionWith", "$lookup")
        if name in stage and "$documents" not in stage[name]["pipeline"][0]
    ]
    return [pipeline[0].get("$match", {}), *(found for inner in joined for found in matches(inner))]


def test_each_operation_has_a_request():
    """Webhook endpoints belong to the deployment, not to a user."""
    assert REQUESTS.keys() == {
        operation["operationId"]
        for _, path, operation in OPERATIONS
        if not path.pattern.startswith("/internal/v1/webhooks")
    }


@pytest.mark.parametrize("operation", REQUESTS)
def test_each_statement_names_its_user(operation, alice, commands):
    created = conversation(alice, title="An evening", tags=["a"])
    conversation(alice, "archived", title="Another evening", tags=["a"])
    commands.clear()

    responses = REQUESTS[operation](alice, created["id"])

    statements = [command for command in commands if "conversations" in command.values()]
    assert bool(statements) == (operation != READS_NO_CONVERSATION)
    for response in responses if isinstance(responses, list) else [responses]:
        # 409: a conversation in this state stays as it is; 412: it has another version.
        assert getattr(response, "status_code", 200) < 400 or response.status_code in {409, 412}, (
            response.content
        )
    without_user = [command for command in statements if unnamed(command)]
    assert bool(without_user) == (operation == SENT_TO_ALL_SHARDS), without_user


def test_unique_indexes_begin_with_the_shard_key():
    [schema] = [schema for schema in declared() if schema.shard_key]
    keys = [[*i.document["key"]] for i in schema.indexes if i.document.get("unique")]

    assert keys
    assert all(key[: len(schema.shard_key)] == [*schema.shard_key] for key in keys)
