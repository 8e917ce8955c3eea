"""Characters are looked up once, cached for all processes, and validated."""

import json
import time
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from urllib.parse import quote

import pytest
from redis import Redis

from conversation_service import redis
from conversation_service.development.valkey import valkey
from conversation_service.observability import context
from conversation_service.upstreams import characters, response_cache
from conversation_service.upstreams.characters import Character, CharacterServiceUnavailable
from conversation_service.upstreams.response_cache import ResponseCache
from tests.config.processes import eventually
from tests.conversation_service import loopback
from tests.conversation_service.upstreams.conftest import (
    BUDGET_S,
    SHORT_BUDGET_S,
    THRESHOLD,
    let_recovery_time_pass,
)
from tests.conversation_service.upstreams.misbehaviour import ENDLESS, WAYS

LUNA = {"id": "luna", "name": "Luna", "description": "Dreams aloud."}


@pytest.fixture(autouse=True)
def _own_redis(monkeypatch):
    """Reset the state of the Redis connection of another test."""
    monkeypatch.setattr(redis, "_server", redis.Server(""))


def as_another_process(monkeypatch) -> None:
    monkeypatch.setattr(characters, "_cache", ResponseCache("characters"))


def knows(*entries, status: str = "200 OK") -> loopback.Talk:
    (body,) = entries
    return loopback.respond(json.dumps(body).encode(), status=status)


def test_a_character_is_found(upstream):
    upstream.talk = knows(LUNA)

    assert characters.get("luna") == Character("luna", "Luna", "Dreams aloud.")
    assert "/api/v1/characters/luna HTTP" in upstream.received[0]


@pytest.mark.parametrize("status", ["404 Not Found", "422 Unprocessable Entity"])
def test_an_unknown_character_is_none(upstream, status):
    upstream.talk = loopback.respond(status=status)

    assert characters.get("unknown") is None


def test_an_id_stays_one_segment_of_the_path(upstream):
    upstream.talk = knows(LUNA | {"id": "a:b@c.d-e_f"})

    assert characters.get("a:b@c.d-e_f").name == "Luna"
    assert "/api/v1/characters/a%3Ab%40c.d-e_f HTTP" in upstream.received[0]


@pytest.mark.parametrize("character_id", [".", ".."])
def test_dots_in_an_id_do_not_change_the_address(upstream, character_id):
    assert characters.get(character_id) is None
    assert upstream.received == []


@pytest.mark.parametrize("name", [".", "..", "a&b=c", "50%+1#x"])
def test_every_name_can_be_sent_in_a_query_string(upstream, settings, name):
    settings.CHARACTER_PATH = BY_NAME
    upstream.talk = knows([RECORD | {"name": name}])

    assert characters.get(name).name == name
    assert f"/v2/characters?name={quote(name, safe='')} HTTP" in upstream.received[0]


@pytest.mark.parametrize(
    "body",
    [
        LUNA | {"id": "sol"},
        LUNA | {"id": 7},
        LUNA | {"name": ""},
        LUNA | {"name": None},
        LUNA | {"description": ["x"]},
        {"id": "luna"},
        {"data": LUNA},
        [LUNA, "x"][1:],
        "luna",
        None,
        True,
    ],
)
def test_an_invalid_response_is_no_character(upstream, body):
    upstream.talk = knows(body)

    with pytest.raises(CharacterServiceUnavailable):
        characters.get("luna")


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden", "410 Gone"])
def test_another_4xx_is_unavailable(upstream, status):
    upstream.talk = loopback.respond(status=status)

    with pytest.raises(CharacterServiceUnavailable):
        characters.get("luna")


def test_an_unavailable_upstream_has_a_retry_after(upstream, settings):
    settings.CHARACTERS_BREAKER_RECOVERY_S = 7.5
    upstream.talk = WAYS["has a bug"]

    for _ in range(THRESHOLD + 1):
        with pytest.raises(CharacterServiceUnavailable) as caught:
            characters.get("luna")

    assert (caught.value.status, caught.value.code) == (503, "CHARACTER_SERVICE_UNAVAILABLE")
    assert caught.value.headers == {"Retry-After": "8"}


BY_NAME = "/v2/characters?name={name}"
RECORD = {"id": "507f1f77bcf86cd799439014", "name": "Luna", "description": ""}


@pytest.mark.parametrize("body", [RECORD, [RECORD], [RECORD | {"name": "Sol"}, RECORD]])
def test_a_character_can_be_looked_up_by_name(upstream, settings, body):
    settings.CHARACTER_PATH = BY_NAME
    upstream.talk = knows(body)

    assert characters.get("Luna") == Character("Luna", "Luna", "")
    assert "/v2/characters?name=Luna HTTP" in upstream.received[0]


@pytest.mark.parametrize("body", [[], [RECORD | {"name": "luna"}]])
def test_a_list_without_the_name_is_no_character(upstream, settings, body):
    settings.CHARACTER_PATH = BY_NAME
    upstream.talk = knows(body)

    assert characters.get("Luna") is None


@pytest.mark.parametrize(
    ("talk", "fresh_s"), [(knows(LUNA), 300), (knows(None, status="404 Not Found"), 30)]
)
def test_responses_are_cached_for_a_time(upstream, clock, talk, fresh_s):
    upstream.talk = talk
    first = characters.get("luna")

    clock.ahead_s = fresh_s - 2
    assert characters.get("luna") == first
    assert len(upstream.received) == 1

    clock.ahead_s = fresh_s + 1
    assert characters.get("luna") == first
    assert len(upstream.received) == 2


def test_all_processes_share_cached_responses(upstream, monkeypatch):
    upstream.talk = knows(LUNA)
    characters.get("luna")

    as_another_process(monkeypatch)

    assert characters.get("luna").name == "Luna"
    assert len(upstream.received) == 1


def test_concurrent_cache_misses_send_one_request(upstream):
    def slowly(channel) -> None:
        time.sleep(0.1)
        knows(LUNA)(channel)

    upstream.talk = slowly

    with ThreadPoolExecutor(64) as pool:
        found = list(pool.map(lambda _: characters.get("luna"), range(64)))

    assert {character.name for character in found} == {"Luna"}
    assert len(upstream.received) == 1


def test_concurrent_cache_misses_share_one_failure(upstream, monkeypatch):
    waiting = []

    class Recorded(Future):
        def result(self, timeout=None):
            waiting.append(self)
            return super().result(timeout)

    monkeypatch.setattr(response_cache, "Future", Recorded)

    def fail_last(channel) -> None:
        eventually(lambda: len(waiting) == 63)
        WAYS["has a bug"](channel)

    upstream.talk = fail_last

    def outcome(_) -> str:
        with pytest.raises(CharacterServiceUnavailable) as caught:
            characters.get("luna")
        return caught.value.code

    with ThreadPoolExecutor(64) as pool:
        outcomes = set(pool.map(outcome, range(64)))

    assert outcomes == {"CHARACTER_SERVICE_UNAVAILABLE"}
    assert len(upstream.received) == 1


def test_a_request_that_waits_for_another_keeps_its_own_budget(upstream):
    other_ended = Event()

    def respond_last(channel) -> None:
        other_ended.wait(BUDGET_S)
        knows(LUNA)(channel)

    upstream.talk = respond_last

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(characters.get, "luna")
        eventually(lambda: upstream.received)
        context.upstream_deadline.set(time.monotonic() + SHORT_BUDGET_S)
        try:
            with pytest.raises(CharacterServiceUnavailable):
                characters.get("luna")
            assert not waiting.done()
        finally:
            context.upstream_deadline.set(None)
            other_ended.set()
        assert waiting.result().name == "Luna"
    assert len(upstream.received) == 1


@pytest.mark.parametrize("way", ["has a bug", "hangs", "is no JSON"])
def test_a_stale_response_is_used_while_the_upstream_fails(
    upstream, settings, clock, monkeypatch, way
):
    upstream.talk = knows(LUNA)
    characters.get("luna")
    clock.ahead_s = 3_500
    upstream.talk = WAYS[way]
    settings.NEIGHBOUR_BUDGET_S = SHORT_BUDGET_S if way in ENDLESS else BUDGET_S

    for _ in range(THRESHOLD + 1):  # the last time with an open circuit breaker
        assert characters.get("luna").name == "Luna"

    assert len(upstream.received) <= 1 + THRESHOLD
    settings.NEIGHBOUR_BUDGET_S = BUDGET_S
    upstream.talk = knows(LUNA | {"name": "Luna II"})
    let_recovery_time_pass(monkeypatch)
    assert characters.get("luna").name == "Luna II"


def test_a_cached_response_expires_in_redis(upstream, settings):
    upstream.talk = knows(LUNA)
    characters.get("luna")

    with Redis.from_url(settings.REDIS_URL) as server:
        (key,) = server.keys(f"characters:*{settings.CHARACTERS_SERVICE_URL}*")
        assert 3_590 < server.ttl(key) <= 3_600


def test_without_redis_each_process_has_its_own_cache(upstream, settings, monkeypatch):
    settings.REDIS_URL = ""
    upstream.talk = knows(LUNA)

    characters.get("luna")
    characters.get("luna")
    assert len(upstream.received) == 1

    as_another_process(monkeypatch)
    characters.get("luna")
    assert len(upstream.received) == 2


def test_the_cache_of_a_process_is_bounded(upstream, settings, monkeypatch):
    monkeypatch.setattr(response_cache, "MAX_ENTRIES", 3)
    as_another_process(monkeypatch)
    settings.REDIS_URL = ""
    upstream.talk = loopback.respond(status="404 Not Found")

    for number in range(4):
        characters.get(f"unknown-{number}")
    assert len(upstream.received) == 4
    characters.get("unknown-3")
    assert len(upstream.received) == 4
    characters.get("unknown-0")
    assert len(upstream.received) == 5


def test_lookups_succeed_when_redis_stops(upstream, settings, tmp_path):
    upstream.talk = knows(LUNA)
    with valkey(tmp_path / "valkey") as settings.REDIS_URL:
        assert characters.get("luna").name == "Luna"

    assert characters.get("luna").name == "Luna"
    upstream.talk = knows(LUNA | {"id": "sol", "name": "Sol"})
    assert characters.get("sol").name == "Sol"

    assert len(upstream.received) == 2


def test_a_redis_that_hangs_is_not_used(upstream, settings, monkeypatch):
    monkeypatch.setattr(redis, "TIMEOUT_S", 0.1)
    monkeypatch.setattr(redis, "monotonic", lambda: 0.0)
    upstream.talk = knows(LUNA)
    connections = []

    def hang(channel) -> None:
        connections.append(channel)
        loopback.silence(channel)

    with loopback.serving(hang) as address:
        settings.REDIS_URL = f"redis://{address}/0"

        assert [characters.get("luna").name for _ in range(20)] == ["Luna"] * 20

    assert len(connections) <= 1
    assert len(upstream.received) == 1
