"""What people ask over HTTP: parse, call one thing, answer. No statement, no rule of the domain."""

from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, urlencode

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from rest_framework.exceptions import APIException
from rest_framework.request import Request
from rest_framework.viewsets import ViewSet

from conversation_service import clock
from conversation_service.errors import ServiceError
from conversation_service.http import cursors, idempotency
from conversation_service.http.authentication import CallerRequest
from conversation_service.http.origin import of_user
from conversation_service.http.preconditions import etag, if_match, json_or_304, required_if_match
from conversation_service.http.rendering import JSONResponse
from conversation_service.mongodb.connection import Document
from conversations import documents, history
from conversations.queries import lookup
from conversations.queries.listing import Page, list_page
from conversations.queries.overview import user_overview
from conversations.queries.summary import user_summary
from conversations.queries.tags import tag_counts
from conversations.serializers.conversations import (
    create_input,
    create_parameters,
    delete_parameters,
    duplicate_input,
    history_parameters,
    no_parameters,
    patch_input,
    retrieve_parameters,
    revert_input,
    tags_parameters,
)
from conversations.serializers.listing import list_parameters
from conversations.views.openapi import conversations as openapi
from conversations.writes import changes, edits, services, store
from conversations.writes.changes import Change
from conversations.writes.store import Answer


class ConversationViewSet(ViewSet):
    """The caller's own conversations; those of others do not exist as far as they can tell."""

    request: CallerRequest
    # Every change of one conversation counts as what it could be written as: a PATCH.
    rate_limits = {
        "list": "list",
        "create": "create",
        "duplicate": "create",
        "partial_update": "patch",
        "archive": "patch",
        "restore": "patch",
        "pin": "patch",
        "unpin": "patch",
        "revert": "patch",
        "destroy": "delete",
    }

    @property
    def default_response_headers(self) -> dict[str, str]:
        """Leave out Allow, which DRF finds out anew for each answer, but where it is asked for."""
        return super().default_response_headers if self.request.method == "OPTIONS" else {}

    def initialize_request(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Request:
        """Give DRF's request its headers: it would find them by not finding them, each time."""
        prepared = super().initialize_request(request, *args, **kwargs)
        prepared.META = request.META
        return prepared

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Untie the knots of DRF: what a request leaves behind is freed at once, and used again.

        Else it stays until the garbage collector comes, and memory is never warm.
        """
        response = super().dispatch(request, *args, **kwargs)
        self.request.parser_context.clear()
        for method in self.action_map:
            delattr(self, method)
        return response

    @openapi.list_
    def list(self, request: CallerRequest) -> HttpResponse:
        parameters = list_parameters.of(request)
        page = list_page(request.user.id, parameters)
        rows = [documents.resource(row) for row in page.rows]
        if "fields" in parameters:
            names = {"id": None, **dict.fromkeys(parameters["fields"])}
            rows = [{name: row[name] for name in names} for row in rows]
        body = {
            "conversations": rows,
            "pagination": {
                "total_count": page.total,
                "has_next": page.next_cursor is not None,
                "has_prev": page.prev_cursor is not None,
                "next_cursor": page.next_cursor,
                "prev_cursor": page.prev_cursor,
                "limit": page.limit,
            },
        }
        response = json_or_304(request, body)
        if page.next_cursor or page.prev_cursor:
            response.headers["Link"] = _links(request, page)
        return response

    @openapi.create
    def create(self, request: CallerRequest) -> HttpResponse:
        parameters = create_parameters.of(request)
        values = create_input.run_validation(request.data)
        key = idempotency.sent_with(request)
        or_get = "get_or_create" in parameters
        return _created(services.begin(request.user.id, values, key, or_get=or_get))

    @openapi.summary
    def summary(self, request: CallerRequest) -> HttpResponse:
        no_parameters.of(request)
        return JSONResponse(user_summary(request.user.id, now=clock.now()))

    @openapi.overview
    def overview(self, request: CallerRequest) -> HttpResponse:
        no_parameters.of(request)
        return JSONResponse(user_overview(request.user.id, now=clock.now()))

    @openapi.tags
    def tags(self, request: CallerRequest) -> HttpResponse:
        wanted = tags_parameters.of(request)
        counts = tag_counts(request.user.id, wanted["prefix"], limit=wanted["limit"])
        return JSONResponse({"tags": counts})

    @openapi.retrieve
    def retrieve(self, request: CallerRequest, id: str) -> HttpResponse:
        with _AbsenceFirst(request, id):
            parameters = retrieve_parameters.of(request)
        if version := parameters.get("as_of"):
            return _answer(history.as_of(lookup.with_history(request.user.id, id), version))
        document = lookup.get(request.user.id, id)
        if "include" in parameters:
            return _answer(document, character=services.shown(document["character_id"]))
        return _answer(document)

    @openapi.partial_update
    def partial_update(self, request: CallerRequest, id: str) -> HttpResponse:
        with _AbsenceFirst(request, id):
            wanted = edits.edit(patch_input.run_validation(request.data))
        return self._change(id, wanted, is_edit=True)

    @openapi.destroy
    def destroy(self, request: CallerRequest, id: str) -> HttpResponse:
        with _AbsenceFirst(request, id):
            parameters = delete_parameters.of(request)
            origin = of_user(request)
            versions = required_if_match(request, origin.client)
        if parameters["mode"] == "purge":
            store.purge(request.user.id, id, versions)
            return HttpResponse(status=HTTPStatus.NO_CONTENT)
        trashed = store.change(
            request.user.id, id, changes.trash(), origin=origin, versions=versions
        )
        if "return=minimal" in request.headers.get("Prefer", ""):
            return HttpResponse(
                status=HTTPStatus.NO_CONTENT, headers={"Preference-Applied": "return=minimal"}
            )
        return _answer(trashed.document)

    @openapi.archive
    def archive(self, request: CallerRequest, id: str) -> HttpResponse:
        return self._change(id, changes.ARCHIVE)

    @openapi.restore
    def restore(self, request: CallerRequest, id: str) -> HttpResponse:
        return self._change(id, changes.RESTORE)

    @openapi.pin
    def pin(self, request: CallerRequest, id: str) -> HttpResponse:
        return self._change(id, changes.PIN)

    @openapi.unpin
    def unpin(self, request: CallerRequest, id: str) -> HttpResponse:
        return self._change(id, changes.UNPIN)

    @openapi.duplicate
    def duplicate(self, request: CallerRequest, id: str) -> HttpResponse:
        with _AbsenceFirst(request, id):
            no_parameters.of(request)
            title = duplicate_input.run_validation(request.data).get("title")
            key = idempotency.sent_with(request)
        return _created(services.duplicate(request.user.id, id, title, key))

    @openapi.history
    def history(self, request: CallerRequest, id: str) -> HttpResponse:
        with _AbsenceFirst(request, id):
            parameters = history_parameters.of(request)
            binding = f"history {request.user.id} {id.lower()}"
            cursor = parameters.get("cursor")
            [before] = cursors.unseal(cursor, binding=binding) if cursor else [None]
        document = lookup.with_history(request.user.id, id)
        page = history.page(document, before=before, limit=parameters["limit"])
        next_cursor = cursors.seal([page.next], binding=binding) if page.next else None
        return JSONResponse({"revisions": page.revisions, "next_cursor": next_cursor})

    @openapi.revert
    def revert(self, request: CallerRequest, id: str) -> HttpResponse:
        with _AbsenceFirst(request, id):
            wanted = revert_input.run_validation(request.data)
        then = history.as_of(lookup.with_history(request.user.id, id), wanted["version"])
        return self._change(id, edits.revert(then, wanted["fields"]), is_edit=True)

    def _change(
        self, conversation_id: str, wanted: Change, *, is_edit: bool = False
    ) -> HttpResponse:
        """Change, where an edit may have to name a version; the others are safe to repeat."""
        request = self.request
        with _AbsenceFirst(request, conversation_id):
            no_parameters.of(request)
            key = idempotency.sent_with(request)
            origin = of_user(request)
            versions = required_if_match(request, origin.client) if is_edit else if_match(request)
        answer = store.change(
            request.user.id,
            conversation_id,
            wanted,
            origin=origin,
            versions=versions,
            key=key if is_edit else None,
        )
        return _answer(answer.document, replayed=answer.replayed)


class _AbsenceFirst:
    """Answers 404 before any fault in the request, so that a fault tells nothing."""

    def __init__(self, request: CallerRequest, conversation_id: str) -> None:
        self._request = request
        self._id = conversation_id

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, failure: BaseException | None, traceback: object) -> None:
        if isinstance(failure, APIException | ServiceError):
            lookup.get(self._request.user.id, self._id)


def _answer(
    document: Document, status: int = HTTPStatus.OK, *, replayed: bool = False, **included: Any
) -> HttpResponse:
    headers = {"ETag": etag(document["version"]), "Cache-Control": "private, no-store"}
    if replayed:
        headers["Idempotency-Replayed"] = "true"
    return JSONResponse(documents.resource(document) | included, status=status, headers=headers)


def _created(answer: Answer) -> HttpResponse:
    if answer.existed:
        return _answer(answer.document)
    response = _answer(answer.document, HTTPStatus.CREATED, replayed=answer.replayed)
    response.headers["Location"] = f"/api/v1/conversations/{answer.document['_id']}"
    return response


def _links(request: Request, page: Page) -> str:
    """Return the Link header (RFC 8288) with the URLs of the next and the previous page."""
    # As latin-1, each byte of the query string is a character (PEP 3333) and stays as sent.
    query = request.META.get("QUERY_STRING", "")
    sent = parse_qsl(query, keep_blank_values=True, encoding="latin-1")
    replaced = {"cursor", "limit", "page", "per_page"}
    kept = [(name, value) for name, value in sent if name not in replaced]
    url = f"{request.path}?{urlencode([*kept, ('limit', page.limit)], encoding='latin-1')}"
    cursors = {"next": page.next_cursor, "prev": page.prev_cursor}
    return ", ".join(
        f'<{url}&cursor={cursor}>; rel="{side}"' for side, cursor in cursors.items() if cursor
    )
