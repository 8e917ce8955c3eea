import time
from contextlib import ExitStack

from django.http import HttpResponseBase

from conversation_service.http import event_stream
from conversation_service.http.authentication import CallerRequest
from conversation_service.http.endpoint import Endpoint
from conversation_service.http.event_stream import EventStreamNegotiation
from conversation_service.http.preconditions import unless_known
from conversations.queries import feed
from conversations.queries import feed_cursor as cursors
from conversations.queries import streaming as live
from conversations.queries.feed_cursor import SNAPSHOT
from conversations.queries.waiters import watch
from conversations.serializers.changes import changes_parameters
from conversations.views.openapi import changes as openapi


class ChangesView(Endpoint):
    content_negotiation_class = EventStreamNegotiation

    @openapi.changes
    def get(self, request: CallerRequest) -> HttpResponseBase:
        parameters = changes_parameters.parse(request)
        if request.accepted_media_type == event_stream.MEDIA_TYPE:
            sent = request.headers.get("Last-Event-ID") or parameters.get("cursor")
            return self._stream(request, sent, parameters["limit"])
        user_id, sent = request.user.id, parameters.get("cursor")
        cursor = cursors.unseal(user_id, sent) if sent else SNAPSHOT
        page = live.page(user_id, cursor, parameters["limit"], wait_s=parameters["wait"])
        body = {
            "changes": page.changes,
            "next_cursor": cursors.seal(user_id, page.next),
            "has_more": page.has_more,
        }
        return unless_known(request, body)

    def _stream(self, request: CallerRequest, sent: str | None, limit: int) -> HttpResponseBase:
        """Respond with events. A failure before the first event has the usual response."""
        user = request.user
        cursor = cursors.unseal(user.id, sent) if sent else SNAPSHOT
        with ExitStack() as on_failure:
            waiter = on_failure.enter_context(watch.waiter(user.id))
            page = feed.page(user.id, cursor, limit)
            place = on_failure.pop_all()
        events = live.events(waiter, page, limit, lasts_s=user.expires_at - time.time())
        return event_stream.response(events, place.close)
