"""Rate limits for users, as a DRF throttle.

An exact sliding window: for each user and policy it stores the times when the last requests were
accepted, up to the limit. No period with a length of RATE_LIMIT_WINDOW_S has more requests. A fixed
window, a weighted window and a leaky bucket accept nearly twice the limit.

Redis stores the times for all processes, by its own clock. Without Redis, or while Redis does not
reply, each process counts for itself: no request is rejected because Redis is down.
"""

import hashlib
import math
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, NamedTuple, cast
from urllib.parse import quote

from django.conf import settings
from redis import Redis
from redis.exceptions import NoScriptError
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from conversation_service import redis
from conversation_service.errors import RateLimitExceeded
from conversation_service.http.authentication import Caller
from conversation_service.observability.metrics import RATE_LIMITED
from conversation_service.tokens import USER

ALL = "all"
MAX_KEYS = 10_000  # if a process counts for itself; 6 KB each at a limit of 100

_SECOND = 1_000_000  # times are in microseconds since the epoch


class Policy(NamedTuple):
    name: str
    limit: int


@dataclass(frozen=True)
class Usage:
    """A policy's counted requests, and the microseconds until one more is accepted."""

    policy: Policy
    used: int
    wait: int

    @property
    def remaining(self) -> int:
        return max(0, self.policy.limit - self.used)

    @property
    def wait_s(self) -> int:
        return math.ceil(self.wait / _SECOND)


@dataclass(frozen=True)
class Decision:
    accepted: bool
    at: int
    usages: Sequence[Usage]

    @property
    def tightest(self) -> Usage:
        """The policy with the least remaining requests; among equals, with the longest wait."""
        return min(self.usages, key=lambda usage: (usage.remaining, -usage.wait))

    def headers(self, window_s: int) -> dict[str, str]:
        tightest = self.tightest
        name, limit = tightest.policy
        policies = (f'"{usage.policy.name}";q={usage.policy.limit}' for usage in self.usages)
        return {
            "X-RateLimit-Limit": str(limit),
            "X-RateLimit-Remaining": str(tightest.remaining),
            "X-RateLimit-Reset": str(math.ceil((self.at + tightest.wait) / _SECOND)),
            "RateLimit-Policy": ", ".join(f"{policy};w={window_s}" for policy in policies),
            "RateLimit": f'"{name}";r={tightest.remaining};t={tightest.wait_s}',
        }


class UserRateThrottle(BaseThrottle):
    """Limits users by the policies in settings.RATE_LIMITS. Services have no limit.

    Endpoint.rate_limit() names the policy of a request. All requests count under "all" too.
    """

    def allow_request(self, request: Request, view: Any) -> bool:
        caller = request.user
        if not settings.RATE_LIMIT_ENABLED or not isinstance(caller, Caller):
            return True
        handler = getattr(view, "action", None) or view.request.method.lower()
        own = view.rate_limit(handler)
        limits = ((name, settings.RATE_LIMITS[name]) for name in (own, ALL) if name)
        policies = [Policy(name, limit) for name, limit in limits if limit > 0]
        if caller.token_type != USER or not policies:
            return True
        decision = count(caller.id, policies, settings.RATE_LIMIT_WINDOW_S)
        # DRF adds a view's headers to its response, also to a failure.
        view.headers |= decision.headers(settings.RATE_LIMIT_WINDOW_S)
        if decision.accepted:
            return True
        exhausted = decision.tightest
        RATE_LIMITED.labels(exhausted.policy.name).inc()
        raise RateLimitExceeded(
            again_in_s=exhausted.wait_s,
            policy=exhausted.policy.name,
            limit=exhausted.policy.limit,
            window_s=settings.RATE_LIMIT_WINDOW_S,
            retry_after_s=exhausted.wait_s,
        )


def count(caller: str, policies: Sequence[Policy], window_s: int) -> Decision:
    """Count a request under all these policies, or under none if a policy is exhausted."""
    # Redis Cluster hashes only the text between the first braces: a caller's keys are all on the
    # same node, as a script requires. Braces in the id are escaped.
    quoted = quote(caller, safe=":@")
    keys = [f"ratelimit:{{{quoted}}}:{policy.name}" for policy in policies]
    limits = [policy.limit for policy in policies]
    window = window_s * _SECOND
    try:
        accepted, at, *numbers = redis.call(lambda r: _take_from_redis(r, keys, limits, window))
    except redis.Unavailable:
        accepted, at, *numbers = _local_counts.take(keys, limits, window)
    usages = map(Usage, policies, numbers[::2], numbers[1::2])
    return Decision(bool(accepted), at, list(usages))


# Returns whether the request is accepted, the time, and for each key the counted requests and the
# wait until the next one leaves the window.
#
# Removes times in the future: they were written before the clock was set back.
_TAKE = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local window = tonumber(ARGV[1])
local accepted = 1
local used = {}
for i, key in ipairs(KEYS) do
    local oldest = tonumber(redis.call('LINDEX', key, 0))
    while oldest and (oldest <= now - window or oldest > now) do
        redis.call('LPOP', key)
        oldest = tonumber(redis.call('LINDEX', key, 0))
    end
    used[i] = redis.call('LLEN', key)
    if used[i] >= tonumber(ARGV[i + 1]) then accepted = 0 end
end
local reply = {accepted, now}
for i, key in ipairs(KEYS) do
    if accepted == 1 then
        used[i] = redis.call('RPUSH', key, string.format('%.0f', now))
        redis.call('PEXPIRE', key, math.ceil(window / 1000))
    end
    local frees = redis.call('LINDEX', key, math.max(0, used[i] - ARGV[i + 1]))
    table.insert(reply, used[i])
    table.insert(reply, frees and frees + window - now or 0)
end
return reply
"""
_TAKE_SHA = hashlib.sha1(_TAKE.encode(), usedforsecurity=False).hexdigest()


def _take_from_redis(
    server: Redis, keys: Sequence[str], limits: Sequence[int], window: int
) -> list[int]:
    arguments: list[Any] = [len(keys), *keys, window, *limits]
    try:
        reply = server.evalsha(_TAKE_SHA, *arguments)
    except NoScriptError:  # the server has restarted
        reply = server.eval(_TAKE, *arguments)
    return cast(list[int], reply)


class LocalCounts:
    """The counts in this process, for the MAX_KEYS keys that were accepted last."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._times: OrderedDict[str, deque[int]] = OrderedDict()  # the oldest key first

    def take(self, keys: Sequence[str], limits: Sequence[int], window: int) -> list[int]:
        with self._lock:
            now = time.time_ns() // 1000
            while self._times:
                stalest = next(iter(self._times))
                if len(self._times) < MAX_KEYS and self._current(stalest, now, window):
                    break
                del self._times[stalest]
            kept = [self._current(key, now, window) for key in keys]
            accepted = all(len(t) < limit for t, limit in zip(kept, limits, strict=True))
            result = [int(accepted), now]
            for key, times, limit in zip(keys, kept, limits, strict=True):
                if accepted:
                    times.append(now)
                    self._times[key] = times
                    self._times.move_to_end(key)
                used = len(times)
                frees = times[max(0, used - limit)] if times else now - window
                result += [used, frees + window - now]
            return result

    def _current(self, key: str, now: int, window: int) -> deque[int]:
        times = self._times.get(key, deque())
        while times and not now - window < times[0] <= now:
            times.popleft()
        return times


_local_counts = LocalCounts()
