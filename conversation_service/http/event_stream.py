"""Server-sent events (HTML standard, section 9.2): a response that stays open."""

from collections.abc import Callable, Generator, Iterator
from typing import Any

from django.http import StreamingHttpResponse
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

from conversation_service.http.rendering import JSONNegotiation, dumps, names

MEDIA_TYPE = "text/event-stream"
HEARTBEAT = b": heartbeat\n\n"


class EventStreamNegotiation(JSONNegotiation):
    """Selects JSON, or an event stream if Accept names its media type; `*/*` is not enough."""

    acceptable = JSONNegotiation.acceptable | {MEDIA_TYPE}

    def select_renderer(
        self, request: Request, renderers: Any, format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        if names(request.META.get("HTTP_ACCEPT", ""), frozenset({MEDIA_TYPE})):
            return renderers[0], MEDIA_TYPE
        return super().select_renderer(request, renderers, format_suffix)


def event(name: str, data: Any, *, id_: str) -> bytes:
    """Return an event. The JSON has no line breaks, so the data are a single line."""
    return b"event: %b\ndata: %b\nid: %b\n\n" % (name.encode(), dumps(data), id_.encode())


def retry(seconds: float) -> bytes:
    """Return the event that sets a client's delay before reconnecting."""
    return b"retry: %d\n\n" % (seconds * 1000)


def response(
    events: Generator[bytes], on_close: Callable[[], None], **headers: str
) -> StreamingHttpResponse:
    """Return a response that sends each event at once; `on_close` is always called at its end."""
    return StreamingHttpResponse(
        _Closing(events, on_close),
        content_type=MEDIA_TYPE,
        # Without X-Accel-Buffering, nginx collects events before sending them.
        headers={"Cache-Control": "private, no-store", "X-Accel-Buffering": "no", **headers},
    )


class _Closing(Iterator[bytes]):
    """Calls `on_close` even if the generator never started; its own `finally` would not run."""

    def __init__(self, events: Generator[bytes], on_close: Callable[[], None]) -> None:
        self._events = events
        self._on_close = on_close

    def __next__(self) -> bytes:
        return next(self._events)

    def close(self) -> None:
        self._events.close()
        self._on_close()
