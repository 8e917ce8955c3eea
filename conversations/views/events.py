from django.http import HttpResponse

from conversation_service.http.authentication import CallerRequest, ServiceAuthentication
from conversation_service.http.endpoint import Endpoint
from conversation_service.http.permissions import HasScope
from conversation_service.http.rendering import JSONResponse
from conversations.events import feed, log
from conversations.events.serializers import events_parameters
from conversations.views.openapi import events as openapi


class EventsView(Endpoint):
    authentication_classes = [ServiceAuthentication]
    permission_classes = [HasScope("events:read")]
    mongodb_s = None  # a long poll reads again after its wait

    @openapi.events
    def get(self, request: CallerRequest) -> HttpResponse:
        parameters = events_parameters.parse(request)
        cursor, types = parameters.get("cursor"), parameters.get("types")
        limit = parameters["limit"]
        page = feed.read_page(feed.decode(cursor) if cursor else None, types, limit)
        if not page.events and (wait_s := parameters["wait"]):
            page = feed.wait_for_page(request.user.id, page, types, limit, wait_s=wait_s)
        return JSONResponse(
            {
                "data": [log.payload(event) for event in page.events],
                "next_cursor": feed.encode(page.next),
                "has_more": page.has_more,
            }
        )
