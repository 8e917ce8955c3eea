"""The endpoints with which services manage webhooks."""

from http import HTTPStatus
from typing import Any

from django.http import HttpResponse

from conversation_service.http.actor import Actor
from conversation_service.http.authentication import CallerRequest, ServiceAuthentication
from conversation_service.http.endpoint import Endpoint
from conversation_service.http.permissions import HasScope
from conversation_service.http.rendering import JSONResponse
from conversations.serializers.conversations import no_fields, no_parameters
from conversations.views.openapi import webhooks as openapi
from conversations.webhooks import deliveries, endpoints
from conversations.webhooks.endpoints import resource
from conversations.webhooks.serializers import (
    deliveries_parameters,
    enable_input,
    endpoint_changes_input,
    endpoint_input,
    rotation_input,
)


def response(body: dict[str, Any], **options: Any) -> HttpResponse:
    headers = {"Cache-Control": "private, no-store", **options.pop("headers", {})}
    return JSONResponse(body, headers=headers, **options)


class WebhookEndpoint(Endpoint):
    authentication_classes = [ServiceAuthentication]
    permission_classes = [HasScope("webhooks:manage")]


class WebhooksView(WebhookEndpoint):
    @openapi.list_
    def get(self, request: CallerRequest) -> HttpResponse:
        no_parameters.parse(request)
        return response({"webhooks": endpoints.list_resources()})

    @openapi.create
    def post(self, request: CallerRequest) -> HttpResponse:
        no_parameters.parse(request)
        values = endpoint_input.run_validation(request.data)
        endpoint, secret = endpoints.create(values, created_by=_actor(request))
        return response(
            {**resource(endpoint), "secret": secret},
            status=HTTPStatus.CREATED,
            headers={"Location": f"{request.path}/{endpoint['_id']}"},
        )


class WebhookView(WebhookEndpoint):
    @openapi.read
    def get(self, request: CallerRequest, id: str) -> HttpResponse:
        no_parameters.parse(request)
        return response(resource(endpoints.get(id)))

    @openapi.change
    def patch(self, request: CallerRequest, id: str) -> HttpResponse:
        no_parameters.parse(request)
        values = endpoint_changes_input.run_validation(request.data)
        return response(resource(endpoints.change(id, values)))

    @openapi.delete
    def delete(self, request: CallerRequest, id: str) -> HttpResponse:
        no_parameters.parse(request)
        no_fields.run_validation(request.data)
        deliveries.delete_endpoint(id)
        return HttpResponse(status=HTTPStatus.NO_CONTENT)


class WebhookSecretView(WebhookEndpoint):
    @openapi.rotate
    def post(self, request: CallerRequest, id: str) -> HttpResponse:
        no_parameters.parse(request)
        sent = rotation_input.run_validation(request.data)
        endpoint, secret = endpoints.rotate_secret(id, sent.get("secret"))
        return response({**resource(endpoint), "secret": secret})


class WebhookEnableView(WebhookEndpoint):
    @openapi.enable
    def post(self, request: CallerRequest, id: str) -> HttpResponse:
        no_parameters.parse(request)
        sent = enable_input.run_validation(request.data)
        return response(resource(deliveries.enable(id, from_now=sent["from"] == "now")))


class WebhookDisableView(WebhookEndpoint):
    @openapi.disable
    def post(self, request: CallerRequest, id: str) -> HttpResponse:
        no_parameters.parse(request)
        no_fields.run_validation(request.data)
        return response(resource(endpoints.disable(id, endpoints.STAFF, by=_actor(request))))


class WebhookTestView(WebhookEndpoint):
    @openapi.test
    def post(self, request: CallerRequest, id: str) -> HttpResponse:
        no_parameters.parse(request)
        no_fields.run_validation(request.data)
        event_id = deliveries.send_test(id, by=_actor(request))
        return response(
            {"event_id": event_id, "state": deliveries.PENDING}, status=HTTPStatus.ACCEPTED
        )


class WebhookDeliveriesView(WebhookEndpoint):
    @openapi.list_deliveries
    def get(self, request: CallerRequest, id: str) -> HttpResponse:
        parameters = deliveries_parameters.parse(request)
        endpoints.get(id)
        state, limit = parameters.get("state"), parameters["limit"]
        rows = deliveries.page(
            id,
            states=[state] if state else deliveries.STATES,
            before=parameters.get("before"),
            limit=limit + 1,
        )
        has_more = len(rows) > limit
        shown = [deliveries.resource(row) for row in rows[:limit]]
        return response(
            {"deliveries": shown, "next_before": shown[-1]["sequence"] if has_more else None}
        )


class WebhookRedeliveryView(WebhookEndpoint):
    @openapi.redeliver
    def post(self, request: CallerRequest, id: str, event_id: str) -> HttpResponse:
        no_parameters.parse(request)
        no_fields.run_validation(request.data)
        return response({"state": deliveries.redeliver(id, event_id)})


def _actor(request: CallerRequest) -> str:
    return Actor.service(request.user.id).by
