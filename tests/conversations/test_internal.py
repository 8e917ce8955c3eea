"""What the Message service asks and reports."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.documented import DocumentedClient
from tests.factories import PATH, client_of, conversation, token

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
        "first_message_at": "2030-01-01T10:00:00.000Z",
        "last_message_at": f"2030-01-01T10:{count:02}:00.000Z",
    } | fields


def put(client, created, body, query=""):
    return client.put(f"/internal/v1/conversations/{created['id']}/activity{query}", body)


def read(client, created):
    return client.get(f"{PATH}/{created['id']}").json()


def test_a_report_sets_totals_and_activity_but_no_version(alice, service):
    created = conversation(alice)

    response = put(service, created, report(1, 3))

    after = read(alice, created)
    assert response.json() == {"applied": True, "sequence": 1, "metadata": after["metadata"]}
    assert after["metadata"] == created["metadata"] | {
        "message_count": 3,
        "total_tokens": 30,
        "total_input_tokens": 12,
        "total_output_tokens": 18,
        "first_message_at": "2030-01-01T10:00:00.000Z",
        "last_message_at": "2030-01-01T10:03:00.000Z",
        "last_activity": "2030-01-01T10:03:00.000Z",
    }
    assert after["version"] == created["version"]


def test_reports_move_a_conversation_to_the_top(alice, service):
    older, newer = conversation(alice), conversation(alice)

    put(service, older, report(1))

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


def test_last_activity_never_goes_back(alice, service):
    created = conversation(alice)

    put(service, created, report(1, last_message_at="2001-01-01T00:00:00Z"))
    put(service, created, report(2, last_message_at=None, first_message_at=None))

    assert read(alice, created)["metadata"]["last_activity"] == created["metadata"]["last_activity"]


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
def test_reports_are_taken_in_every_state(alice, service, states):
    created = conversation(alice, *states)

    assert put(service, created, report(1, 2)).json()["applied"]
    assert read(alice, created)["status"] == created["status"]


def test_a_new_message_can_bring_an_archived_one_back(alice, service):
    created = conversation(alice, "archived")

    put(service, created, report(1, 2), "?on_message=unarchive")

    after = read(alice, created)
    assert (after["status"], after["archived_at"], after["version"]) == ("active", None, 3)


@pytest.mark.parametrize("states", [[], ["deleted"], ["archived"]])
def test_nothing_comes_back_without_a_new_message(alice, service, states):
    created = conversation(alice, *states)

    put(service, created, report(1, 0), "?on_message=unarchive")

    after = read(alice, created)
    assert (after["status"], after["version"]) == (created["status"], created["version"])


def test_the_absent_and_the_purged_take_no_report(alice, service):
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
def test_a_bad_report_is_refused(alice, service, change, pointer):
    created = conversation(alice)

    response = put(service, created, report(1) | change)

    assert response.status_code == 400
    [error] = response.json()["error"]["details"]["errors"]
    assert error["pointer"] == pointer
    assert read(alice, created) == created


def test_many_reports_at_once(alice, bob, service):
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


def test_authorize_judges_each_id_in_order(alice, bob, service):
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


@pytest.mark.parametrize(
    ("path", "scope"),
    [(AUTHORIZE, "conversations:activity"), (BATCH, "conversations:authorize")],
)
def test_each_operation_has_its_scope(path, scope):
    response = service_with(scope).post(path, {})

    assert response.status_code == 403
    assert response.json()["error"]["code"] == "INSUFFICIENT_PERMISSIONS"


def test_people_are_no_services(alice, service):
    created = conversation(alice)

    assert alice.post(AUTHORIZE, {"user_id": "alice", "ids": [created["id"]]}).status_code == 401
    assert put(alice, created, report(1)).status_code == 401
    assert service.get(PATH).status_code == 401
    assert read(client_of("alice"), created) == created
