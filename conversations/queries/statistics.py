"""Statistics over all users for the console's dashboard, at a bounded cost.

Counts read an index up to a bound. Larger numbers are estimates from the collection's size and a
random sample.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, NotRequired, TypedDict, TypeVar

from bson import ObjectId

from conversations.collection import ID_INDEX, NOT_HELD, conversations
from conversations.limits import EPOCH
from conversations.queries.staff import QueryTooSlow, budget
from conversations.states import ACTIVE, ANY_STATE

T = TypeVar("T")

# For each statement. The statements run in sequence, and the dashboard caches their results.
BUDGET_S = 1.0
COUNTED = 100_000  # the highest exact count
SAMPLE = 2_000  # documents
NEWEST = 20_000  # conversations that the activity by hour includes
DAYS = 14
HOURS = 24
CHARACTERS = 10


class Count(TypedDict):
    """A number: exact, `estimated`, or, with `more`, the bound where counting stopped."""

    label: str
    number: int
    estimated: NotRequired[bool]
    more: NotRequired[bool]


Counts = list[Count]


class Statistics(TypedDict):
    """A part is None if its statement took longer than BUDGET_S."""

    at: datetime
    total: int | None
    held: Count | None
    by_state: Counts | None
    by_day: Counts | None
    by_hour: Counts | None
    characters: Counts | None


def collect(now: datetime) -> Statistics:
    """Run all statements."""
    # From the collection's metadata, which include tombstones.
    total = _in_time(conversations().estimated_document_count)
    sample = _in_time(random_sample)
    return {
        "at": now,
        "total": total,
        "held": _in_time(count_held),
        "by_state": _in_time(lambda: count_by_state(total or 0, sample or [])),
        "by_day": _in_time(lambda: count_by_day(now)),
        "by_hour": _in_time(lambda: count_by_hour(now)),
        "characters": None if sample is None or total is None else rank_characters(sample, total),
    }


def _in_time(statement: Callable[[], T]) -> T | None:
    """Return a statement's result, or None after BUDGET_S."""
    with suppress(QueryTooSlow), budget(BUDGET_S):
        return statement()
    return None


def random_sample() -> list[Mapping[str, Any]]:
    """Return status and character from random documents; a large collection is not scanned."""
    pipeline: list[Mapping[str, Any]] = [
        {"$sample": {"size": SAMPLE}},
        {"$project": {"_id": 0, "status": 1, "character_id": 1}},
    ]
    return list(conversations().aggregate(pipeline, batchSize=SAMPLE))


def _count(where: Mapping[str, Any], index: str) -> int:
    return conversations().count_documents(where, hint=index, limit=COUNTED)


def count_held() -> Count:
    """Count legal holds by the index staff_held."""
    where = {"status": {"$in": ANY_STATE}, "hold.at": {"$gt": EPOCH}}
    found = _count(where, "staff_held")
    return Count(label="held", number=found, more=found == COUNTED)


def count_by_state(total: int, sample: Sequence[Mapping[str, Any]]) -> Counts:
    """Count each state by the index staff_status; from COUNTED on, estimate."""
    counts = []
    for status in ANY_STATE:
        found = _count({"status": status}, "staff_status")
        if found < COUNTED or not sample:
            counts.append(Count(label=status, number=found, more=found == COUNTED))
            continue
        share = sum(row["status"] == status for row in sample) / len(sample)
        counts.append(Count(label=status, number=max(found, round(share * total)), estimated=True))
    return counts


def count_by_day(now: datetime) -> Counts:
    """Count ids by the day in their timestamp, with the index on `_id`; today is the last day.

    Today ends at `now`, because imported ids can be in the future.
    """
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    days = [today - timedelta(days=ago) for ago in reversed(range(DAYS))]
    counts = []
    for day in days:
        end = min(day + timedelta(days=1), now + timedelta(seconds=1))  # ids have whole seconds
        created = {"$gte": ObjectId.from_datetime(day), "$lt": ObjectId.from_datetime(end)}
        found = _count({"_id": created}, ID_INDEX)
        counts.append(Count(label=f"{day:%Y-%m-%d}", number=found, more=found == COUNTED))
    return counts


def count_by_hour(now: datetime) -> Counts:
    """Count conversations by their hour of last activity, with the index active_idle.

    That index has active conversations that are neither pinned nor under a legal hold. Only the
    NEWEST are read: the result starts with their oldest hour, which is incomplete.
    """
    this_hour = now.replace(minute=0, second=0, microsecond=0)
    since = this_hour - timedelta(hours=HOURS - 1)
    recent = {
        "metadata.last_activity": {"$gte": since, "$lte": now},
        "status": ACTIVE,
        "pinned_at": None,
        **NOT_HELD,
    }
    hour = {"$dateTrunc": {"date": "$metadata.last_activity", "unit": "hour"}}
    pipeline: list[Mapping[str, Any]] = [
        {"$match": recent},
        {"$sort": {"metadata.last_activity": -1, "_id": -1}},
        {"$limit": NEWEST},
        {"$group": {"_id": hour, "count": {"$sum": 1}}},
    ]
    rows = conversations().aggregate(pipeline, hint="active_idle")
    found = {row["_id"]: row["count"] for row in rows}
    oldest = min(found) if sum(found.values()) == NEWEST else None
    hours = [(since + timedelta(hours=n)).replace(tzinfo=None) for n in range(HOURS)]
    return [
        Count(label=f"{hour:%H}:00", number=found.get(hour, 0), more=hour == oldest)
        for hour in hours
        if oldest is None or hour >= oldest
    ]


def rank_characters(sample: Sequence[Mapping[str, Any]], total: int) -> Counts:
    """Rank characters by their share in the sample; exact if the sample has all conversations."""
    numbers = Counter(name for row in sample if (name := row.get("character_id")))
    ranked = sorted(numbers.items(), key=lambda item: (-item[1], item[0]))[:CHARACTERS]
    whole = len(sample) < SAMPLE
    scale = 1.0 if whole else total / len(sample)
    return [Count(label=name, number=round(n * scale), estimated=not whole) for name, n in ranked]
