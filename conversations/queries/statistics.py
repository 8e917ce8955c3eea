"""What the console's dashboard shows: numbers over all users, at a cost that does not grow.

Counts go along an index and end at a bound; beyond it they are estimated, by what the server knows
of the collection's size and by a sample of it. Nothing reads ten million of anything.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

import pymongo
from bson import ObjectId
from pymongo.errors import PyMongoError

from conversation_service.mongodb.connection import collection
from conversations.states import ACTIVE, ANY_STATE
from conversations.writes.changes import NOT_HELD

T = TypeVar("T")

# Of each question; they are asked one after the other, once for all staff in a few minutes.
BUDGET_S = 1.0
COUNTED = 100_000
SAMPLE = 2_000
NEWEST = 20_000
DAYS = 14
HOURS = 24
CHARACTERS = 10


@dataclass(frozen=True)
class Count:
    """A number, and whether it is a guess or, if `more`, where counting ended."""

    label: str
    number: int
    estimated: bool = False
    more: bool = False


Counts = list[Count]


@dataclass(frozen=True)
class Statistics:
    """Each part is None if it took longer than BUDGET_S."""

    at: datetime
    total: int | None
    held: Count | None
    by_state: Counts | None
    by_day: Counts | None
    by_hour: Counts | None
    characters: Counts | None


def statistics(now: datetime) -> Statistics:
    """Ask all of it."""
    total = _in_time(_total)
    sample = _in_time(_sample)
    return Statistics(
        now,
        total,
        _in_time(_held),
        _in_time(lambda: _by_state(total or 0, sample or [])),
        _in_time(lambda: _by_day(now)),
        _in_time(lambda: _by_hour(now)),
        None if sample is None or total is None else _characters(sample, total),
    )


def _in_time(question: Callable[[], T]) -> T | None:
    try:
        with pymongo.timeout(BUDGET_S):
            return question()
    except PyMongoError as error:
        if error.timeout:
            return None
        raise


def _total() -> int:
    """Return how many documents there are, tombstones included, from the collection's metadata."""
    return collection("conversations").estimated_document_count()


def _sample() -> list[Mapping[str, Any]]:
    """Return states and characters of some at random: of many, MongoDB reads no more than these."""
    pipeline: list[Mapping[str, Any]] = [
        {"$sample": {"size": SAMPLE}},
        {"$project": {"_id": 0, "status": 1, "character_id": 1}},
    ]
    return list(collection("conversations").aggregate(pipeline, batchSize=SAMPLE))


def _count(where: Mapping[str, Any], index: str) -> int:
    return collection("conversations").count_documents(where, hint=index, limit=COUNTED)


def _held() -> Count:
    """Count holds, of which there are few, by an index that has nothing else."""
    where = {"status": {"$in": ANY_STATE}, "hold.at": {"$gt": datetime(1970, 1, 1)}}  # noqa: DTZ001
    found = _count(where, "staff_held")
    return Count("held", found, more=found == COUNTED)


def _by_state(total: int, sample: Sequence[Mapping[str, Any]]) -> Counts:
    """Count each state by the index staff_status, and estimate what is more than that."""
    counts = []
    for status in ANY_STATE:
        found = _count({"status": status}, "staff_status")
        if found < COUNTED or not sample:
            counts.append(Count(status, found, more=found == COUNTED))
            continue
        share = sum(row["status"] == status for row in sample) / len(sample)
        counts.append(Count(status, max(found, round(share * total)), estimated=True))
    return counts


def _by_day(now: datetime) -> Counts:
    """Count by the day on which an id was made, along the index of ids, today last.

    Imported ids may lie in the future; today ends now.
    """
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    days = [today - timedelta(days=ago) for ago in reversed(range(DAYS))]
    counts = []
    for day in days:
        end = min(day + timedelta(days=1), now + timedelta(seconds=1))  # ids have whole seconds
        begun = {"$gte": ObjectId.from_datetime(day), "$lt": ObjectId.from_datetime(end)}
        found = _count({"_id": begun}, "_id_")
        counts.append(Count(f"{day:%Y-%m-%d}", found, more=found == COUNTED))
    return counts


def _by_hour(now: datetime) -> Counts:
    """Count those last active in each hour, by the index active_idle, of NEWEST at most.

    It holds active ones that are neither pinned nor held. An hour that the newest do not reach
    back to is left out; the one in which they end has more.
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
    rows = collection("conversations").aggregate(pipeline, hint="active_idle")
    found = {row["_id"]: row["count"] for row in rows}
    cut_off = min(found) if sum(found.values()) == NEWEST else None
    hours = [(since + timedelta(hours=n)).replace(tzinfo=None) for n in range(HOURS)]
    return [
        Count(f"{hour:%H}:00", found.get(hour, 0), more=hour == cut_off)
        for hour in hours
        if cut_off is None or hour >= cut_off
    ]


def _characters(sample: Sequence[Mapping[str, Any]], total: int) -> Counts:
    """Rank characters by their share in the sample; exact if that is everything there is."""
    numbers: dict[str, int] = {}
    for row in sample:
        if name := row.get("character_id"):
            numbers[name] = numbers.get(name, 0) + 1
    ranked = sorted(numbers.items(), key=lambda item: (-item[1], item[0]))[:CHARACTERS]
    whole = len(sample) < SAMPLE
    scale = 1.0 if whole else total / len(sample)
    return [Count(name, round(n * scale), estimated=not whole) for name, n in ranked]
