"""The change feed: a client that follows it has the stored state."""

from datetime import UTC, datetime, timedelta
from threading import Timer

import pytest
from bson import ObjectId
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from time_machine import travel

from conversation_service import clock
from conversation_service.mongodb.connection import collection
from conversations import documents
from conversations.queries import feed_cursor
from conversations.queries.feed_cursor import MAX_SENT, OVERLAP, FeedCursor
from conversations.queries.waiters import latest_changes, waiters
from tests.conversations.test_internal import report, service_with
from tests.conversations.test_schema import filter_of, stages, user_of
from tests.factories import PATH, client_of, conversation

CHANGES = "/api/v1/changes"


@pytest.fixture(autouse=True)
def emptied(mongo):
    """Wait until a majority has the deletes of the last test: the feed reads with majority."""
    mongo["settled"].insert_one({})


def fetch(client, cursor=None, **parameters):
    response = client.get(CHANGES, parameters | ({"cursor": cursor} if cursor else {}))
    assert response.status_code == 200, response.content
    return response.json()


def summaries(page):
    """Return the title, or the id of a deleted one, of each change of a page."""
    return [
        change["id"] if change["type"] == "deleted" else change["conversation"]["title"]
        for change in page["changes"]
    ]


class Reader:
    """A client that follows the feed as documented."""

    def __init__(self, client, cursor=None):
        self.client = client
        self.cursor = cursor
        self.known = {}
        self.received = 0

    def read(self, **parameters):
        """Follow the feed to its end, and return the number of changes."""
        before = self.received
        more = True
        while more:
            page = fetch(self.client, self.cursor, **parameters)
            for change in page["changes"]:
                self.apply(change)
            self.cursor, more = page["next_cursor"], page["has_more"]
        return self.received - before

    def apply(self, change):
        self.received += 1
        if change["type"] == "deleted":
            self.known.pop(change["id"], None)
        else:
            self.known[change["conversation"]["id"]] = change["conversation"]


def listed(client):
    """Return all listed conversations, in any state."""
    return {
        row["id"]: row
        for status in ("all", "deleted")
        for row in client.get(PATH, {"status": status, "limit": 100}).json()["conversations"]
    }


def document(user_id="alice", *, ago=timedelta(), **fields):
    row = documents.new(user_id=user_id, character_id="luna", now=clock.now() - ago)
    return row | fields


def put(*rows):
    collection("conversations").insert_many(rows)
    return [str(row["_id"]) for row in rows]


def test_without_a_cursor_the_feed_has_all_unpurged_conversations(alice, bob):
    conversation(bob)
    first = conversation(alice, "deleted")
    second = conversation(alice, "archived", "pinned")
    purged = conversation(alice, "deleted")
    alice.delete(f"{PATH}/{purged['id']}?mode=purge")

    page = fetch(alice)

    assert page["changes"] == [{"type": "upsert", "conversation": c} for c in (first, second)]
    assert page["has_more"] is False


def test_with_a_cursor_the_feed_has_only_changes(alice):
    a, b = conversation(alice), conversation(alice)
    cursor = fetch(alice)["next_cursor"]
    assert fetch(alice, cursor)["changes"] == []

    alice.post(f"{PATH}/{a['id']}/archive")
    alice.patch(f"{PATH}/{a['id']}", {"title": "A"})
    c = conversation(alice)
    page = fetch(alice, cursor)

    assert summaries(page) == ["A", c["title"]]
    assert fetch(alice, page["next_cursor"])["changes"] == []
    assert b["id"] not in str(page["changes"])


def test_an_activity_report_is_a_change(alice):
    created = conversation(alice)
    cursor = fetch(alice)["next_cursor"]
    service = service_with("conversations:activity")
    service.put(f"/internal/v1/conversations/{created['id']}/activity", report(1, count=3))

    [change] = fetch(alice, cursor)["changes"]

    assert change["conversation"]["metadata"]["message_count"] == 3


def test_a_purge_is_in_the_feed_with_its_time(alice):
    created = conversation(alice, "deleted")
    cursor = fetch(alice)["next_cursor"]
    alice.delete(f"{PATH}/{created['id']}?mode=purge")

    [change] = fetch(alice, cursor)["changes"]

    assert change["type"] == "deleted"
    assert change["id"] == created["id"]
    assert change["deleted_at"] >= created["deleted_at"]


def test_a_conversation_created_and_purged_between_requests_is_a_delete(alice):
    cursor = fetch(alice)["next_cursor"]
    created = conversation(alice, "deleted")
    alice.delete(f"{PATH}/{created['id']}?mode=purge")

    assert summaries(fetch(alice, cursor)) == [created["id"]]


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_pages_of_any_size_give_the_same_feed(alice, limit):
    now = clock.now()
    ages = [timedelta(days=400), timedelta(hours=1), timedelta(seconds=50), timedelta()]
    put(*[document(changed_at=now - age) for age in ages for _ in range(3)])
    put(*[document("bob") for _ in range(3)])
    reader = Reader(alice)

    assert reader.read(limit=limit) >= 12
    assert reader.known == listed(alice)
    assert sum(reader.read(limit=limit) for _ in range(3)) <= 6
    assert reader.read(limit=limit) == 0


def test_a_snapshot_includes_purges_during_its_pages(alice):
    rows = [document(ago=timedelta(days=9 - n), status="deleted") for n in range(6)]
    ids = put(*rows)
    page = fetch(alice, limit=4)
    alice.delete(f"{PATH}/{ids[0]}?mode=purge")
    alice.delete(f"{PATH}/{ids[5]}?mode=purge")

    reader = Reader(alice, page["next_cursor"])
    for change in page["changes"]:
        reader.apply(change)
    reader.read(limit=4)
    reader.read(limit=4)

    assert reader.known.keys() == set(ids[1:5])


@pytest.mark.parametrize("late", [timedelta(seconds=1), OVERLAP - timedelta(seconds=5)])
def test_a_late_commit_is_not_missed(alice, late):
    conversation(alice)
    cursor = fetch(alice)["next_cursor"]
    conversation(alice)
    cursor = fetch(alice, cursor)["next_cursor"]

    [late_id] = put(document(ago=late))
    page = fetch(alice, cursor)

    assert [change["conversation"]["id"] for change in page["changes"]] == [late_id]
    assert fetch(alice, page["next_cursor"])["changes"] == []


def test_changes_of_the_same_millisecond_are_distinguished(alice):
    now = clock.now()
    put(document(changed_at=now))
    cursor = fetch(alice)["next_cursor"]

    put(document(changed_at=now), document(changed_at=now, _id=ObjectId(b"\0" * 12)))

    assert len(fetch(alice, cursor)["changes"]) == 2


def test_changes_with_equal_times_are_distinguished(alice):
    [id_] = put(document(ago=timedelta(seconds=-20)))
    cursor = fetch(alice)["next_cursor"]

    for title in ("One", "Two"):
        alice.patch(f"{PATH}/{id_}", {"title": title})
        page = fetch(alice, cursor)
        assert summaries(page) == [title]
        cursor = page["next_cursor"]


def test_a_burst_is_delivered_completely_and_ends(alice, monkeypatch):
    monkeypatch.setattr("conversations.queries.feed_cursor.OVERLAP_MS", 1_500)
    reader = Reader(alice)
    reader.read()
    ids = put(*[document() for _ in range(3 * MAX_SENT)])
    assert reader.read(limit=20) <= 4 * MAX_SENT
    [late] = put(document(ago=timedelta(seconds=0.5)))
    ids.append(late)

    settled = clock.now() + timedelta(seconds=3.2)
    while clock.now() < settled:
        reader.read()

    assert reader.known.keys() == set(ids)
    assert reader.received <= 3 * len(ids)
    assert reader.read() == 0


def test_a_cursor_fits_into_a_url(alice):
    put(*[document() for _ in range(MAX_SENT)])

    cursor = fetch(alice)["next_cursor"]

    assert fetch(alice, cursor)["changes"] == []
    assert 1_000 < len(cursor) < 2_048


def test_the_overview_has_the_first_cursor(alice):
    old = document(ago=timedelta(minutes=5))
    put(old)
    shown = conversation(alice)
    cursor = alice.get(f"{PATH}/overview").json()["sync_cursor"]
    later = conversation(alice)

    assert summaries(fetch(alice, cursor)) == [shown["title"], later["title"]]


@pytest.mark.parametrize("days", [89, 91])
def test_a_cursor_is_valid_while_tombstones_are_kept(alice, days):
    with travel(datetime.now(UTC) - timedelta(days=days)):
        cursor = feed_cursor.cursor_since("alice", clock.now())
    created = conversation(alice)

    response = alice.get(CHANGES, {"cursor": cursor})

    if days == 89:
        assert summaries(response.json()) == [created["title"]]
        return
    assert response.status_code == 410
    error = response.json()["error"]
    assert error["code"] == "CHANGES_CURSOR_EXPIRED"
    assert summaries(fetch(alice, error["details"]["snapshot_cursor"])) == [created["title"]]


def test_an_idle_client_keeps_a_valid_cursor(alice):
    cursor = feed_cursor.cursor_since("alice", clock.now() - timedelta(days=80))

    fresh = fetch(alice, cursor)["next_cursor"]

    assert feed_cursor.decode("alice", fresh).since[0] / 1000 > clock.now().timestamp() - 90


def test_an_unchanged_page_is_304(alice):
    conversation(alice)
    cursor = fetch(alice)["next_cursor"]
    empty = alice.get(CHANGES, {"cursor": cursor})

    same = alice.get(CHANGES, {"cursor": cursor}, headers={"If-None-Match": empty.headers["ETag"]})

    assert empty.headers["ETag"].startswith('W/"')
    assert same.status_code == 304
    conversation(alice)
    changed = alice.get(
        CHANGES, {"cursor": cursor}, headers={"If-None-Match": empty.headers["ETag"]}
    )
    assert changed.status_code == 200


@pytest.mark.parametrize(
    "cursor",
    [
        "x",
        "W10.x",
        feed_cursor.encode("bob", feed_cursor.SNAPSHOT),
        feed_cursor.cursor_since("bob", clock.now()),
    ],
    ids=["a word", "a wrong signature", "bob's snapshot", "bob's place"],
)
def test_a_cursor_of_another_user_is_rejected(alice, cursor):
    response = alice.get(CHANGES, {"cursor": cursor})

    assert response.status_code == 400
    assert response.json()["error"]["code"] == "INVALID_CURSOR"


@pytest.mark.parametrize(
    "parameters", [{"limit": 0}, {"wait": 26}, {"wait": -1}, {"wait": "x"}, {"status": "all"}]
)
def test_parameters_are_checked(alice, parameters):
    assert alice.get(CHANGES, parameters).status_code == 400


def test_a_limit_above_the_maximum_is_the_maximum(alice):
    put(*[document(ago=timedelta(hours=1)) for _ in range(501)])

    page = fetch(alice, limit=10_000)

    assert len(page["changes"]) == 500
    assert page["has_more"]


def test_a_waiting_request_returns_on_a_change(alice):
    cursor = fetch(alice)["next_cursor"]
    Timer(0.3, lambda: conversation(client_of("alice"), title="New")).start()

    started = clock.now()
    page = fetch(alice, cursor, wait=20)

    assert summaries(page) == ["New"]
    assert clock.now() - started < timedelta(seconds=5)


def test_a_waiting_request_returns_after_the_wait_time(alice):
    cursor = fetch(alice)["next_cursor"]
    Timer(0.3, lambda: conversation(client_of("bob"))).start()

    started = clock.now()
    page = fetch(alice, cursor, wait=2)

    assert page == {"changes": [], "next_cursor": cursor, "has_more": False}
    assert timedelta(seconds=1.9) < clock.now() - started < timedelta(seconds=4)


def test_a_waiting_request_returns_late_commits(alice):
    conversation(alice)
    cursor = fetch(alice)["next_cursor"]
    late = document(ago=timedelta(seconds=20))
    Timer(0.3, lambda: put(late)).start()

    assert len(fetch(alice, cursor, wait=2)["changes"]) == 1


@pytest.mark.parametrize(
    ("setting", "limit"),
    [("CHANGES_WAITING_PER_USER", "user_streams"), ("CHANGES_WAITING", "streams")],
)
def test_too_many_waiting_requests_are_rejected_and_counted(alice, settings, setting, limit):
    setattr(settings, setting, 0)
    cursor = fetch(alice)["next_cursor"]
    before = rejections(limit)

    response = alice.get(CHANGES, {"cursor": cursor, "wait": 1})

    assert rejections(limit) == before + 1

    assert response.status_code == 503
    assert response.json()["error"]["code"] == "STREAMS_EXHAUSTED"
    assert response.headers["Retry-After"] == "5"
    assert fetch(alice, cursor)["changes"] == []


def test_waiting_requests_and_their_limit_are_measured(settings):
    with waiters.register("alice"), waiters.register("bob"):
        assert measured("waiting") == 2
        assert measured("limit") == settings.CHANGES_WAITING
    assert measured("waiting") == 0


def rejections(limit: str) -> float:
    return REGISTRY.get_sample_value("limit_rejections_total", {"limit": limit}) or 0


def measured(state: str) -> float | None:
    return REGISTRY.get_sample_value("changes_waiting", {"state": state})


@pytest.fixture
def plenty():
    rows = [document(ago=timedelta(minutes=n % 40)) for n in range(400)]
    now = clock.now()
    gone = {"status": "purged", "expires_at": now + timedelta(days=9), "user_id": "alice"}
    tombstones = [
        {"_id": ObjectId(), "changed_at": now - timedelta(minutes=n), **gone} for n in range(50)
    ]
    put(*rows, *tombstones, *[document("bob") for _ in range(50)])


def explained(mongo, commands, alice, cursor):
    commands.clear()
    page = fetch(alice, cursor, limit=10)
    [command] = commands
    assert user_of(filter_of(command)) == "alice"
    kept = {name: command[name] for name in ("aggregate", "pipeline", "hint", "cursor")}
    plan = mongo.command("explain", kept, verbosity="executionStats")
    found = plan["stages"][0]["$cursor"] if "stages" in plan else plan
    return page["next_cursor"], found


def test_a_page_reads_only_its_documents(mongo, commands, alice, plenty):
    cursor = None
    for _ in range(6):
        cursor, plan = explained(mongo, commands, alice, cursor)
        assert plan["executionStats"]["totalDocsExamined"] <= 11
        assert "SORT" not in stages(plan["queryPlanner"]["winningPlan"])
        assert "user_changes" in str(plan["queryPlanner"]["winningPlan"])


def test_recently_sent_changes_cost_one_index_key_each(mongo, commands, alice):
    put(*[document() for _ in range(30)], *[document(ago=timedelta(days=1)) for _ in range(90)])
    reader = Reader(alice)
    reader.read()

    _, plan = explained(mongo, commands, alice, reader.cursor)

    assert plan["executionStats"]["totalDocsExamined"] == 30


def test_polling_for_waiting_requests_reads_no_document(mongo, commands, plenty):
    commands.clear()
    latest = latest_changes(["alice", "bob", "carol"])

    assert latest.keys() == {"alice", "bob"}
    [command] = commands
    kept = {name: command[name] for name in ("aggregate", "pipeline", "hint", "cursor")}
    plan = mongo.command("explain", kept, verbosity="executionStats")
    assert "'totalDocsExamined': 0" in str(plan)


LATE_S = st.integers(0, int(OVERLAP.total_seconds()) - 10)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 7), LATE_S),
        st.tuples(st.just("purge"), st.integers(0, 7), LATE_S),
        st.tuples(st.just("commit"), st.integers(0, 3), st.just(0)),
        st.tuples(st.just("read"), st.integers(1, 4), st.integers(0, 2)),
    ),
    max_size=40,
)


class Writers:
    """Writers that take a time and commit later, as other clients see them.

    Writes of one conversation are in sequence, each with a later time.
    """

    def __init__(self):
        self.ids = [ObjectId() for _ in range(8)]
        self.held = []
        self.latest = {}
        self.version = 0

    def write(self, number, late_s, *, purge=False):
        """Write with an old time, like a pod with a late clock or a slow commit."""
        id_ = self.ids[number]
        before = self.latest.get(id_)
        if before and before["status"] == "purged":
            return
        moment = clock.now() - timedelta(seconds=late_s)
        if before:
            moment = max(moment, before["changed_at"] + timedelta(milliseconds=1))
        self.version += 1
        row = document(_id=id_, changed_at=moment, version=self.version, title=str(self.version))
        if purge:
            row = {name: row[name] for name in ("_id", "user_id", "changed_at")}
            row |= {"status": "purged", "expires_at": moment + timedelta(days=90)}
        self.latest[id_] = row
        self.held.append(row)

    def commit(self, number):
        while self.held:
            row = self.held.pop(0)
            collection("conversations").replace_one({"_id": row["_id"]}, row, upsert=True)
            if number == 0:
                return
            number -= 1


@given(steps=STEPS, sent=st.sampled_from([0, 2, MAX_SENT]))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_client_of_the_feed_has_the_stored_state(mongo, monkeypatch, steps, sent):
    """For commits of any delay within OVERLAP, and cursors with any number of sent changes."""
    monkeypatch.setattr("conversations.queries.feed_cursor.MAX_SENT", sent)
    mongo["conversations"].delete_many({})
    alice = client_of("alice")
    writers, readers = Writers(), [Reader(alice), Reader(alice)]
    for what, number, other in steps:
        if what == "read":
            page = fetch(alice, readers[other % 2].cursor, limit=number)
            for change in page["changes"]:
                readers[other % 2].apply(change)
            readers[other % 2].cursor = page["next_cursor"]
        elif what == "commit":
            writers.commit(number)
        else:
            writers.write(number, other, purge=what == "purge")
    while writers.held:
        writers.commit(0)

    for reader in readers:
        reader.read(limit=3)
        monkeypatch.setattr("conversations.queries.feed_cursor.OVERLAP_MS", -1)  # a minute later
        for _ in range(3):
            reader.read(limit=3)
        monkeypatch.undo()
        monkeypatch.setattr("conversations.queries.feed_cursor.MAX_SENT", sent)
        assert reader.known == listed(alice)
        assert reader.read(limit=3) == 0


def test_a_signed_cursor_decodes_to_its_value():
    place = (1_790_000_000_123, "507f1f77bcf86cd799439014")
    for cursor in [
        feed_cursor.SNAPSHOT,
        FeedCursor(place),
        FeedCursor(place, frozenset({place, (1, "0" * 24)})),
        FeedCursor(place, ahead=place),
        FeedCursor((5, ""), ahead=place, is_snapshot=True),
    ]:
        assert feed_cursor.decode("alice", feed_cursor.encode("alice", cursor)) == cursor
