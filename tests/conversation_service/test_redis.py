"""An unusable address of Redis that is detected only while the service runs."""

import pytest
from django.test import Client

from conversation_service import health
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
    assert "Redis does not reply, the service continues without it" in caplog.text
    assert SECRET_PIECE not in caplog.text
    assert "Traceback" not in caplog.text
