"""The client of Message, which counts messages and tokens per conversation."""

from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from django.conf import settings

from config.upstreams import UPSTREAMS
from conversation_service import rfc3339
from conversation_service.numbers import MAX_EXACT, read_integer
from conversation_service.tokens import service_token
from conversation_service.upstreams import http

SCOPE = "conversations:stats"

_UPSTREAM = UPSTREAMS["message"]


@dataclass(frozen=True)
class Stats:
    message_count: int
    total_tokens: int
    total_input_tokens: int
    total_output_tokens: int
    first_message_at: datetime | None
    last_message_at: datetime | None
    # Of the latest activity report, if the response has it.
    sequence: int | None = None


def stats(conversation_id: str) -> Stats | None:
    """Return a conversation's totals, or None if Message does not know the conversation.

    Raises http.UpstreamError; UpstreamRejection, a subclass, if Message rejects our token.
    """
    path = settings.MESSAGE_STATS_PATH.format(id=quote(conversation_id, safe=""))
    token = service_token(settings.SERVICE_NAME, SCOPE)
    headers = {"Authorization": f"Bearer {token}"}
    return http.client(_UPSTREAM.name).get(path, _read, headers=headers)


def _read(response: http.UpstreamResponse) -> Stats | None:
    if response.status == HTTPStatus.NOT_FOUND:
        return None
    if response.status != HTTPStatus.OK:
        raise http.UpstreamRejection(f"The status is {response.status}")
    body = response.json()
    if not isinstance(body, dict):
        raise http.UpstreamError("The response is not the totals of a conversation")
    return Stats(
        message_count=_number(body.get("message_count")),
        total_tokens=_number(body.get("total_tokens")),
        total_input_tokens=_number(body.get("total_input_tokens")),
        total_output_tokens=_number(body.get("total_output_tokens")),
        first_message_at=_moment(body.get("first_message_at")),
        last_message_at=_moment(body.get("last_message_at")),
        sequence=None if body.get("sequence") is None else _number(body["sequence"]),
    )


def _number(value: Any) -> int:
    number = read_integer(value)
    if number is not None and 0 <= number <= MAX_EXACT:  # as in an activity report
        return number
    raise http.UpstreamError("A number is missing or invalid")


def _moment(value: Any) -> datetime | None:
    if value is None:
        return None
    try:
        return rfc3339.parse(value)
    except (TypeError, ValueError):
        raise http.UpstreamError("A time is invalid, or has no offset") from None
