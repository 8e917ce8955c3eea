"""The data on the console's first page. The statistics are cached for all processes."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any

from django.core.cache import cache
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from config.upstreams import UPSTREAMS
from conversation_service import clock, health
from conversation_service.errors import Message
from conversation_service.upstreams import http
from conversations import states
from conversations.admin.timeline import shown
from conversations.queries import statistics
from conversations.queries.statistics import Count, Statistics

CACHED_S = 300
_CACHE_KEY = "console.statistics"

_DATABASES: dict[str, Message] = {"mongodb": _("MongoDB"), "redis": _("Redis")}
_STATES: dict[str, Message] = {
    states.ACTIVE: _("Active conversations"),
    states.ARCHIVED: _("Archived conversations"),
    states.DELETED: _("Conversations in the trash"),
}
_STATUSES: dict[str, Message] = {
    "healthy": _("healthy"),
    "unhealthy": _("unhealthy"),
    "not_configured": _("not configured"),
}
_BREAKERS: dict[str, Message] = {
    "closed": _("closed: requests are sent"),
    "half-open": _("half-open: one request is sent"),
    "open": _("open: no request is sent"),
}

# In SVG units, which the browser scales.
_WIDTH, _HEIGHT, _GAP = 700, 160, 4


@dataclass(frozen=True)
class Bar:
    """A bar in an SVG chart; `share` is its percentage relative to the longest bar."""

    label: str
    number: str
    x: float
    y: float
    width: float
    height: float
    share: float


@dataclass(frozen=True)
class Chart:
    """Bars, and the axis labels: numbers from the top down, and names for some bars."""

    bars: list[Bar]
    numbers: list[str]
    labels: list[str]


@dataclass(frozen=True)
class Dependency:
    name: Message
    status: str
    says: Message
    response_time_ms: float | None
    breaker: str
    breaker_says: Message


def context() -> dict[str, Any]:
    found = cached_statistics()
    counted_at = found["at"].replace(tzinfo=UTC)  # the cache returns a naive time
    return {
        **totals(found),
        "counts_held": None if found["held"] is None else number(found["held"]),
        "counts_by_state": [
            (count["label"], _STATES[count["label"]], number(count))
            for count in found["by_state"] or []
        ],
        "chart_days": chart(found["by_day"]),
        "chart_hours": chart(found["by_hour"]),
        "characters": None if found["characters"] is None else bars(found["characters"]),
        "dependencies": dependencies(),
        "counted_at": counted_at,
        "age_minutes": int((clock.now() - counted_at).total_seconds() // 60),
        "fresh_minutes": CACHED_S // 60,
        "sample": shown(statistics.SAMPLE),
        "counted": shown(statistics.COUNTED),
        "newest": shown(statistics.NEWEST),
        "chart_width": _WIDTH,
        "chart_height": _HEIGHT,
        "chart_middle": _HEIGHT // 2,
    }


def cached_statistics() -> Statistics:
    """Return statistics that a process computed in the last CACHED_S, or compute them."""
    found: Statistics | None = cache.get(_CACHE_KEY)
    if found is None:
        found = statistics.collect(clock.now())
        cache.set(_CACHE_KEY, found, CACHED_S)
    return found


def number(count: Count) -> str:
    """Return the number as text: "≈" marks an estimate, "+" a bound where counting stopped."""
    mark, more = "≈ " if count.get("estimated") else "", "+" if count.get("more") else ""
    return f"{mark}{shown(count['number'])}{more}"


def totals(found: Statistics) -> dict[str, str]:
    """Return the sum over the states, and the number of all other documents: tombstones."""
    if found["by_state"] is None:
        return {}
    total = sum(count["number"] for count in found["by_state"])
    is_estimated = any(count.get("estimated") for count in found["by_state"])
    texts = {"counts_total": number(Count(label="", number=total, estimated=is_estimated))}
    if found["total"] is not None and (tombstones := found["total"] - total) > 0:
        texts["tombstones"] = shown(tombstones)
    return texts


def chart(counts: Sequence[Count] | None) -> Chart | None:
    if counts is None:
        return None
    end = axis_end(max((count["number"] for count in counts), default=0))
    drawn = bars(counts, end)
    some = [drawn[n].label for n in (0, len(drawn) // 2, -1)] if drawn else []
    return Chart(drawn, [shown(end), shown(end // 2), "0"], some)


def axis_end(longest: int) -> int:
    """Return the smallest of 2, 4, 10, 20, 40, 100 and so on that the longest bar fits in."""
    power = 1
    while longest > 10 * power:
        power *= 10
    return next(end * power for end in (2, 4, 10) if longest <= end * power)


def bars(counts: Sequence[Count], end: int | None = None) -> list[Bar]:
    """Return bars relative to an axis's end, or to the longest bar."""
    end = end or max((count["number"] for count in counts), default=0) or 1
    step = _WIDTH / max(1, len(counts))
    return [
        Bar(
            count["label"],
            number(count),
            x=round(n * step, 1),
            y=round(_HEIGHT - (height := count["number"] / end * _HEIGHT), 1),
            width=round(step - _GAP, 1),
            height=round(height, 1),
            share=round(count["number"] / end * 100, 1),
        )
        for n, count in enumerate(counts)
    ]


def dependencies() -> list[Dependency]:
    """Return each dependency's health, and its circuit breaker's state in this process."""
    report = health.latest()["dependencies"]
    rows = [_dependency(report[key], title) for key, title in _DATABASES.items()]
    for upstream in UPSTREAMS.values():
        title = gettext("%(upstream)s service") % {"upstream": upstream.title}
        breaker = http.client(upstream.name).breaker.state
        rows.append(_dependency(report[f"{upstream.name}_service"], title, breaker))
    return rows


def _dependency(found: dict[str, Any], name: Message, breaker: str = "") -> Dependency:
    status, says = found["status"], _STATUSES[found["status"]]
    breaker_says = _BREAKERS.get(breaker, "")
    return Dependency(name, status, says, found["response_time_ms"], breaker, breaker_says)
