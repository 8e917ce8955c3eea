"""The Message service: what was said in a conversation, in numbers."""

from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from django.conf import settings

from conversation_service.http.authentication import service_token
from conversation_service.upstreams import http

SCOPE = "conversations:stats"


@dataclass(frozen=True)
class Stats:
    message_count: int
    total_tokens: int
    total_input_tokens: int
    total_output_tokens: int
    first_message_at: datetime | None
    last_message_at: datetime | None
    # The number of the latest activity report, if Message tells it.
    sequence: int | None = None


def stats(conversation_id: str) -> Stats | None:
    """Return the numbers of a conversation, or None if Message does not know it.

    Raises http.NoAnswer; Refused, a kind of it, if Message does not let us ask.
    """
    path = settings.MESSAGE_STATS_PATH.format(id=quote(conversation_id, safe=""))
    token = service_token(settings.SERVICE_NAME, SCOPE)
    return http.neighbour("MESSAGE").ask(path, _read, headers={"Authorization": f"Bearer {token}"})


def _read(answer: http.Answer) -> Stats | None:
    match answer.status:
        case HTTPStatus.OK:
            return _checked(answer.json())
        case HTTPStatus.NOT_FOUND:
            return None
    raise http.Refused(f"The status is {answer.status}")


def _checked(body: Any) -> Stats:
    if not isinstance(body, dict):
        raise http.NoAnswer("This is not the statistics of a conversation")
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
    if type(value) is int and 0 <= value < 2**53:  # as an export can be imported; no bool
        return value
    raise http.NoAnswer("A number is missing or wrong")


def _moment(value: Any) -> datetime | None:
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise http.NoAnswer("A time is wrong") from None
    if moment.tzinfo is None:
        raise http.NoAnswer("A time has no offset")
    return moment
