"""The first page: numbers with a bounded cost, labelled if they are estimates."""

from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from bson import ObjectId
from django.core.cache import cache

from conversation_service import health
from conversation_service.development.process import free_port
from conversations import documents
from conversations.admin.dashboard import axis_end, number
from conversations.queries import statistics as console
from tests.conversations.admin.browser import staff, store, text
from tests.factories import conversation

DASHBOARD = "/admin/"
NOW = datetime(2026, 11, 24, 12, 30, tzinfo=UTC)


def put(mongo, count, at, **fields):
    rows = [documents.new(user_id="alice", character_id="luna", now=at) for _ in range(count)]
    for n, row in enumerate(rows):
        begun = ObjectId.from_datetime(at).binary[:4]
        row |= {"_id": ObjectId(begun + row["_id"].binary[4:]), "version": 1 + n, **fields}
    mongo["conversations"].insert_many(rows)


def found(counts):
    return {count["label"]: count["number"] for count in counts if count["number"]}


def test_it_counts_states_days_hours_holds_and_characters(mongo):
    put(mongo, 3, NOW)
    put(mongo, 2, NOW - timedelta(hours=2), status="archived", character_id="ada")
    put(mongo, 1, NOW - timedelta(days=3), hold={"by": "ops", "reason": "x", "at": NOW})

    statistics = console.collect(NOW)

    assert statistics["total"] == 6
    assert found([statistics["held"]]) == {"held": 1}
    assert found(statistics["by_state"]) == {"active": 4, "archived": 2}
    assert found(statistics["by_day"]) == {"2026-11-24": 5, "2026-11-21": 1}
    assert found(statistics["by_hour"]) == {"12:00": 3}
    assert found(statistics["characters"]) == {"luna": 4, "ada": 2}
    assert not any(count.get("estimated") or count.get("more") for count in statistics["by_state"])


def test_above_the_bound_states_are_estimated_and_days_show_a_minimum(mongo, monkeypatch):
    monkeypatch.setattr(console, "COUNTED", 5)
    monkeypatch.setattr(console, "SAMPLE", 20)
    put(mongo, 40, NOW)
    put(mongo, 3, NOW, status="archived")

    statistics = console.collect(NOW)

    states = {count["label"]: number(count) for count in statistics["by_state"]}
    assert states["active"].startswith("≈ ")
    assert states["archived"] == "3"
    assert number(statistics["by_day"][-1]) == "5+"
    assert number(statistics["characters"][0]) == "≈ 43"


def test_hours_count_only_the_newest_conversations_above_the_bound(mongo, monkeypatch):
    monkeypatch.setattr(console, "NEWEST", 5)
    put(mongo, 3, NOW)
    put(mongo, 4, NOW - timedelta(hours=1))
    put(mongo, 4, NOW - timedelta(hours=2))

    hours = console.collect(NOW)["by_hour"]

    assert [(count["label"], number(count)) for count in hours] == [("11:00", "2+"), ("12:00", "3")]


def test_times_in_the_future_are_not_counted(mongo, monkeypatch):
    monkeypatch.setattr(console, "NEWEST", 5)
    put(mongo, 2, NOW)
    put(mongo, 6, NOW + timedelta(minutes=1))
    put(mongo, 6, NOW + timedelta(hours=9))
    rows = [
        documents.new(user_id="alice", character_id="luna", now=datetime(9999, 12, 31, tzinfo=UTC))
        | {"_id": ObjectId(b"\xff" * 11 + bytes([n]))}
        for n in range(6)
    ]
    mongo["conversations"].insert_many(rows)

    statistics = console.collect(NOW)

    assert found(statistics["by_day"]) == {"2026-11-24": 2}
    assert found(statistics["by_hour"]) == {"12:00": 2}


def test_every_query_except_the_sample_uses_an_index(mongo):
    put(mongo, 30, NOW)
    mongo.command("profile", 2)

    console.collect(NOW)

    mongo.command("profile", 0)
    reads = list(mongo["system.profile"].find({"ns": f"{mongo.name}.conversations"}))
    mongo.drop_collection("system.profile")
    scans = [read for read in reads if "COLLSCAN" in read.get("planSummary", "")]
    assert len(reads) > 15
    assert all("$sample" in read["command"]["pipeline"][0] for read in scans)
    assert all(not read.get("hasSortStage") for read in reads if read not in scans)


def test_a_slow_query_is_left_out_and_the_rest_is_shown(viewer, mongo, monkeypatch):
    store(mongo, 1)
    monkeypatch.setattr(console, "BUDGET_S", 0.000_001)

    page = text(viewer.get(DASHBOARD))

    assert "Not available: the count took too long." in page
    assert "Circuit breaker" in page


def test_counts_are_cached_for_five_minutes_and_show_their_age(viewer, alice):
    now = datetime.now(UTC)
    conversation(alice)
    first = text(viewer.get(DASHBOARD))
    conversation(alice)
    with time_machine.travel(now + timedelta(minutes=4)):
        old = text(viewer.get(DASHBOARD))
    with time_machine.travel(now + timedelta(minutes=6)):
        anew = text(viewer.get(DASHBOARD))

    assert "Active conversations 1 " in first
    assert "Active conversations 1 " in old
    assert "Counted 3 minutes ago" in old or "Counted 4 minutes ago" in old
    assert "Active conversations 2 " in anew


def test_it_shows_upstreams_and_their_circuit_breakers(
    viewer, settings, monkeypatch, patient_health
):
    # Not the default address: `make run` may be running on this machine.
    settings.AUTH_SERVICE_URL = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setattr(health, "_reports", health._Reports())  # not the cached one of another test
    page = text(viewer.get(DASHBOARD))

    assert "MongoDB healthy" in page
    assert "Auth service unhealthy" in page
    assert "closed: requests are sent" in page


def test_charts_have_axes_numbers_on_hover_and_tables(viewer, alice):
    for _ in range(3):
        conversation(alice)

    page = viewer.get(DASHBOARD).content.decode()

    today = f"{datetime.now(UTC):%Y-%m-%d}"
    assert f"<title>{today}: 3</title>" in page
    assert f'<th scope="row">{today}</th><td>3</td>' in page
    assert "<span>4</span><span>2</span><span>0</span>" in page
    assert f"<span>{today}</span></p>" in page


@pytest.mark.parametrize(
    ("longest", "end"), [(0, 2), (1, 2), (3, 4), (5, 10), (11, 20), (200, 200), (100_000, 100_000)]
)
def test_the_axis_ends_at_a_round_number_with_a_whole_half(longest, end):
    assert axis_end(longest) == end


def test_the_total_is_the_sum_of_the_states_without_tombstones(viewer, alice, mongo):
    put(mongo, 3, NOW)
    put(mongo, 2, NOW, status="archived")
    mongo["conversations"].insert_one({"status": "purged"}, bypass_document_validation=True)

    page = text(viewer.get(DASHBOARD))

    assert "Active conversations 3 " in page
    assert "Total 5 " in page
    assert "Tombstones of purged conversations, not in the total: ≈ 1." in page


def test_staff_without_permissions_get_a_message(mongo):
    assert "The account has no role" in text(staff().get(DASHBOARD))


@pytest.mark.parametrize("value", [1, "text", {"a": [1, None]}])
def test_the_cache_keeps_values_until_they_expire(mongo, value):
    now = datetime.now(UTC)
    cache.set("key", value, 60)
    assert cache.get("key") == value
    with time_machine.travel(now + timedelta(seconds=62)):
        assert cache.get("key", "gone") == "gone"
        assert cache.add("key", 1, 60)
    assert not cache.add("key", 2, 600)
    assert cache.delete("key")
    assert not cache.delete("key")
