"""The endpoints with which services manage webhooks."""

from http import HTTPStatus
from typing import Any

from django.http import HttpResponse

from conversation_service.http.actor import Actor
from conversation_service.http.authentication import CallerRequest, ServiceAuthentication
from conversation_service.http.endpoint import Endpoint
from conversation_service.http.permissions import HasScope
from conversation_service.http.rendering import JSONResponse
from conversations.views.openapi import webhooks as openapi
from conversations.webhooks import endpoints
from conversations.webhooks.endpoints import resource
from conversations.webhooks.serializers import (
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
        return response({"webhooks": [resource(each) for each in endpoints.list_all()]})

    @openapi.create
    def post(self, request: CallerRequest) -> HttpResponse:
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
        return response(resource(endpoints.get(id)))

    @openapi.change
    def patch(self, request: CallerRequest, id: str) -> HttpResponse:
        values = endpoint_changes_input.run_validation(request.data)
        return response(resource(endpoints.change(id, values)))

    @openapi.delete
    def delete(self, request: CallerRequest, id: str) -> HttpResponse:
        endpoints.delete(id)
        return HttpResponse(status=HTTPStatus.NO_CONTENT)


class WebhookSecretView(WebhookEndpoint):
    @openapi.rotate
    def post(self, request: CallerRequest, id: str) -> HttpResponse:
        sent = rotation_input.run_validation(request.data)
        endpoint, secret = endpoints.rotate_secret(id, sent.get("secret"))
        return response({**resource(endpoint), "secret": secret})


class WebhookEnableView(WebhookEndpoint):
    @openapi.enable
    def post(self, request: CallerRequest, id: str) -> HttpResponse:
        sent = enable_input.run_validation(request.data)
        return response(resource(endpoints.enable(id, from_now=sent["from"] == "now")))


class WebhookDisableView(WebhookEndpoint):
    @openapi.disable
    def post(self, request: CallerRequest, id: str) -> HttpResponse:
        return response(resource(endpoints.disable(id, endpoints.STAFF, by=_actor(request))))


def _actor(request: CallerRequest) -> str:
    return Actor.service(request.user.id).by
