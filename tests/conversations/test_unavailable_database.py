"""Every transient error of MongoDB is 503 with Retry-After, and its log line has no content."""

import json
import re
import time
from itertools import product

import pymongo
import pytest
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError

from conversation_service.http.endpoint import Endpoint
from conversation_service.mongodb.connection import RESPONSIVE_S
from tests.config.processes import eventually
from tests.conversations.admin.browser import LIST, staff
from tests.conversations.test_internal import put, report, service_with
from tests.factories import PATH, NewConversation, conversation
from tests.failpoints import failing

# failCommand cannot add the details that these codes require.
MISSING_INFO = "Location40671"
# Retried by PyMongo's retryable reads, without the codes below.
RETRIED_READS = {
    6: "HostUnreachable",
    7: "HostNotFound",
    89: "NetworkTimeout",
    134: "ReadConcernMajorityNotAvailableYet",
    262: "ExceededTimeLimit",
    9001: "SocketException",
}
# After some of these, the driver waits for the next heartbeat.
NO_PRIMARY = {
    91: "ShutdownInProgress",
    189: "PrimarySteppedDown",
    10058: "LegacyNotPrimary",
    10107: "NotWritablePrimary",
    11600: "InterruptedAtShutdown",
    11602: "InterruptedDueToReplStateChange",
    13435: "NotPrimaryNoSecondaryOk",
    13436: "NotPrimaryOrSecondary",
}
NEVER_RETRIED = {
    24: "LockTimeout",
    43: "CursorNotFound",
    46: "LockBusy",
    50: "MaxTimeMSExpired",
    63: "StaleShardVersion",
    112: "WriteConflict",
    133: "FailedToSatisfyReadPreference",
    146: "ExceededMemoryLimit",
    150: "StaleEpoch",
    175: "QueryPlanKilled",
    237: "CursorKilled",
    239: "SnapshotTooOld",
    246: "SnapshotUnavailable",
    249: MISSING_INFO,
    250: "StaleChunkHistory",
    264: "TooManyFilesOpen",
    290: "TransactionExceededLifetimeLimitSeconds",
    365: "TemporarilyUnavailable",
    371: "UserWritesBlocked",
    433: "AdmissionQueueOverflow",
    462: "IngressRequestRateLimitExceeded",
    11601: "Interrupted",
    13388: MISSING_INFO,
    14031: "OutOfDiskSpace",
}
SECRET = "secret words"
SAMPLE = ["create", "get", "list", "bulk by ids", "activity of many", "console: list"]


def calls(alice, service, ops, created):
    """One request of each kind, as (name, request)."""
    path = f"{PATH}/{created['id']}"
    line = json.dumps(alice.get(path).json() | {"id": "64b7f0f0f0f0f0f0f0f0f0f0", "history": []})
    key = {"Idempotency-Key": "one"}
    batch = {"items": [report(9) | {"id": created["id"]}]}
    return {
        "create": lambda: alice.post(PATH, NewConversation(title=SECRET)),
        "create with a key": lambda: alice.post(PATH, NewConversation(), headers=key),
        "get": lambda: alice.get(path),
        "list": lambda: alice.get(PATH),
        "search": lambda: alice.get(f"{PATH}?search=secret"),
        "list with a total": lambda: alice.get(f"{PATH}?include_total=true"),
        "patch": lambda: alice.patch(path, {"title": f"{SECRET} {time.monotonic()}"}),
        "delete": lambda: alice.delete(path),
        "archive": lambda: alice.post(f"{path}/archive"),
        "duplicate": lambda: alice.post(f"{path}/duplicate", {}),
        "history": lambda: alice.get(f"{path}/history"),
        "bulk by ids": lambda: alice.post(
            f"{PATH}/bulk", {"action": "tag", "tags": [SECRET], "ids": [created["id"]]}
        ),
        "bulk by filter": lambda: alice.post(
            f"{PATH}/bulk", {"action": "pin", "filter": {"status": "active"}}
        ),
        "changes": lambda: alice.get("/api/v1/changes"),
        "overview": lambda: alice.get(f"{PATH}/overview"),
        "summary": lambda: alice.get(f"{PATH}/summary"),
        "tags": lambda: alice.get("/api/v1/tags"),
        "export": lambda: alice.get(f"{PATH}/export"),
        "import": lambda: alice.generic(
            "POST", f"{PATH}/import", line, content_type="application/x-ndjson"
        ),
        "authorize": lambda: service.post(
            "/internal/v1/authorize", {"user_id": "alice", "ids": [created["id"]]}
        ),
        "activity": lambda: put(service, created, report(8)),
        "activity of many": lambda: service.post("/internal/v1/activity", batch),
        "console: list": lambda: ops.get(LIST),
        "console: one": lambda: ops.get(f"{LIST}{created['id']}/change/"),
        "console: dashboard": lambda: ops.get("/admin/"),
    }


@pytest.fixture
def requests(alice):
    service = service_with("conversations:authorize", "conversations:activity")
    created = conversation(alice, title=SECRET)
    return calls(alice, service, staff(role="operator"), created)


def wait_for_a_primary(requests) -> None:
    eventually(lambda: requests["get"]().status_code != 503)


def unavailable(response) -> bool:
    if response.headers["Content-Type"].startswith(("application/json", "application/problem")):
        assert response.json()["error"]["code"] == "DATABASE_UNAVAILABLE"
    return response.status_code == 503 and response.headers["Retry-After"] == "2"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        *product(["get", "list"], [*RETRIED_READS, *NO_PRIMARY]),
        *product(["search", "history", "list with a total"], RETRIED_READS),
    ],
)
def test_a_read_survives_one_failure_that_the_driver_retries(requests, name, code):
    with failing(times=1, commands=["find", "count", "aggregate"], errorCode=code):
        assert requests[name]().status_code == 200


def test_a_read_survives_one_lost_connection(requests):
    with failing(times=1, commands=["find"], closeConnection=True):
        assert requests["get"]().status_code == 200


def test_retries_of_a_read_end_with_its_time_limit(requests, commands):
    """Two attempts of 0.2 s do not fit into one limit of 0.3 s."""
    blocked = {"blockConnection": True, "blockTimeMS": 200}
    with failing(commands=["find"], errorCode=6, **blocked), pymongo.timeout(0.3):
        response = requests["get"]()

    assert unavailable(response)
    sent = [command for command in commands if "find" in command]
    assert len(sent) <= 2
    # The second has less time by the 0.2 s of the first.
    assert all(one["maxTimeMS"] <= most for one, most in zip(sent, (300, 100), strict=False))


@pytest.mark.parametrize(
    ("code", "codename"), {**NEVER_RETRIED, **RETRIED_READS, **NO_PRIMARY}.items()
)
def test_a_transient_error_is_503_everywhere(requests, log, code, codename):
    # Without a primary, the driver checks the clock every 0.5 s only.
    names = SAMPLE if code in NO_PRIMARY else requests
    responses = {}
    with failing(errorCode=code):
        for name in names:
            # The driver retries some codes until the time is over.
            with pymongo.timeout(0.05 if code in NEVER_RETRIED else 0.02):
                responses[name] = requests[name]()

    assert [name for name, response in responses.items() if not unavailable(response)] == []
    if code in NEVER_RETRIED:  # retries may end with the time limit, which has no code
        assert codename in log.getvalue()
    assert re.search(r"(primary|no primary among) 127\.0\.0\.1:\d+", log.getvalue())
    assert SECRET not in log.getvalue()
    wait_for_a_primary(requests)


@pytest.mark.parametrize(
    "label",
    [
        *("RetryableWriteError", "RetryableError"),
        *("SystemOverloadedError", "TransientTransactionError"),
    ],
)
def test_an_error_with_a_retry_label_is_503_with_any_code(requests, label):
    with failing(errorCode=8, errorLabels=[label]):
        for request in requests.values():
            with pymongo.timeout(0.05):
                assert unavailable(request())
    wait_for_a_primary(requests)


@pytest.mark.parametrize("code", [64, 91, 100, 189])
def test_a_write_without_a_majority_is_503(requests, code):
    concern = {"code": code, "errmsg": SECRET}
    with failing(writeConcernError=concern), pymongo.timeout(0.3):
        for name in ("create", "patch", "bulk by ids", "import", "activity", "activity of many"):
            assert unavailable(requests[name]()), name
    wait_for_a_primary(requests)


@pytest.mark.parametrize("name", ["bulk by ids", "bulk by filter", "import", "activity of many"])
@pytest.mark.parametrize("code", [112, 246, 365, 13388])
def test_a_transient_error_of_one_bulk_item_is_503(requests, log, monkeypatch, name, code):
    def refuse(*arguments, **options):
        error = {"index": 0, "code": code, "errmsg": SECRET, "op": {"title": SECRET}}
        raise BulkWriteError({"writeErrors": [error], "writeConcernErrors": []})

    monkeypatch.setattr(Collection, "bulk_write", refuse)
    monkeypatch.setattr(Collection, "insert_many", refuse)

    assert unavailable(requests[name]())
    assert "BulkWriteError" in log.getvalue()
    assert SECRET not in log.getvalue()


@pytest.mark.parametrize("failure", [{"closeConnection": True}, {"errorCode": 7}])
def test_a_create_after_a_pause_succeeds_although_one_command_fails(requests, failure):
    time.sleep(RESPONSIVE_S)
    with failing(times=1, commands=["ping"], **failure):
        assert requests["create"]().status_code == 201


def test_all_operations_of_a_request_share_one_time_limit(alice, monkeypatch):
    created = conversation(alice)
    monkeypatch.setattr(Endpoint, "mongodb_s", 3.0)
    path, stale = f"{PATH}/{created['id']}", {"If-Match": '"v9"'}
    by_ids = {"action": "archive", "ids": [created["id"]]}

    with failing(blockConnection=True, blockTimeMS=1_600):
        edit = alice.patch(path, {"title": "New"}, headers=stale)  # two operations
        read = alice.get(path)
        bulk = alice.post(f"{PATH}/bulk", by_ids)

    assert (edit.status_code, read.status_code, bulk.status_code) == (503, 200, 200)
    assert edit.headers["Retry-After"]
