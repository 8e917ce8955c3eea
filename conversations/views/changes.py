import time
from contextlib import ExitStack

from django.http import HttpResponseBase

from conversation_service.http import event_stream
from conversation_service.http.authentication import Caller, CallerRequest
from conversation_service.http.endpoint import Endpoint
from conversation_service.http.event_stream import EventStreamNegotiation
from conversation_service.http.rendering import json_or_304
from conversations.queries import feed_cursor, streaming
from conversations.queries.feed import read_page
from conversations.queries.feed_cursor import SNAPSHOT, FeedCursor
from conversations.queries.waiters import waiters
from conversations.serializers.changes import changes_parameters
from conversations.views.openapi import changes as openapi


class ChangesView(Endpoint):
    mongodb_s = None  # a long poll reads again after its wait
    content_negotiation_class = EventStreamNegotiation

    @openapi.changes
    def get(self, request: CallerRequest) -> HttpResponseBase:
        parameters = changes_parameters.parse(request)
        user, limit, sent = request.user, parameters["limit"], parameters.get("cursor")
        is_stream = request.accepted_media_type == event_stream.MEDIA_TYPE
        if is_stream:
            sent = request.headers.get("Last-Event-ID") or sent
        cursor = feed_cursor.decode(user.id, sent) if sent else SNAPSHOT
        if is_stream:
            return stream_response(user, cursor, limit)
        page = read_page(user.id, cursor, limit)
        if not page.rows and (wait_s := parameters["wait"]):
            page = streaming.wait_for_page(user.id, cursor, page, limit, wait_s=wait_s)
        next_cursor = feed_cursor.encode(user.id, page.next)
        body = {"changes": page.changes, "next_cursor": next_cursor, "has_more": page.has_more}
        return json_or_304(request, body)


def stream_response(user: Caller, cursor: FeedCursor, limit: int) -> HttpResponseBase:
    """Respond with events. A failure before the first event has an ordinary error response."""
    with ExitStack() as on_failure:
        waiter = on_failure.enter_context(waiters.register(user.id))
        page = read_page(user.id, cursor, limit)
        registration = on_failure.pop_all()
    events = streaming.events(waiter, page, limit, lasts_s=user.expires_at - time.time())
    return event_stream.response(events, registration.close)
