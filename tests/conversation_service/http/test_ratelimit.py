"""Limits of requests per user, counted in Redis or, without it, in the process."""

import re
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier
from types import SimpleNamespace
from uuid import uuid4

import pytest
import time_machine
from prometheus_client import REGISTRY
from redis import Redis
from rest_framework.test import APIClient

from conversation_service import redis
from conversation_service.development import process, valkey
from conversation_service.http import ratelimit
from tests.config.processes import eventually
from tests.conversation_service import loopback
from tests.factories import PATH, NewConversation, client_of, conversation, token

RATE_HEADERS = {
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-RateLimit-Reset",
    "RateLimit-Policy",
    "RateLimit",
}
SUMMARY = f"{PATH}/summary"  # has no policy of its own
WINDOW_S = 60


@pytest.fixture(autouse=True)
def limited(settings):
    settings.RATE_LIMIT_ENABLED = True
    settings.RATE_LIMIT_WINDOW_S = WINDOW_S


@pytest.fixture
def limits(settings):
    def set_limits(**limits):
        none = dict.fromkeys(settings.RATE_LIMITS, 0)
        settings.RATE_LIMITS = none | limits

    return set_limits


@pytest.fixture
def in_process(settings):
    settings.REDIS_URL = ""


@pytest.fixture(params=["in Redis", "in the process"])
def counted(request, settings, monkeypatch):
    """Run a test both ways."""
    if request.param == "in the process":
        settings.REDIS_URL = ""
        monkeypatch.setattr(redis, "_server", redis.Server(""))


@pytest.fixture
def new_user():
    """A client of a user without counted requests."""
    return client_of(f"u-{uuid4().hex}")


def statuses(client, path, times):
    return [client.get(path).status_code for _ in range(times)]


def concurrently(user, number, send):
    """Send this number of requests at the same moment, each by a client of its own.

    Returns their statuses.
    """
    start = Barrier(number)

    def call(index):
        client = client_of(user)
        start.wait()
        return send(client, index).status_code

    with ThreadPoolExecutor(number) as threads:
        return list(threads.map(call, range(number)))


def metric(name, **labels):
    return REGISTRY.get_sample_value(name, labels) or 0


def rates(response):
    return {name: value for name, value in response.headers.items() if name in RATE_HEADERS}


@pytest.mark.usefixtures("counted")
def test_of_96_concurrent_requests_exactly_the_limit_passes(limits):
    limits(list=20, all=50)

    responses = concurrently(f"u-{uuid4().hex}", 96, lambda client, _: client.get(PATH))

    assert (responses.count(200), responses.count(429)) == (20, 76)


@pytest.mark.usefixtures("counted")
def test_default_limits_apply(new_user):
    created = [new_user.post(PATH, NewConversation()) for _ in range(11)]
    path = f"{PATH}/{created[0].json()['id']}"
    patched = [new_user.patch(path, {"pinned": n % 2 == 0}).status_code for n in range(31)]
    deleted = [new_user.delete(path).status_code for _ in range(21)]

    assert [response.status_code for response in created] == [201] * 10 + [429]
    assert patched == [200] * 30 + [429]
    assert (deleted[0], deleted.count(429), deleted[-1]) == (200, 1, 429)
    assert statuses(new_user, PATH, 41) == [200] * 40 + [429]
    assert new_user.get(SUMMARY).status_code == 429


@pytest.mark.usefixtures("counted")
def test_searches_have_a_limit_of_their_own(new_user, limits):
    limits(list=2, search=3, all=20)

    assert statuses(new_user, f"{PATH}?limit=5&search=lu", 4) == [200] * 3 + [429]
    assert statuses(new_user, f"{PATH}?search=", 1) == [429]
    assert statuses(new_user, f"{PATH}?limit=5", 3) == [200] * 2 + [429]
    rejected = new_user.get(f"{PATH}?search=luna")
    assert rejected.json()["error"]["details"]["policy"] == "search"


@pytest.mark.usefixtures("counted")
def test_lists_are_limited_to_60_a_minute(new_user):
    assert statuses(new_user, PATH, 61) == [200] * 60 + [429]


@pytest.mark.usefixtures("counted")
def test_every_update_counts_as_a_patch(limits, new_user):
    limits(patch=4)
    path = f"{PATH}/{conversation(new_user)['id']}"

    calls = [new_user.post(f"{path}/{name}") for name in ("archive", "restore", "pin", "unpin")]

    assert [response.status_code for response in calls] == [200] * 4
    assert new_user.patch(path, {"title": "More"}).status_code == 429


@pytest.mark.usefixtures("counted")
def test_users_are_counted_separately(limits, new_user):
    limits(all=1)

    assert statuses(new_user, SUMMARY, 2) == [200, 429]
    assert client_of(f"u-{uuid4().hex}").get(SUMMARY).status_code == 200


@pytest.mark.usefixtures("counted")
def test_policies_are_counted_separately_and_in_the_total(limits, new_user):
    limits(list=1, create=1, all=3)

    assert new_user.get(PATH).status_code == 200
    assert new_user.get(PATH).status_code == 429
    assert new_user.post(PATH, NewConversation()).status_code == 201
    assert statuses(new_user, SUMMARY, 2) == [200, 429]


@pytest.mark.usefixtures("counted")
def test_a_rejected_request_counts_only_in_the_metric(limits, new_user):
    limits(list=1, all=3)
    before = metric("rate_limited_total", policy="list")

    assert statuses(new_user, PATH, 10) == [200] + [429] * 9
    assert metric("rate_limited_total", policy="list") == before + 9
    assert new_user.get(SUMMARY).headers["RateLimit"] == f'"all";r=1;t={WINDOW_S}'


@pytest.mark.usefixtures("counted")
def test_a_failed_request_is_counted(limits, new_user):
    limits(all=2)

    assert new_user.get(f"{PATH}/x").headers["X-RateLimit-Remaining"] == "1"
    assert new_user.put(PATH).headers["X-RateLimit-Remaining"] == "0"
    assert new_user.get(f"{PATH}/x").status_code == 429


REFUSED = {
    "a broken body": (400, lambda user: user.post(PATH, "{", content_type="application/json")),
    "an invalid field": (400, lambda user: user.post(PATH, {"character_id": ""})),
    "an invalid parameter": (400, lambda user: user.post(f"{PATH}?x=1", NewConversation())),
    "an invalid key": (
        400,
        lambda user: user.post(PATH, NewConversation(), headers={"Idempotency-Key": "é"}),
    ),
    "over the quota": (403, lambda user: user.post(PATH, NewConversation())),
    "a body that is too large": (
        413,
        lambda user: user.post(PATH, " " * 70_000, content_type="application/json"),
    ),
    "another media type": (415, lambda user: user.post(PATH, "a", content_type="text/plain")),
    "a copy of an absent one": (404, lambda user: user.post(f"{PATH}/{'0' * 24}/duplicate")),
    "a copy with an invalid title": (404, lambda user: user.post(f"{PATH}/x/duplicate", {"a": 1})),
    "an import with another media type": (
        415,
        lambda user: user.post(f"{PATH}/import", "{}", content_type="text/csv"),
    ),
    "an import that is too large": (
        413,
        lambda user: user.post(
            f"{PATH}/import", "\n" * 10_001, content_type="application/x-ndjson"
        ),
    ),
}


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize("refusal", REFUSED)
def test_a_refused_creation_does_not_count_as_a_creation(limits, new_user, settings, refusal):
    limits(create=2, all=50)
    status, send = REFUSED[refusal]
    settings.MAX_CONVERSATIONS_PER_USER = 1 if status == 403 else 0
    assert new_user.post(PATH, NewConversation()).status_code == 201

    refused = [send(new_user) for _ in range(5)]
    assert [response.status_code for response in refused] == [status] * 5
    assert {response.headers["X-RateLimit-Remaining"] for response in refused} == {"1"}
    assert {response.headers["X-RateLimit-Limit"] for response in refused} == {"2"}
    assert {response.headers["RateLimit-Policy"] for response in refused} == {
        '"create";q=2;w=60, "all";q=50;w=60'
    }
    settings.MAX_CONVERSATIONS_PER_USER = 0

    assert new_user.post(PATH, NewConversation()).status_code == 201
    assert send(new_user).status_code == 429


@pytest.mark.usefixtures("counted")
def test_refused_creations_count_in_the_total(limits, new_user):
    limits(create=2, all=5)

    refused = [new_user.post(PATH, {}) for _ in range(5)]

    assert [response.headers["RateLimit"][:9] for response in refused] == [
        *['"create";'] * 2,
        *['"all";r=2', '"all";r=1', '"all";r=0'],
    ]
    assert new_user.post(PATH, NewConversation()).json()["error"]["details"]["policy"] == "all"


@pytest.mark.usefixtures("counted")
def test_only_the_total_counts_a_refused_creation_without_a_create_limit(limits, new_user):
    limits(all=2)

    assert [new_user.post(PATH, {}).status_code for _ in range(3)] == [400, 400, 429]


@pytest.mark.usefixtures("counted")
def test_concurrent_refused_creations_remove_only_their_own_counts(limits):
    limits(create=10, all=100)
    user = f"u-{uuid4().hex}"

    responses = concurrently(
        user, 10, lambda client, index: client.post(PATH, NewConversation() if index % 2 else {})
    )
    later = [client_of(user).post(PATH, NewConversation()).status_code for _ in range(6)]

    assert (responses.count(201), responses.count(400)) == (5, 5)
    assert later == [201] * 5 + [429]


@pytest.mark.usefixtures("counted")
def test_a_replayed_creation_is_counted(limits, new_user):
    limits(create=2, all=9)
    key = {"Idempotency-Key": "k"}

    created = [new_user.post(PATH, {"character_id": "luna"}, headers=key) for _ in range(3)]

    assert [response.status_code for response in created] == [201, 201, 429]


def test_a_refused_creation_does_not_count_when_redis_is_down(limits, port, tmp_path, new_user):
    limits(create=1, all=9)
    with own_valkey(port, tmp_path):
        assert new_user.post(PATH, {}).headers["X-RateLimit-Remaining"] == "1"
    for _ in range(2):  # counted in the process
        assert new_user.post(PATH, {}).headers["X-RateLimit-Remaining"] == "1"
    assert new_user.post(PATH, NewConversation()).status_code == 201
    assert new_user.post(PATH, {}).status_code == 429


@pytest.mark.usefixtures("in_process")
def test_responses_have_rate_limit_headers(limits, new_user):
    limits(list=60, all=100)

    with time_machine.travel(1_800_000_000.25, tick=False) as traveller:
        new_user = client_of(f"u-{uuid4().hex}")
        first = new_user.get(PATH)
        traveller.shift(9.5)
        second = new_user.get(PATH)

    assert rates(first) == {
        "X-RateLimit-Limit": "60",
        "X-RateLimit-Remaining": "59",
        "X-RateLimit-Reset": "1800000061",
        "RateLimit-Policy": '"list";q=60;w=60, "all";q=100;w=60',
        "RateLimit": '"list";r=59;t=60',
    }
    assert rates(second) == rates(first) | {
        "X-RateLimit-Remaining": "58",
        "RateLimit": '"list";r=58;t=51',
    }


def test_rate_limit_headers_follow_the_clock_of_redis(limits, new_user):
    limits(list=60, all=100)

    before = time.time()
    headers = rates(new_user.get(PATH))

    assert before + 60 <= int(headers.pop("X-RateLimit-Reset")) <= time.time() + 61
    assert headers == {
        "X-RateLimit-Limit": "60",
        "X-RateLimit-Remaining": "59",
        "RateLimit-Policy": '"list";q=60;w=60, "all";q=100;w=60',
        "RateLimit": '"list";r=59;t=60',
    }


@pytest.mark.usefixtures("counted")
def test_headers_show_the_policy_with_the_fewest_requests_left(limits, new_user):
    limits(list=3, all=4)

    found = [new_user.get(path).headers["RateLimit"] for path in (SUMMARY, SUMMARY, PATH, PATH)]

    assert [re.sub(";t=.*", "", field) for field in found] == [
        '"all";r=3',
        '"all";r=2',
        '"all";r=1',
        '"all";r=0',
    ]


@pytest.mark.usefixtures("counted")
def test_a_429_names_the_limit_and_the_wait(limits, new_user):
    limits(list=1, all=5)
    new_user.get(PATH)

    response = new_user.get(PATH, headers={"Accept-Language": "es"})

    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (429, "RATE_LIMIT_EXCEEDED")
    assert error["type"] == "RateLimitError"
    assert error["message"] == "Demasiadas peticiones en poco tiempo"
    wait = int(response.headers["Retry-After"])
    assert error["details"] == {
        "policy": "list",
        "limit": 1,
        "window_s": WINDOW_S,
        "retry_after_s": wait,
    }
    assert WINDOW_S - 5 < wait <= WINDOW_S
    assert rates(response)["RateLimit"] == f'"list";r=0;t={wait}'
    assert rates(response).keys() == RATE_HEADERS


@pytest.mark.usefixtures("counted")
def test_a_client_that_waits_retry_after_is_served(limits, settings, new_user):
    settings.RATE_LIMIT_WINDOW_S = 1
    limits(list=2, all=9)

    responses = (new_user.get(PATH) for _ in range(100))
    refused = next(response for response in responses if response.status_code == 429)
    assert refused.headers["Retry-After"] == "1"
    time.sleep(1)
    assert statuses(new_user, PATH, 2) == [200, 200]


@pytest.mark.usefixtures("in_process")
def test_no_window_has_more_requests_than_the_limit(limits):
    limits(list=3)
    with time_machine.travel(1_800_000_000, tick=False) as traveller:
        new_user = client_of(f"u-{uuid4().hex}")
        assert statuses(new_user, PATH, 1) == [200]
        traveller.shift(59)
        assert statuses(new_user, PATH, 3) == [200, 200, 429]
        traveller.shift(1)
        assert statuses(new_user, PATH, 2) == [200, 429]
        refused = new_user.get(PATH)
        assert refused.headers["Retry-After"] == "59"
        traveller.shift(58)
        assert statuses(new_user, PATH, 1) == [429]
        traveller.shift(1)
        assert statuses(new_user, PATH, 3) == [200, 200, 429]


def test_no_window_has_more_requests_than_the_limit_with_redis(limits, settings):
    settings.RATE_LIMIT_WINDOW_S = 3_600
    limits(list=2)
    user = f"u-{uuid4().hex}"
    key = f"ratelimit:{{{user}}}:list"
    with Redis.from_url(settings.REDIS_URL) as server:
        now_s, _ = server.time()
        server.rpush(key, (now_s - 3_000) * 1_000_000)
        assert statuses(client_of(user), PATH, 2) == [200, 429]
        server.lset(key, 0, (now_s - 3_600) * 1_000_000)
        assert statuses(client_of(user), PATH, 2) == [200, 429]


@pytest.mark.usefixtures("in_process")
def test_a_clock_that_is_set_back_blocks_no_user(limits):
    limits(list=1)
    new_user = client_of(f"u-{uuid4().hex}")

    with time_machine.travel(time.time() + 600, tick=False):
        assert statuses(new_user, PATH, 2) == [200, 429]
    assert statuses(new_user, PATH, 2) == [200, 429]


def test_a_redis_clock_that_is_set_back_blocks_no_user(limits, settings):
    limits(list=1)
    user = f"u-{uuid4().hex}"
    with Redis.from_url(settings.REDIS_URL) as server:
        server.rpush(f"ratelimit:{{{user}}}:list", int((time.time() + 600) * 1_000_000))

    assert statuses(client_of(user), PATH, 2) == [200, 429]


def test_keys_in_redis_expire(limits, settings):
    limits(list=2, all=9)
    user = f"u-{uuid4().hex}"
    client_of(user).get(PATH)

    with Redis.from_url(settings.REDIS_URL) as server:
        keys = sorted(server.scan_iter(f"*{user}*"))
        lifetimes = [server.pttl(key) for key in keys]

    assert keys == [f"ratelimit:{{{user}}}:{name}".encode() for name in ("all", "list")]
    assert all(0 < lifetime <= WINDOW_S * 1000 for lifetime in lifetimes)


@pytest.mark.usefixtures("in_process")
def test_a_process_evicts_the_least_recently_seen_users(limits, monkeypatch):
    monkeypatch.setattr(ratelimit, "MAX_KEYS", 2)
    limits(all=1)
    first, second, third = (client_of(f"u-{uuid4().hex}") for _ in range(3))

    assert statuses(first, SUMMARY, 2) == [200, 429]
    for other in (second, third):
        assert other.get(SUMMARY).status_code == 200
    assert first.get(SUMMARY).status_code == 200


@pytest.mark.usefixtures("counted")
def test_without_a_limit_there_are_no_headers(settings, limits, new_user):
    limits(all=1)
    settings.RATE_LIMIT_ENABLED = False

    responses = [new_user.get(PATH) for _ in range(3)]

    assert [response.status_code for response in responses] == [200] * 3
    assert rates(responses[-1]) == {}


def test_a_limit_of_zero_disables_it(limits, new_user):
    limits(list=0, all=0)

    assert rates(new_user.get(PATH)) == {}


def test_requests_without_a_user_have_no_limit(limits, client):
    limits(all=1)
    credential = token(sub="messages", token_type="service", scope="conversations:authorize")
    service = APIClient(headers={"Authorization": f"Bearer {credential}"})

    for free in ("/health/live", "/api/docs", "/admin/login/"):
        responses = [client.get(free) for _ in range(2)]
        assert [response.status_code for response in responses] == [200] * 2
        assert rates(responses[-1]) == {}
    body = {"user_id": "u-1", "ids": ["0" * 24]}
    responses = [service.post("/internal/v1/authorize", body) for _ in range(2)]
    assert [response.status_code for response in responses] == [200] * 2
    assert rates(responses[-1]) == {}


@pytest.mark.usefixtures("counted")
def test_the_token_is_checked_before_the_limit_and_the_request_after_it(limits, new_user, client):
    limits(all=1)
    assert new_user.get(SUMMARY).status_code == 200

    assert client.get(PATH).status_code == 401
    assert new_user.get(f"{PATH}/x").status_code == 429
    assert new_user.post(PATH, {"nonsense": 1}).status_code == 429
    assert new_user.put(PATH).status_code == 429


@contextmanager
def own_valkey(port, folder):
    command = [valkey.find(), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    server = process.start(command, output=folder / "valkey.log")
    while not valkey.responds(port):
        time.sleep(0.02)
    try:
        yield server
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def clock(monkeypatch):
    """The clock of the client of Redis: it stands still, and a test can advance it."""
    clock = SimpleNamespace(now_s=0.0)
    monkeypatch.setattr(redis, "monotonic", lambda: clock.now_s)
    return clock


@pytest.fixture
def port(settings):
    port = process.free_port()
    settings.REDIS_URL = f"redis://127.0.0.1:{port}/0"
    return port


def test_the_api_counts_in_the_process_until_redis_is_back(
    limits, port, tmp_path, caplog, clock, new_user
):
    limits(list=3)
    with own_valkey(port, tmp_path):
        assert statuses(new_user, PATH, 4) == [200] * 3 + [429]
    before = metric("redis_unanswered_total")

    assert statuses(new_user, PATH, 3) == [200] * 3
    assert metric("redis_unanswered_total") == before + 3
    assert [r.message for r in caplog.records if r.name == "conversation_service.redis"] == [
        "Redis cannot be used, the service continues without it: ConnectionError"
    ]

    caplog.clear()
    with own_valkey(port, tmp_path):
        clock.now_s += redis.RETRY_S
        assert statuses(new_user, PATH, 4) == [200] * 3 + [429]
        assert metric("redis_unanswered_total") == before + 3
    assert [r.message for r in caplog.records if r.name == "conversation_service.redis"] == [
        "Redis can be used again"
    ]


def test_a_connection_that_redis_has_closed_is_replaced(limits, caplog, settings, new_user):
    limits(list=9)
    new_user.get(PATH)

    Redis.from_url(settings.REDIS_URL).client_kill_filter(_type="normal", skipme=True)

    assert new_user.get(PATH).headers["X-RateLimit-Remaining"] == "7"
    assert "conversation_service.redis" not in {record.name for record in caplog.records}


def test_without_redis_each_process_still_limits(limits, port, new_user):
    limits(list=2)

    assert statuses(new_user, PATH, 3) == [200, 200, 429]


def test_a_redis_that_hangs_delays_one_request_per_second(
    limits, settings, clock, monkeypatch, new_user
):
    monkeypatch.setattr(redis, "TIMEOUT_S", 0.1)
    limits(all=100)
    connections = []

    def hang(channel) -> None:
        connections.append(channel)
        loopback.silence(channel)

    with loopback.serving(hang) as address:
        settings.REDIS_URL = f"redis://{address}/0"
        assert statuses(new_user, SUMMARY, 10) == [200] * 10
        eventually(lambda: len(connections) == 1)

        clock.now_s += redis.RETRY_S
        assert statuses(new_user, SUMMARY, 10) == [200] * 10
        eventually(lambda: len(connections) == 2)
