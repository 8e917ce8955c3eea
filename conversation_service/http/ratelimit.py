"""Rate limits for users, as a DRF throttle.

An exact sliding window: for each user and policy it stores the times when the last requests were
accepted, up to the limit. Redis stores them for all processes, by its own clock. Without a reply
from Redis, each process counts for itself: no request is rejected because Redis is down.

A creation counts from its start, so parallel requests cannot exceed the limit. If it is refused
with a 4xx, its count under "create" is removed. It stays counted under "all", which bounds the cost
of a flood of faulty requests.
"""

import math
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from http import HTTPStatus
from threading import Lock
from typing import Any, NamedTuple
from urllib.parse import quote

from django.conf import settings
from redis import Redis
from redis.commands.core import Script
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from conversation_service import redis
from conversation_service.errors import RateLimitExceeded
from conversation_service.http.authentication import Caller
from conversation_service.observability.metrics import RATE_LIMITED
from conversation_service.tokens import USER

ALL = "all"
RETURNED_IF_REFUSED = "create"  # the policy that does not count refused requests
MAX_KEYS = 10_000  # if a process counts for itself; 6 KB each at a limit of 100

_SECOND = 1_000_000  # times are in microseconds since the epoch


class Policy(NamedTuple):
    name: str
    limit: int


class Decision(NamedTuple):
    """The policy has the least remaining requests; among equals, the longest wait for the next."""

    accepted: bool
    policy: Policy
    remaining: int
    wait_s: int
    reset_at: int  # when the wait ends, in seconds since the epoch
    counted_at: int  # in microseconds since the epoch


class Counted(NamedTuple):
    """A request that was counted under these policies."""

    caller: str
    policies: Sequence[Policy]
    window_s: int
    at: int

    def return_if_refused(self, status: int) -> dict[str, str]:
        """Remove a refused creation from its policy; return the headers that change."""
        is_refused = HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR
        if not is_refused or self.policies[0].name != RETURNED_IF_REFUSED:
            return {}
        return _headers(count(self.caller, self.policies, self.window_s, returned=self.at))


class UserRateThrottle(BaseThrottle):
    """Limits users by the policies in settings.RATE_LIMITS. Services have no limit.

    Endpoint.rate_limit() names a request's policy. All requests count under "all" too.
    """

    def allow_request(self, request: Request, view: Any) -> bool:
        caller = request.user
        if not settings.RATE_LIMIT_ENABLED or not isinstance(caller, Caller):
            return True
        handler = getattr(view, "action", None) or view.request.method.lower()
        own = view.rate_limit(handler)
        limits = settings.RATE_LIMITS
        policies = [Policy(name, limits[name]) for name in (own, ALL) if name and limits[name] > 0]
        if caller.token_type != USER or not policies:
            return True
        window_s = settings.RATE_LIMIT_WINDOW_S
        decision = count(caller.id, policies, window_s)
        # DRF adds a view's headers to its response, also to a failure.
        view.headers |= _headers(decision)
        view.headers["RateLimit-Policy"] = ", ".join(
            f'"{p.name}";q={p.limit};w={window_s}' for p in policies
        )
        if decision.accepted:
            view.counted = Counted(caller.id, policies, window_s, decision.counted_at)
            return True
        name, limit = decision.policy
        RATE_LIMITED.labels(name).inc()
        raise RateLimitExceeded(
            again_in_s=decision.wait_s,
            policy=name,
            limit=limit,
            window_s=window_s,
            retry_after_s=decision.wait_s,
        )


def _headers(decision: Decision) -> dict[str, str]:
    name, limit = decision.policy
    return {
        "X-RateLimit-Limit": str(limit),
        "X-RateLimit-Remaining": str(decision.remaining),
        "X-RateLimit-Reset": str(decision.reset_at),
        "RateLimit": f'"{name}";r={decision.remaining};t={decision.wait_s}',
    }


def count(caller: str, policies: Sequence[Policy], window_s: int, *, returned: int = 0) -> Decision:
    """Count a request under all these policies, or under none if a policy is exhausted.

    With `returned`, the time of a counted request, remove that request from the first policy
    instead.
    """
    # Redis Cluster hashes only the text between the first braces: a caller's keys are all on the
    # same node, as a script requires. Braces in the id are escaped.
    quoted = quote(caller, safe=":@")
    keys = [f"ratelimit:{{{quoted}}}:{policy.name}" for policy in policies]
    limits = [policy.limit for policy in policies]
    window = window_s * _SECOND
    try:
        arguments = [window, returned, *limits]
        accepted, at, *numbers = redis.call(lambda r: _COUNT(keys, arguments, client=r))
    except redis.Unavailable:
        accepted, at, *numbers = _local_counts.count(keys, limits, window, returned)
    usages = [
        (max(0, policy.limit - used), wait, policy)
        for policy, used, wait in zip(policies, numbers[::2], numbers[1::2], strict=True)
    ]
    remaining, wait, policy = min(usages, key=lambda usage: (usage[0], -usage[1]))
    wait_s, reset_at = math.ceil(wait / _SECOND), math.ceil((at + wait) / _SECOND)
    return Decision(bool(accepted), policy, remaining, wait_s, reset_at, at)


# Returns whether the request is accepted, the time, and for each key the counted requests and the
# wait until the next one leaves the window.
#
# Removes times in the future: they were written before the clock was set back.
#
# ARGV is the window, the time to remove from the first key or 0, and the limits. Requests with the
# same time are interchangeable, so one element with this time is removed.
_COUNT = Script(
    Redis(),  # only for the encoding: each call names its client
    """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local window = tonumber(ARGV[1])
local accepted = 1
if ARGV[2] ~= '0' then
    redis.call('LREM', KEYS[1], -1, ARGV[2])
    accepted = 0
end
local used = {}
for i, key in ipairs(KEYS) do
    local oldest = tonumber(redis.call('LINDEX', key, 0))
    while oldest and (oldest <= now - window or oldest > now) do
        redis.call('LPOP', key)
        oldest = tonumber(redis.call('LINDEX', key, 0))
    end
    used[i] = redis.call('LLEN', key)
    if used[i] >= tonumber(ARGV[i + 2]) then accepted = 0 end
end
local reply = {accepted, now}
for i, key in ipairs(KEYS) do
    if accepted == 1 then
        used[i] = redis.call('RPUSH', key, string.format('%.0f', now))
        redis.call('PEXPIRE', key, math.ceil(window / 1000))
    end
    local frees = redis.call('LINDEX', key, math.max(0, used[i] - ARGV[i + 2]))
    table.insert(reply, used[i])
    table.insert(reply, frees and frees + window - now or 0)
end
return reply
""",
)


class LocalCounts:
    """The counts in this process, for the MAX_KEYS keys that were accepted last."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._times: OrderedDict[str, deque[int]] = OrderedDict()  # the oldest key first

    def count(
        self, keys: Sequence[str], limits: Sequence[int], window: int, returned: int
    ) -> list[int]:
        """Count or remove a request, and reply like _COUNT."""
        with self._lock:
            now = time.time_ns() // 1000
            while self._times:
                stalest = next(iter(self._times))
                if len(self._times) < MAX_KEYS and self._current(stalest, now, window):
                    break
                del self._times[stalest]
            kept = [self._current(key, now, window) for key in keys]
            if returned in kept[0]:
                kept[0].remove(returned)
            accepted = not returned and all(
                len(t) < limit for t, limit in zip(kept, limits, strict=True)
            )
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
