"""Message returns the statistics of a conversation to a service with a token."""

import json
from datetime import UTC, datetime

import pytest
from django.core.exceptions import ImproperlyConfigured

from conversation_service.http.authentication import claims_of
from conversation_service.upstreams import http, messages
from conversation_service.upstreams.messages import Stats
from tests.conversation_service import loopback

CONVERSATION = "507f1f77bcf86cd799439014"
STATS = {
    "message_count": 15,
    "total_tokens": 1250,
    "total_input_tokens": 600,
    "total_output_tokens": 650,
    "first_message_at": "2026-01-15T15:00:00.000Z",
    "last_message_at": None,
}


def says(body) -> loopback.Talk:
    return loopback.respond(json.dumps(body).encode())


def test_statistics_of_a_conversation_are_returned(upstream):
    upstream.talk = says(STATS)

    assert messages.stats(CONVERSATION) == Stats(
        message_count=15,
        total_tokens=1250,
        total_input_tokens=600,
        total_output_tokens=650,
        first_message_at=datetime(2026, 1, 15, 15, tzinfo=UTC),
        last_message_at=None,
    )
    assert f"/api/v1/conversations/{CONVERSATION}/stats HTTP" in upstream.received[0]


def test_requests_to_message_name_the_calling_service(upstream):
    upstream.talk = says(STATS)

    messages.stats(CONVERSATION)

    _, _, token = upstream.received[0].partition("Authorization: Bearer ")
    claims = claims_of(token.split("\r\n")[0])
    assert (claims["sub"], claims["token_type"]) == ("conversation-service", "service")


def test_an_unknown_conversation_is_none(upstream):
    upstream.talk = loopback.respond(status="404 Not Found")

    assert messages.stats(CONVERSATION) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"message_count": -1},
        {"message_count": True},
        {"message_count": 2**53},
        {"sequence": -1},
        {"sequence": "7"},
        {"total_tokens": "7"},
        {"total_input_tokens": 1.5},
        {"total_output_tokens": None},
        {"first_message_at": "2026-01-15T15:00:00"},
        {"last_message_at": "yesterday"},
        {"last_message_at": 1768489200},
    ],
)
def test_an_invalid_response_has_no_statistics(upstream, changed):
    upstream.talk = says(STATS | changed)

    with pytest.raises(http.UpstreamError):
        messages.stats(CONVERSATION)


def test_whole_floats_are_integers(upstream):
    whole = {name: float(value) for name, value in STATS.items() if isinstance(value, int)}
    upstream.talk = says(STATS)
    expected = messages.stats(CONVERSATION)
    upstream.talk = says(STATS | whole)

    assert messages.stats(CONVERSATION) == expected


def test_a_list_has_no_statistics(upstream):
    upstream.talk = says([STATS])

    with pytest.raises(http.UpstreamError):
        messages.stats(CONVERSATION)


def test_a_rejected_request_is_an_upstream_error(upstream):
    upstream.talk = loopback.respond(status="403 Forbidden")

    with pytest.raises(http.UpstreamRejection):
        messages.stats(CONVERSATION)


def test_without_a_secret_there_is_no_service_token(upstream, settings):
    settings.JWT_ALGORITHM = ["RS256"]

    with pytest.raises(ImproperlyConfigured, match="Only the issuer has the private key"):
        messages.stats(CONVERSATION)
