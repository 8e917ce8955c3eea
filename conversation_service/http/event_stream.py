"""Server-sent events, as the HTML standard has them: an answer that does not end by itself."""

from collections.abc import Callable, Generator, Iterator
from typing import Any

from django.http import StreamingHttpResponse
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

from conversation_service.http.rendering import JSONNegotiation, dumps, names

MEDIA_TYPE = "text/event-stream"
HEARTBEAT = b": heartbeat\n\n"


class EventStreamNegotiation(JSONNegotiation):
    """JSON, or a stream for those who name it: `*/*` is nobody who expects one."""

    def select_renderer(
        self, request: Request, renderers: Any, format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        if names(request.META.get("HTTP_ACCEPT", ""), frozenset({MEDIA_TYPE})):
            return renderers[0], MEDIA_TYPE
        return super().select_renderer(request, renderers, format_suffix)


def event(name: str, data: Any, *, id_: str) -> bytes:
    """Return an event. JSON has no line breaks, so it is one line of data."""
    return b"event: %b\ndata: %b\nid: %b\n\n" % (name.encode(), dumps(data), id_.encode())


def retry(seconds: float) -> bytes:
    """Return what tells a client how long to wait before it connects again."""
    return b"retry: %d\n\n" % (seconds * 1000)


def response(
    events: Generator[bytes], on_close: Callable[[], None], **headers: str
) -> StreamingHttpResponse:
    """Return an answer that is sent event by event; `on_close` is called however it ends."""
    return StreamingHttpResponse(
        _Closing(events, on_close),
        content_type=MEDIA_TYPE,
        # nginx would collect events before it passes them on.
        headers={"Cache-Control": "private, no-store", "X-Accel-Buffering": "no", **headers},
    )


class _Closing(Iterator[bytes]):
    """A generator that was never begun does nothing when it is closed; this does."""

    def __init__(self, events: Generator[bytes], on_close: Callable[[], None]) -> None:
        self._events = events
        self._on_close = on_close

    def __next__(self) -> bytes:
        return next(self._events)

    def close(self) -> None:
        self._events.close()
        self._on_close()
