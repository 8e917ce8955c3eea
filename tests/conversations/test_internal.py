"""The internal API, as the Message service uses it."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from conversation_service import clock
from tests.documented import DocumentedClient
from tests.factories import PATH, conversation, token

ABSENT = "65f0c0ffee65f0c0ffee65f0"
AUTHORIZE = "/internal/v1/authorize"
BATCH = "/internal/v1/activity"


def service_with(*scopes):
    claims = {"token_type": "service", "sub": "message-service", "scope": " ".join(scopes)}
    return DocumentedClient(headers={"Authorization": f"Bearer {token(**claims)}"})


@pytest.fixture
def service():
    return service_with("conversations:authorize", "conversations:activity")


def report(sequence, count=1, **fields):
    return {
        "sequence": sequence,
        "message_count": count,
        "total_tokens": count * 10,
        "total_input_tokens": count * 4,
        "total_output_tokens": count * 6,
        "first_message_at": "2020-01-01T10:00:00.000Z",
        "last_message_at": f"2020-01-01T10:{count:02}:00.000Z",
    } | fields


def put(client, created, body, query=""):
    return client.put(f"/internal/v1/conversations/{created['id']}/activity{query}", body)


@pytest.fixture
def old(alice, mongo):
    """A conversation older than all reports of these tests."""
    created = conversation(alice)
    at = datetime(2019, 1, 1, tzinfo=UTC)
    mongo["conversations"].update_one({}, {"$set": {"metadata.created_at": at}})
    return read(alice, created)


def read(client, created):
    return client.get(f"{PATH}/{created['id']}").json()


def test_a_report_sets_totals_and_activity_and_keeps_the_version(alice, service, old):
    response = put(service, old, report(1, 3))

    after = read(alice, old)
    assert response.json() == {"applied": True, "sequence": 1, "metadata": after["metadata"]}
    assert after["metadata"] == old["metadata"] | {
        "message_count": 3,
        "total_tokens": 30,
        "total_input_tokens": 12,
        "total_output_tokens": 18,
        "first_message_at": "2020-01-01T10:00:00.000Z",
        "last_message_at": "2020-01-01T10:03:00.000Z",
        "last_activity": "2020-01-01T10:03:00.000Z",
    }
    assert after["version"] == old["version"]


def ahead(**by):
    """Return a time in the future."""
    return (clock.now() + timedelta(**by)).isoformat()


def test_reports_move_a_conversation_to_the_top(alice, service):
    older, newer = conversation(alice), conversation(alice)

    put(service, older, report(1, last_message_at=ahead(seconds=1)))

    listed = [row["id"] for row in alice.get(PATH).json()["conversations"]]
    assert listed == [older["id"], newer["id"]]


@pytest.mark.parametrize("sequence", [1, 2])
def test_repeated_and_late_reports_change_nothing(alice, service, sequence):
    created = conversation(alice)
    put(service, created, report(2, 5))
    before = read(alice, created)

    response = put(service, created, report(sequence, 9))

    assert response.json() == {"applied": False, "sequence": 2, "metadata": before["metadata"]}
    assert read(alice, created) == before


@pytest.mark.parametrize(
    "times",
    [
        {"first_message_at": "2001-01-01T00:00:00Z", "last_message_at": "2001-01-01T00:00:00Z"},
        {"first_message_at": None, "last_message_at": None},
    ],
)
def test_last_activity_is_never_before_the_creation(alice, service, times):
    created = conversation(alice)
    put(service, created, report(1, last_message_at=ahead(minutes=1)))

    put(service, created, report(2, **times))

    assert read(alice, created)["metadata"]["last_activity"] == created["metadata"]["created_at"]


def test_last_activity_follows_a_correction_to_an_earlier_time(alice, service, old):
    other = conversation(alice)
    put(service, old, report(1, last_message_at=ahead(minutes=4)))
    assert alice.get(PATH).json()["conversations"][0]["id"] == old["id"]

    corrected = put(service, old, report(2, 1)).json()

    assert corrected["applied"]
    assert corrected["metadata"]["last_activity"] == "2020-01-01T10:01:00.000Z"
    listed = [row["id"] for row in alice.get(PATH).json()["conversations"]]
    assert listed == [other["id"], old["id"]]


FUTURE = [
    ({"last_message_at": "2099-01-01T00:00:00Z"}, ["/last_message_at"]),
    ({"last_message_at": "9999-12-31T23:59:59.999Z"}, ["/last_message_at"]),
    ({"last_message_at": "2099-01-01T00:00:00+14:00"}, ["/last_message_at"]),
    (
        {"first_message_at": "2099-01-01T00:00:00Z", "last_message_at": None},
        ["/first_message_at"],
    ),
    (
        {"first_message_at": "2099-01-01T00:00:00Z", "last_message_at": "2099-01-01T00:00:00Z"},
        ["/first_message_at", "/last_message_at"],
    ),
]


@pytest.mark.parametrize(("times", "pointers"), FUTURE)
@pytest.mark.parametrize("sequence", [1, 5, 6])
def test_a_report_from_the_future_is_rejected(alice, service, times, pointers, sequence):
    created = conversation(alice)
    put(service, created, report(5))
    before = read(alice, created)

    response = put(service, created, report(sequence, **times))

    assert response.status_code == 400
    errors = response.json()["error"]["details"]["errors"]
    assert [error["pointer"] for error in errors] == pointers
    assert {error["code"] for error in errors} == {"in_the_future"}
    assert read(alice, created) == before
    assert put(service, created, report(6)).json()["applied"]


@pytest.mark.parametrize(("times", "pointers"), FUTURE)
def test_in_a_batch_only_the_report_from_the_future_is_rejected(alice, service, times, pointers):
    first, second = conversation(alice), conversation(alice)
    items = [
        {"id": first["id"], **report(9, 9, **times)},
        {"id": first["id"].upper(), **report(3, 3)},
        {"id": second["id"], **report(1, 2)},
        {"id": ABSENT, **report(1, **times)},
    ]

    rejected, *others = service.post(BATCH, {"items": items}).json()["results"]

    errors = rejected.pop("errors")
    assert rejected == {
        "id": first["id"],
        "status": 400,
        "applied": False,
        "code": "VALIDATION_ERROR",
    }
    assert [error["pointer"] for error in errors] == pointers
    assert others == [
        {"id": first["id"].upper(), "status": 200, "applied": True},
        {"id": second["id"], "status": 200, "applied": True},
        {"id": ABSENT, "status": 404, "applied": False},
    ]
    assert read(alice, first)["metadata"]["message_count"] == 3


def test_a_clock_that_is_a_few_minutes_ahead_is_accepted(alice, service):
    created = conversation(alice)

    response = put(service, created, report(1, last_message_at=ahead(minutes=4, seconds=30)))

    assert response.json()["applied"]


def test_an_accepted_report_is_one_statement_and_a_batch_is_two(alice, service, commands):
    created = conversation(alice)
    commands.clear()

    put(service, created, report(1))
    single = len(commands)
    service.post(BATCH, {"items": [{"id": created["id"], **report(2)}]})

    assert (single, len(commands) - single) == (1, 2)


def test_a_first_message_after_the_last_one_is_rejected(alice, service):
    created = conversation(alice)
    wrong = report(1, first_message_at="2020-01-02T00:00:00Z")

    single = put(service, created, wrong)
    batch = service.post(BATCH, {"items": [{"id": created["id"], **wrong}]})

    pointers = [
        [error["pointer"] for error in response.json()["error"]["details"]["errors"]]
        for response in (single, batch)
    ]
    assert (single.status_code, batch.status_code) == (400, 400)
    assert pointers == [["/first_message_at"], ["/items/0/first_message_at"]]
    assert read(alice, created) == created


def test_in_any_order_the_latest_report_wins(alice, service):
    created = conversation(alice)
    authorization = {"Authorization": service.defaults["HTTP_AUTHORIZATION"]}

    def send(sequence):
        client = DocumentedClient(headers=authorization)
        return put(client, created, report(sequence, sequence)).json()["applied"]

    with ThreadPoolExecutor(16) as threads:
        applied = list(threads.map(send, [*range(40, 0, -2), *range(1, 40, 2)]))

    assert any(applied)
    assert read(alice, created)["metadata"]["message_count"] == 40


@pytest.mark.parametrize("states", [["archived"], ["deleted"]])
def test_reports_are_accepted_in_every_state(alice, service, states):
    created = conversation(alice, *states)

    assert put(service, created, report(1, 2)).json()["applied"]
    assert read(alice, created)["status"] == created["status"]


def test_a_new_message_can_restore_an_archived_conversation(alice, service):
    created = conversation(alice, "archived")

    put(service, created, report(1, 2), "?on_message=unarchive")

    after = read(alice, created)
    assert (after["status"], after["archived_at"], after["version"]) == ("active", None, 3)
    [newest, *_] = alice.get(f"{PATH}/{created['id']}/history").json()["revisions"]
    assert newest["by"] == "service:message-service"
    assert newest["changes"]["status"] == {"before": "archived", "after": "active"}
    assert newest["version"] == 3


@pytest.mark.parametrize("states", [[], ["deleted"], ["archived"]])
def test_no_conversation_is_restored_without_a_new_message(alice, service, states):
    created = conversation(alice, *states)

    put(service, created, report(1, 0), "?on_message=unarchive")

    after = read(alice, created)
    assert (after["status"], after["version"]) == (created["status"], created["version"])


def test_unknown_and_purged_conversations_accept_no_report(alice, service):
    purged = conversation(alice, "deleted")
    alice.delete(f"{PATH}/{purged['id']}?mode=purge")

    for gone in (purged, {"id": ABSENT}, {"id": "x"}):
        response = put(service, gone, report(1))
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "CONVERSATION_NOT_FOUND"


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"sequence": 0}, "/sequence"),
        ({"sequence": 2**53}, "/sequence"),
        ({"sequence": "1"}, "/sequence"),
        ({"message_count": -1}, "/message_count"),
        ({"total_tokens": 2**53}, "/total_tokens"),
        ({"last_message_at": "yesterday"}, "/last_message_at"),
        ({"extra": 1}, "/extra"),
    ],
)
def test_a_bad_report_is_rejected(alice, service, change, pointer):
    created = conversation(alice)

    response = put(service, created, report(1) | change)

    assert response.status_code == 400
    [error] = response.json()["error"]["details"]["errors"]
    assert error["pointer"] == pointer
    assert read(alice, created) == created


def test_a_batch_of_reports_has_one_result_each(alice, bob, service):
    first, second, stale = conversation(alice), conversation(bob), conversation(alice)
    put(service, stale, report(7))
    items = [
        {"id": first["id"], **report(2, 2)},
        {"id": ABSENT, **report(1)},
        {"id": second["id"].upper(), **report(1, 4)},
        {"id": stale["id"], **report(7, 9)},
        {"id": first["id"], **report(1, 1)},
        {"id": "x", **report(1)},
    ]

    response = service.post(BATCH, {"items": items})

    assert response.json()["results"] == [
        {"id": first["id"], "status": 200, "applied": True},
        {"id": ABSENT, "status": 404, "applied": False},
        {"id": second["id"].upper(), "status": 200, "applied": True},
        {"id": stale["id"], "status": 200, "applied": False},
        {"id": first["id"], "status": 200, "applied": False},
        {"id": "x", "status": 404, "applied": False},
    ]
    assert read(alice, first)["metadata"]["message_count"] == 2
    assert read(bob, second)["metadata"]["message_count"] == 4
    again = service.post(BATCH, {"items": items}).json()["results"]
    assert not any(result["applied"] for result in again)


def test_five_hundred_reports_fit_and_no_more(alice, service, mongo):
    created = [conversation(alice) for _ in range(3)]
    items = [{"id": created[n % 3]["id"], **report(n + 1, 5)} for n in range(500)]

    assert service.post(BATCH, {"items": items}).status_code == 200
    assert service.post(BATCH, {"items": [*items, items[0]]}).status_code == 400
    assert service.post(BATCH, {"items": []}).status_code == 400
    stored = mongo["conversations"].distinct("activity_sequence")
    assert stored == [498, 499, 500]


def test_authorize_returns_results_in_order(alice, bob, service):
    active, archived = conversation(alice), conversation(alice, "archived")
    trashed, theirs = conversation(alice, "deleted"), conversation(bob, "archived")
    ids = [row["id"] for row in (theirs, active, archived, trashed)]
    ids += [ABSENT, "x", active["id"].upper()]

    results = service.post(AUTHORIZE, {"user_id": "alice", "ids": ids}).json()["results"]

    keys = ("id", "exists", "owner", "status", "writable", "reason")
    assert [tuple(result[key] for key in keys) for result in results] == [
        (theirs["id"], True, False, None, False, "not_owner"),
        (active["id"], True, True, "active", True, None),
        (archived["id"], True, True, "archived", False, "archived"),
        (trashed["id"], True, True, "deleted", False, "deleted"),
        (ABSENT, False, False, None, False, "not_found"),
        ("x", False, False, None, False, "not_found"),
        (active["id"].upper(), True, True, "active", True, None),
    ]


@pytest.mark.parametrize("ids", [[], [ABSENT] * 201, "x", [1]])
def test_authorize_takes_one_to_two_hundred_ids(service, ids):
    assert service.post(AUTHORIZE, {"user_id": "alice", "ids": ids}).status_code == 400
