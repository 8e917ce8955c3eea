"""The endpoints for other services, which send service tokens."""

from http import HTTPStatus
from typing import Any

from django.http import HttpResponse
from rest_framework.request import Request

from conversation_service.errors import ServiceError
from conversation_service.http.actor import Actor
from conversation_service.http.authentication import CallerRequest, ServiceAuthentication
from conversation_service.http.endpoint import Endpoint
from conversation_service.http.permissions import HasScope
from conversation_service.http.rendering import JSONParser, JSONResponse
from conversation_service.mongodb.connection import Document
from conversations.documents import clamped_settings, complete
from conversations.exceptions import ActivityAhead
from conversations.queries import lookup
from conversations.serializers.internal import (
    activity_batch_input,
    activity_input,
    activity_parameters,
    authorize_input,
)
from conversations.states import WRITABLE
from conversations.views.openapi import internal as openapi
from conversations.writes.activity import Activity, store_report, store_reports


class BatchParser(JSONParser):
    max_bytes = 256 * 1024  # 500 activity reports of the maximum length


class AuthorizeView(Endpoint):
    authentication_classes = [ServiceAuthentication]
    permission_classes = [HasScope("conversations:authorize")]

    @openapi.authorize
    def post(self, request: Request) -> HttpResponse:
        sent = authorize_input.run_validation(request.data)
        found = lookup.ownership(sent["ids"])
        results = [access(id_, found.get(id_.lower()), sent["user_id"]) for id_ in sent["ids"]]
        return JSONResponse({"results": results})


class ActivityView(Endpoint):
    authentication_classes = [ServiceAuthentication]
    permission_classes = [HasScope("conversations:activity")]

    @openapi.activity
    def put(self, request: CallerRequest, id: str) -> HttpResponse:
        parameters = activity_parameters.parse(request)
        report = Activity.read(activity_input.run_validation(request.data))
        unarchives = parameters["on_message"] == "unarchive"
        unarchive_by = Actor.service(request.user.id) if unarchives else None
        return JSONResponse(store_report(id, report, unarchive_by=unarchive_by))


class ActivityBatchView(Endpoint):
    authentication_classes = [ServiceAuthentication]
    permission_classes = [HasScope("conversations:activity")]
    parser_classes = [BatchParser]

    @openapi.activity_batch
    def post(self, request: Request) -> HttpResponse:
        items = activity_batch_input.run_validation(request.data)["items"]
        reports = [(item.pop("id"), Activity.read(item)) for item in items]
        rows = []
        for (id_, _), result in zip(reports, store_reports(reports), strict=True):
            error = result if isinstance(result, ServiceError) else None
            status = error.status if error else HTTPStatus.OK
            row = {"id": id_, "status": status, "applied": result is True}
            if isinstance(error, ActivityAhead):
                row |= {"code": error.code, "errors": error.details["errors"]}
            rows.append(row)
        return JSONResponse({"results": rows})


def access(id_: str, found: Document | None, user_id: str) -> dict[str, Any]:
    """Return the user's access to a conversation. For another owner it shows nothing else.

    Settings above the present ceilings of their model are lowered, and `clamped` names them.
    """
    owner = found is not None and found["user_id"] == user_id
    status = found["status"] if found and owner else None
    reason = None if status in WRITABLE else status
    if found is None:
        reason = "not_found"
    elif not owner:
        reason = "not_owner"
    settings: dict[str, Any] = dict.fromkeys(("settings", "settings_given", "clamped"))
    if found and owner:
        conversation = complete(found)
        clamped = clamped_settings(conversation["settings"])
        settings = {
            "settings": conversation["settings"] | clamped,
            "settings_given": conversation["settings_given"],
            "clamped": [*clamped],
        }
    return {
        "id": id_,
        "exists": found is not None,
        "owner": owner,
        "status": status,
        "writable": reason is None,
        "reason": reason,
        **settings,
    }
