"""An unusable address of Redis that is detected only while the service runs."""

import socket
from queue import Queue
from threading import Event

import pytest
from django.test import Client
from redis import Redis

from config.env import env
from conversation_service import health, redis
from tests.conversation_service import loopback
from tests.factories import PATH, NewConversation

SECRET_PIECE = "Zm9vYmFy"


@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{SECRET_PIECE}/c2VjcmV0@127.0.0.1:6379/0",
        f"redis://:{SECRET_PIECE}[@127.0.0.1:6379/0",
        f"sentinel://:{SECRET_PIECE}@127.0.0.1:6379/0",
        f"redis://:{SECRET_PIECE}@127.0.0.1:6379/0?no_such_option=1",
        f"redis://:{SECRET_PIECE}@127.0.0.1:6379/0?db=x",
        f"redis://:{SECRET_PIECE}@{'a' * 64}:6379/0",
        f"redis://:{SECRET_PIECE}@127.0.0.1:70000/0",
    ],
)
def test_the_api_works_without_redis_and_logs_no_part_of_its_address(
    alice, settings, caplog, monkeypatch, url
):
    monkeypatch.setattr(health, "_reports", health._Reports())  # no report of another test
    settings.RATE_LIMIT_ENABLED = True
    settings.CHARACTER_CHECK = "lenient"
    settings.REDIS_URL = url

    assert alice.post(PATH, NewConversation()).status_code == 201
    assert alice.get(PATH).status_code == 200
    report = Client().get("/health").json()

    assert report["dependencies"]["redis"]["status"] == "unhealthy"
    assert "Redis cannot be used, the service continues without it" in caplog.text
    assert SECRET_PIECE not in caplog.text
    assert "Traceback" not in caplog.text


def test_the_api_works_while_the_name_of_redis_does_not_resolve(alice, settings, monkeypatch):
    released, received = Event(), Queue()
    resolve = socket.getaddrinfo

    def hang(host, *arguments, **options):
        if host == "hanging.test":
            assert released.wait(60)
            host = "127.0.0.1"
        return resolve(host, *arguments, **options)

    monkeypatch.setattr(redis, "TIMEOUT_S", 0.1)
    monkeypatch.setattr(socket, "getaddrinfo", hang)
    settings.RATE_LIMIT_ENABLED = True
    with loopback.serving(lambda channel: received.put(channel.recv(100))) as address:
        settings.REDIS_URL = f"redis://{address.replace('127.0.0.1', 'hanging.test')}/0"

        assert alice.get(PATH).status_code == 200
        assert redis._server._is_down
        released.set()

        received.get(timeout=60)  # the late connection is closed


@pytest.mark.parametrize(
    ("change", "undo", "reason"),
    [
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", "read only replica"),
        ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", "'maxmemory'"),
        ("ACL SETUSER default -evalsha", "ACL SETUSER default +@all", "no permissions"),
    ],
    ids=["read-only", "full", "permission"],
)
def test_a_redis_that_replies_and_cannot_count_is_unhealthy(change, undo, reason):
    redis_only = {"redis": health.dependencies()["redis"]}
    with Redis.from_url(env("REDIS_URL")) as server:
        policy = server.config_get("maxmemory-policy")["maxmemory-policy"]
        server.config_set("maxmemory-policy", "noeviction")
        try:
            server.execute_command(*change.split())
            found = health.run_probes(redis_only, within_s=60)["redis"]
        finally:
            server.execute_command(*undo.split())
            server.config_set("maxmemory-policy", policy)

    assert found.status == "unhealthy"
    assert reason in found.reason
    assert health.run_probes(redis_only, within_s=60)["redis"].status == "healthy"
