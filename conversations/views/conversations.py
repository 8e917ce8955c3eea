"""The endpoints of a user's conversations: each parses, calls one function, and responds."""

import re
from collections.abc import Callable
from datetime import date
from functools import wraps
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, urlencode

from django.http import HttpResponse
from rest_framework.exceptions import APIException
from rest_framework.request import Request
from rest_framework.viewsets import ViewSetMixin

from conversation_service import clock
from conversation_service.errors import ServiceError
from conversation_service.http import cursors
from conversation_service.http.authentication import CallerRequest
from conversation_service.http.deprecation import Deprecated
from conversation_service.http.endpoint import Endpoint
from conversation_service.http.rendering import JSONResponse, etag, json_or_304, or_304
from conversation_service.mongodb.connection import Document
from conversations import documents, history
from conversations.exceptions import ConversationNotFound
from conversations.queries import lookup
from conversations.queries.listing import list_page
from conversations.queries.overview import user_overview
from conversations.queries.summary import user_summary
from conversations.queries.tags import tag_counts
from conversations.serializers.conversations import (
    create_input,
    create_parameters,
    delete_parameters,
    duplicate_input,
    history_parameters,
    no_fields,
    no_parameters,
    patch_input,
    retrieve_parameters,
    revert_input,
    tags_parameters,
)
from conversations.serializers.listing import list_parameters
from conversations.views.openapi import conversations as openapi
from conversations.writes import edits, idempotency, updates
from conversations.writes.characters import get_character_or_none
from conversations.writes.create import create_conversation, duplicate_conversation
from conversations.writes.updates import Update
from conversations.writes.writer import WriteResult, apply_to_one

_HAS_SEARCH = re.compile("(?:^|&)search=")

Handler = Callable[["ConversationViewSet", CallerRequest, str], HttpResponse]


def not_found_first(handle: Handler) -> Handler:
    """Respond 404 to a faulty request for a conversation that the user does not have.

    Other responses would reveal whether the conversation of another user exists.
    """

    @wraps(handle)
    def handler(view: "ConversationViewSet", request: CallerRequest, id: str) -> HttpResponse:
        try:
            return handle(view, request, id)
        except ConversationNotFound:
            raise
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

    # A page number reads and skips all rows of the earlier pages; a cursor does not.
    deprecated = {
        "list": Deprecated(date(2026, 12, 1), date(2028, 1, 1), names={"page", "per_page"})
    }

    def rate_limit(self, handler: str) -> str | None:
        """Return "search" for a list with a search: a client can send one for each typed letter."""
        if handler == "list" and _HAS_SEARCH.search(self.request.META.get("QUERY_STRING", "")):
            return "search"
        return super().rate_limit(handler)

    @openapi.list_
    def list(self, request: CallerRequest) -> HttpResponse:
        parameters = list_parameters.parse(request)
        found, pagination = list_page(request.user.id, parameters)
        rows = [documents.resource(row) for row in found]
        if "fields" in parameters:
            names = {"id": None, **dict.fromkeys(parameters["fields"])}
            rows = [{name: row[name] for name in names} for row in rows]
        body: dict[str, Any] = {"conversations": rows, "pagination": pagination}
        if "search" in parameters:
            body["search"] = {"ignored": parameters["search"].ignored}
        response = json_or_304(request, body)
        if pagination["has_next"] or pagination["has_prev"]:
            response.headers["Link"] = _links(request, pagination)
        return response

    @openapi.create
    def create(self, request: CallerRequest) -> HttpResponse:
        parameters = create_parameters.parse(request)
        values = create_input.run_validation(request.data)
        key = idempotency.read_key(request)
        if key and (replayed := idempotency.find_response(request.user.id, key)):
            return _created(WriteResult(replayed, replayed=True))
        get_or_create = "get_or_create" in parameters
        return _created(
            create_conversation(request.user.id, values, key, get_or_create=get_or_create)
        )

    @openapi.summary
    def summary(self, request: CallerRequest) -> HttpResponse:
        no_parameters.parse(request)
        return JSONResponse(user_summary(request.user.id, now=clock.now()))

    @openapi.overview
    def overview(self, request: CallerRequest) -> HttpResponse:
        no_parameters.parse(request)
        return JSONResponse(user_overview(request.user.id, now=clock.now()))

    @openapi.tags
    def tags(self, request: CallerRequest) -> HttpResponse:
        wanted = tags_parameters.parse(request)
        counts = tag_counts(request.user.id, wanted["prefix"], limit=wanted["limit"])
        return JSONResponse({"tags": counts})

    @openapi.retrieve
    @not_found_first
    def retrieve(self, request: CallerRequest, id: str) -> HttpResponse:
        parameters = retrieve_parameters.parse(request)
        if version := parameters.get("as_of"):
            then = history.as_of(lookup.with_history(request.user.id, id), version)
            return _response_or_304(request, then)
        document = lookup.get(request.user.id, id)
        if "include" in parameters:
            character = get_character_or_none(document["character_id"])
            return _response_or_304(request, document, character=character)
        return _response_or_304(request, document)

    @openapi.partial_update
    @not_found_first
    def partial_update(self, request: CallerRequest, id: str) -> HttpResponse:
        update = edits.edit(patch_input.run_validation(request.data))
        return self._update(id, update, is_edit=True)

    @openapi.destroy
    @not_found_first
    def destroy(self, request: CallerRequest, id: str) -> HttpResponse:
        parameters = delete_parameters.parse(request)
        no_fields.run_validation(request.data)
        versions = self.if_match(may_be_required=True)
        is_purge = parameters["mode"] == "purge"
        update = updates.purge() if is_purge else updates.trash()
        result = apply_to_one(request.user.id, id, update, actor=self.actor, versions=versions)
        if is_purge:
            return HttpResponse(status=HTTPStatus.NO_CONTENT)
        if "return=minimal" in request.headers.get("Prefer", ""):
            return HttpResponse(
                status=HTTPStatus.NO_CONTENT, headers={"Preference-Applied": "return=minimal"}
            )
        return _response(result.document)

    @openapi.archive
    @not_found_first
    def archive(self, request: CallerRequest, id: str) -> HttpResponse:
        return self._update(id, updates.ARCHIVE)

    @openapi.restore
    @not_found_first
    def restore(self, request: CallerRequest, id: str) -> HttpResponse:
        return self._update(id, updates.RESTORE)

    @openapi.pin
    @not_found_first
    def pin(self, request: CallerRequest, id: str) -> HttpResponse:
        return self._update(id, updates.PIN)

    @openapi.unpin
    @not_found_first
    def unpin(self, request: CallerRequest, id: str) -> HttpResponse:
        return self._update(id, updates.UNPIN)

    @openapi.duplicate
    @not_found_first
    def duplicate(self, request: CallerRequest, id: str) -> HttpResponse:
        no_parameters.parse(request)
        title = duplicate_input.run_validation(request.data).get("title")
        versions = self.if_match()
        key = idempotency.read_key(request)
        if key and (replayed := idempotency.find_response(request.user.id, key)):
            return _created(WriteResult(replayed, replayed=True))
        return _created(duplicate_conversation(request.user.id, id, title, key, versions=versions))

    @openapi.history
    @not_found_first
    def history(self, request: CallerRequest, id: str) -> HttpResponse:
        parameters = history_parameters.parse(request)
        binding = f"history {request.user.id} {id.lower()}"
        cursor = parameters.get("cursor")
        [before] = cursors.unseal(cursor, binding=binding) if cursor else [None]
        document = lookup.with_history(request.user.id, id)
        revisions, before = history.page(document, before=before, limit=parameters["limit"])
        next_cursor = cursors.seal([before], binding=binding) if before else None
        return JSONResponse({"revisions": revisions, "next_cursor": next_cursor})

    @openapi.revert
    @not_found_first
    def revert(self, request: CallerRequest, id: str) -> HttpResponse:
        wanted = revert_input.run_validation(request.data)
        then = history.as_of(lookup.with_history(request.user.id, id), wanted["version"])
        return self._update(id, edits.revert(then, wanted["fields"]), is_edit=True)

    def _update(
        self, conversation_id: str, update: Update, *, is_edit: bool = False
    ) -> HttpResponse:
        """Apply an update.

        Only an edit has a body and an idempotency key, and may require If-Match.
        """
        request = self.request
        no_parameters.parse(request)
        if not is_edit:
            no_fields.run_validation(request.data)
        key = idempotency.read_key(request)
        result = apply_to_one(
            request.user.id,
            conversation_id,
            update,
            actor=self.actor,
            versions=self.if_match(may_be_required=is_edit),
            key=key if is_edit else None,
        )
        return _response(result.document, replayed=result.replayed)


def _response_or_304(request: Request, document: Document, **included: Any) -> HttpResponse:
    """Respond to a read. The ETag has a digest if the content can change within a version."""
    body = documents.resource(document) | included
    response = JSONResponse(body, headers={"Cache-Control": "private, no-store"})
    is_fixed = not included and documents.is_fixed_by_version(body)
    return or_304(request, response, etag(body["version"], None if is_fixed else response.content))


def _response(
    document: Document, status: int = HTTPStatus.OK, *, replayed: bool = False
) -> HttpResponse:
    body = documents.resource(document)
    headers = {"ETag": etag(body["version"]), "Cache-Control": "private, no-store"}
    if replayed:
        headers["Idempotency-Replayed"] = "true"
    return JSONResponse(body, status=status, headers=headers)


def _created(result: WriteResult) -> HttpResponse:
    if result.existed:
        return _response(result.document)
    response = _response(result.document, HTTPStatus.CREATED, replayed=result.replayed)
    response.headers["Location"] = f"/api/v1/conversations/{result.document['_id']}"
    return response


def _links(request: Request, pagination: dict[str, Any]) -> str:
    """Return the Link header (RFC 8288) with the URLs of the next and the previous page."""
    # As latin-1, each byte of the query string is a character (PEP 3333) and stays as sent.
    query = request.META.get("QUERY_STRING", "")
    sent = parse_qsl(query, keep_blank_values=True, encoding="latin-1")
    replaced = {"cursor", "limit", "page", "per_page"}
    kept = [(name, value) for name, value in sent if name not in replaced]
    url = f"{request.path}?{urlencode([*kept, ('limit', pagination['limit'])], encoding='latin-1')}"
    return ", ".join(
        f'<{url}&cursor={cursor}>; rel="{side}"'
        for side in ("next", "prev")
        if (cursor := pagination[f"{side}_cursor"])
    )
