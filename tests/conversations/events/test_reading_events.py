"""GET /internal/v1/events: other services follow the event log."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from bson import ObjectId

from conversation_service.http import cursors
from conversations.events import log
from conversations.queries import feed_cursor
from tests.config.processes import eventually
from tests.conversations.events.publishing import publish
from tests.conversations.events.test_log import event
from tests.conversations.test_internal import service_with
from tests.factories import conversation

PATH = "/internal/v1/events"


@pytest.fixture
def service(mongo):
    return service_with("events:read")


def append(*kinds):
    log.append([event(ObjectId(), number, kind) for number, kind in enumerate(kinds, 1)])


def sequences(response):
    assert response.status_code == 200, response.json()
    return [each["sequence"] for each in response.json()["data"]]


def test_a_service_reads_what_happened_to_conversations(service, alice):
    publish()
    created = conversation(alice, "archived")
    publish()

    body = service.get(PATH).json()

    assert [(each["type"], each["id"]) for each in body["data"]] == [
        ("conversation.created", f"{created['id']}_v1"),
        ("conversation.archived", f"{created['id']}_v2"),
    ]
    assert body["has_more"] is False


def test_pages_follow_each_other(service):
    append(*[log.UPDATED] * 5)

    first = service.get(PATH, {"limit": 2})
    second = service.get(PATH, {"limit": 2, "cursor": first.json()["next_cursor"]})
    third = service.get(PATH, {"limit": 2, "cursor": second.json()["next_cursor"]})
    last = service.get(PATH, {"limit": 2, "cursor": third.json()["next_cursor"]})

    assert [sequences(each) for each in (first, second, third, last)] == [[1, 2], [3, 4], [5], []]
    assert [each.json()["has_more"] for each in (first, second, third)] == [True, True, False]
    append(log.UPDATED)
    assert sequences(service.get(PATH, {"cursor": last.json()["next_cursor"]})) == [6]


@pytest.mark.parametrize(
    "query",
    [
        "types=conversation.trashed,conversation.purged",
        "types=conversation.trashed&types=conversation.purged",
    ],
)
def test_types_choose_events(service, query):
    append(log.CREATED, log.TRASHED, log.UPDATED, log.PURGED, log.RESTORED)

    body = service.get(f"{PATH}?{query}").json()

    assert [each["sequence"] for each in body["data"]] == [2, 4]
    # The cursor is after all types, so that it does not expire while nothing is purged.
    log.event_log().delete_many({"seq": {"$lte": 5}})
    append(log.PURGED)
    assert sequences(service.get(f"{PATH}?{query}", {"cursor": body["next_cursor"]})) == [6]


def test_without_a_cursor_the_oldest_kept_event_is_the_first(service):
    append(*[log.UPDATED] * 5)
    log.event_log().delete_many({"seq": {"$lte": 2}})

    assert sequences(service.get(PATH)) == [3, 4, 5]


@pytest.mark.parametrize("is_filtered", [False, True])
@pytest.mark.parametrize("deleted", [3, 5])
def test_a_cursor_before_an_expired_event_is_gone(service, deleted, is_filtered):
    append(*[log.UPDATED] * 5)
    types = {"types": log.PURGED} if is_filtered else {}
    page = service.get(PATH, {"limit": 2}).json()
    log.event_log().delete_many({"seq": {"$lte": 2}})
    assert service.get(PATH, {"cursor": page["next_cursor"]} | types).status_code == 200
    log.event_log().delete_many({"seq": {"$lte": deleted}})

    response = service.get(PATH, {"cursor": page["next_cursor"]} | types)

    assert response.status_code == 410
    error = response.json()["error"]
    assert error["code"] == "EVENTS_CURSOR_EXPIRED"
    oldest = service.get(PATH, {"cursor": error["details"]["oldest_cursor"]})
    assert sequences(oldest) == [*range(deleted + 1, 6)]


def test_a_cursor_from_before_a_restore_is_gone(service):
    append(*[log.UPDATED] * 3)
    cursor = service.get(PATH).json()["next_cursor"]
    log.event_log().delete_many({})
    log.event_state().delete_many({})
    append(log.UPDATED)

    assert service.get(PATH, {"cursor": cursor}).status_code == 410


@pytest.mark.parametrize("cursor", ["x", "", "é.x", "a" * 3_000])
def test_a_malformed_cursor_is_rejected(service, cursor):
    response = service.get(PATH, {"cursor": cursor})

    assert response.status_code == 400


def test_a_foreign_cursor_is_rejected(service):
    foreign = [feed_cursor.encode("events", feed_cursor.SNAPSHOT), cursors.seal([1], binding="x")]
    for cursor in foreign:
        response = service.get(PATH, {"cursor": cursor})
        assert response.status_code == 400
        assert response.json()["error"]["code"] == "INVALID_CURSOR"


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("types=conversation.renamed", "/types/0"),
        ("types=conversation.created,x", "/types/1"),
        ("types=", "/types/0"),
        ("limit=0", "/limit"),
        ("wait=26", "/wait"),
        ("unknown=1", "/unknown"),
    ],
)
def test_a_faulty_parameter_is_named(service, query, pointer):
    response = service.get(f"{PATH}?{query}")

    assert response.status_code == 400
    [fault] = response.json()["error"]["details"]["errors"]
    assert fault["pointer"] == pointer


def test_a_service_without_the_scope_is_rejected(mongo):
    response = service_with("conversations:authorize").get(PATH)

    assert response.status_code == 403


def test_a_waiting_request_wakes_up_on_an_event(service, settings):
    settings.CHANGES_LOOK_S = 0.05
    append(log.UPDATED)
    cursor = service.get(PATH).json()["next_cursor"]

    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(
            service.get, PATH, {"cursor": cursor, "wait": 25, "types": log.PURGED}
        )
        append(log.UPDATED)
        eventually(lambda: not waiting.done(), within_s=1)
        append(log.PURGED)
        assert sequences(waiting.result()) == [3]


def test_a_request_without_events_ends_after_its_wait(service):
    assert sequences(service.get(PATH, {"wait": 1})) == []


def test_waiting_requests_of_a_service_are_limited(service, settings):
    settings.CHANGES_WAITING_PER_USER = 1
    with ThreadPoolExecutor() as pool:
        statuses = sorted(
            each.status_code for each in pool.map(lambda _: service.get(PATH, {"wait": 2}), "ab")
        )

    assert statuses == [200, 503]
