"""The endpoints of a user's conversations: each parses, calls one function, and responds."""

from collections.abc import Callable, Sequence
from functools import wraps
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from django.http import HttpResponse, QueryDict
from rest_framework.exceptions import APIException
from rest_framework.request import Request
from rest_framework.viewsets import ViewSetMixin

from conversation_service import clock
from conversation_service.errors import ServiceError
from conversation_service.http import idempotency, pagination
from conversation_service.http.authentication import CallerRequest
from conversation_service.http.endpoint import Endpoint
from conversation_service.http.origin import of_user
from conversation_service.http.preconditions import etag, if_match, required_if_match, unless_known
from conversation_service.http.rendering import JSONResponse
from conversation_service.mongodb.connection import Document
from conversations import documents, history, words
from conversations.queries import lookup, overview, summary, tags
from conversations.queries.listing import Listing, Page, count, list_parameters
from conversations.queries.listing import page as read_page
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
from conversations.views.openapi import conversations as openapi
from conversations.writes import changes, edits, services, store
from conversations.writes.changes import Change
from conversations.writes.store import Answer

Handler = Callable[["ConversationViewSet", CallerRequest, str], HttpResponse]


def not_found_first(handle: Handler) -> Handler:
    """Respond 404 to a faulty request for a conversation that the user does not have.

    Other responses would reveal whether the conversation of another user exists.
    """

    @wraps(handle)
    def handler(view: "ConversationViewSet", request: CallerRequest, id: str) -> HttpResponse:
        try:
            return handle(view, request, id)
        except (APIException, ServiceError):
            lookup.get(request.user.id, id)  # raises ConversationNotFound
            raise

    return handler


class ConversationViewSet(ViewSetMixin, Endpoint):
    """The conversations of the user of the token. Conversations of other users respond 404."""

    # Each update of one conversation counts as a PATCH.
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

    @openapi.list_
    def list(self, request: CallerRequest) -> HttpResponse:
        listing = Listing.of(request.user.id, list_parameters.parse(request))
        page = Page.of(listing, read_page(listing))
        total = count(listing) if listing.include_total else page.total(listing)
        cursors = {
            name: pagination.encode(position, binding=listing.binding) if position else None
            for name, position in (("next", page.next), ("prev", page.previous))
        }
        body = {
            "conversations": [_only(listing.fields, row) for row in page.rows],
            "pagination": {
                "total_count": total,
                "has_next": page.next is not None,
                "has_prev": page.previous is not None,
                "next_cursor": cursors["next"],
                "prev_cursor": cursors["prev"],
                "limit": listing.limit,
            },
        }
        response = unless_known(request, body)
        if links := _links(request, cursors):
            response.headers["Link"] = links
        return response

    @openapi.create
    def create(self, request: CallerRequest) -> HttpResponse:
        parameters = create_parameters.parse(request)
        values = create_input.run_validation(request.data)
        key = idempotency.sent_with(request)
        or_get = "get_or_create" in parameters
        return _created(services.begin(request.user.id, values, key, or_get=or_get))

    @openapi.summary
    def summary(self, request: CallerRequest) -> HttpResponse:
        no_parameters.parse(request)
        return JSONResponse(summary.of(request.user.id, now=clock.now()))

    @openapi.overview
    def overview(self, request: CallerRequest) -> HttpResponse:
        no_parameters.parse(request)
        return JSONResponse(overview.of(request.user.id, now=clock.now()))

    @openapi.tags
    def tags(self, request: CallerRequest) -> HttpResponse:
        wanted = tags_parameters.parse(request)
        beginnings = words.sought(documents.fold(wanted["prefix"]))
        return JSONResponse({"tags": tags.of(request.user.id, beginnings, limit=wanted["limit"])})

    @openapi.retrieve
    @not_found_first
    def retrieve(self, request: CallerRequest, id: str) -> HttpResponse:
        parameters = retrieve_parameters.parse(request)
        if version := parameters.get("as_of"):
            return _answer(history.as_of(lookup.with_history(request.user.id, id), version))
        document = lookup.get(request.user.id, id)
        if "include" in parameters:
            return _answer(document, character=services.shown(document["character_id"]))
        return _answer(document)

    @openapi.partial_update
    @not_found_first
    def partial_update(self, request: CallerRequest, id: str) -> HttpResponse:
        wanted = edits.edit(patch_input.run_validation(request.data))
        return self._change(id, wanted, is_edit=True)

    @openapi.destroy
    @not_found_first
    def destroy(self, request: CallerRequest, id: str) -> HttpResponse:
        parameters = delete_parameters.parse(request)
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
    @not_found_first
    def archive(self, request: CallerRequest, id: str) -> HttpResponse:
        return self._change(id, changes.ARCHIVE)

    @openapi.restore
    @not_found_first
    def restore(self, request: CallerRequest, id: str) -> HttpResponse:
        return self._change(id, changes.RESTORE)

    @openapi.pin
    @not_found_first
    def pin(self, request: CallerRequest, id: str) -> HttpResponse:
        return self._change(id, changes.PIN)

    @openapi.unpin
    @not_found_first
    def unpin(self, request: CallerRequest, id: str) -> HttpResponse:
        return self._change(id, changes.UNPIN)

    @openapi.duplicate
    @not_found_first
    def duplicate(self, request: CallerRequest, id: str) -> HttpResponse:
        no_parameters.parse(request)
        title = duplicate_input.run_validation(request.data).get("title")
        key = idempotency.sent_with(request)
        return _created(services.duplicate(request.user.id, id, title, key))

    @openapi.history
    @not_found_first
    def history(self, request: CallerRequest, id: str) -> HttpResponse:
        parameters = history_parameters.parse(request)
        binding = f"history {request.user.id} {id.lower()}"
        cursor = parameters.get("cursor")
        [before] = pagination.unseal(cursor, binding=binding) if cursor else [None]
        document = lookup.with_history(request.user.id, id)
        page = history.page(document, before=before, limit=parameters["limit"])
        next_cursor = pagination.seal([page.next], binding=binding) if page.next else None
        return JSONResponse({"revisions": page.revisions, "next_cursor": next_cursor})

    @openapi.revert
    @not_found_first
    def revert(self, request: CallerRequest, id: str) -> HttpResponse:
        wanted = revert_input.run_validation(request.data)
        then = history.as_of(lookup.with_history(request.user.id, id), wanted["version"])
        return self._change(id, edits.revert(then, wanted["fields"]), is_edit=True)

    def _change(
        self, conversation_id: str, wanted: Change, *, is_edit: bool = False
    ) -> HttpResponse:
        """Update a conversation. Only edits can require If-Match and store an idempotency key."""
        request = self.request
        no_parameters.parse(request)
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


def _only(names: Sequence[str] | None, row: Document) -> dict[str, Any]:
    whole = documents.resource(row)
    return whole if names is None else {"id": whole["id"]} | {name: whole[name] for name in names}


def _links(request: Request, cursors: dict[str, str | None]) -> str:
    """Return the Link header (RFC 8288) to the previous and the next page."""
    sides = {side: cursor for side, cursor in cursors.items() if cursor}
    if not sides:
        return ""
    sent = QueryDict(request.META.get("QUERY_STRING", "").encode("latin-1"))  # PEP 3333
    kept = [(name, values) for name, values in sent.lists() if name not in {"cursor", "page"}]
    query = urlencode(kept, doseq=True)
    first = f"{request.path}?{query}&" if query else f"{request.path}?"
    return ", ".join(f'<{first}cursor={cursor}>; rel="{side}"' for side, cursor in sides.items())
