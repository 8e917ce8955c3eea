"""Bulk actions on many conversations."""

from collections import Counter
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from bson import ObjectId
from django.http import HttpResponse

from conversation_service.http import cursors
from conversation_service.http.authentication import CallerRequest
from conversation_service.http.endpoint import Endpoint
from conversation_service.http.rendering import JSONResponse
from conversations.queries.filters import build_filter
from conversations.serializers.bulk import bulk_input
from conversations.serializers.conversations import no_parameters
from conversations.views.openapi import bulk as openapi
from conversations.writes import bulk as run
from conversations.writes import idempotency, writer
from conversations.writes.bulk import BulkCursor
from conversations.writes.writer import ABSENT, BulkResult


class BulkView(Endpoint):
    mongodb_s = None  # a run has many statements
    # A bulk run counts as one update: the body bounds the number of its conversations.
    rate_limits = {"post": "patch"}

    @openapi.bulk
    def post(self, request: CallerRequest) -> HttpResponse:
        no_parameters.parse(request)
        wanted = bulk_input.run_validation(request.data)
        idempotency.read_key(request)  # validated, but not stored: a repeated run is harmless
        update = run.update_for(wanted["action"], wanted.get("tags", ()))
        user_id, dry_run, actor = request.user.id, wanted["dry_run"], self.actor
        if "ids" in wanted:
            valid = [ObjectId(id_) for id_ in wanted["ids"] if ObjectId.is_valid(id_)]
            if dry_run:
                found = writer.dry_run(user_id, valid, update)
            else:
                found = writer.apply_to_many(user_id, valid, update, actor=actor)
            return _response(_listed(wanted["ids"], found))
        chosen = build_filter(user_id, wanted["filter"])
        if dry_run:
            ids = run.sample_ids(chosen)
            results = _listed(ids, writer.dry_run(user_id, ids, update))
            return _response(results, writer.count_outcomes(chosen, update))
        action, tags = wanted["action"], wanted.get("tags")
        binding = repr(("bulk", user_id, action, tags, sorted(chosen.items())))
        if sent := wanted.get("cursor"):
            after, last, began = cursors.unseal(sent, binding=binding)
            cursor = BulkCursor(ObjectId(after), ObjectId(last), cursors.moment(began))
        elif started := run.start(chosen):
            cursor = started
        else:
            return _response([])
        ids = run.next_ids(chosen, cursor)
        only = {**chosen, **cursor.conditions()}
        found = writer.apply_to_many(user_id, ids, update, actor=actor, only=only)
        next_cursor = None
        if len(ids) == run.STEP and ids[-1] != cursor.last:
            state = [str(ids[-1]), str(cursor.last), cursors.milliseconds(cursor.began)]
            next_cursor = cursors.seal(state, binding=binding)
        return _response(_listed(ids, found), next_cursor=next_cursor)


def _listed(
    ids: Iterable[str | ObjectId], found: Mapping[ObjectId, BulkResult]
) -> list[tuple[str | ObjectId, BulkResult]]:
    """Return a result for each id in the order of the request; a repeated id is skipped."""
    listed = []
    done: set[str] = set()
    for id_ in ids:
        result = found.get(ObjectId(id_), ABSENT) if ObjectId.is_valid(id_) else ABSENT
        if result.outcome == "ok" and str(id_).lower() in done:
            result = BulkResult("skipped", result.version)
        done.add(str(id_).lower())
        listed.append((id_, result))
    return listed


def _response(
    results: list[tuple[str | ObjectId, BulkResult]],
    counted: Mapping[str, int] | None = None,
    next_cursor: str | None = None,
) -> HttpResponse:
    outcomes = Counter(result.outcome for _, result in results)
    summary = counted or {
        "matched": sum(result != ABSENT for _, result in results),
        **{outcome: outcomes[outcome] for outcome in ("ok", "skipped", "failed")},
    }
    rows = [_row(id_, result) for id_, result in results]
    return JSONResponse({"summary": summary, "results": rows, "next_cursor": next_cursor})


def _row(id_: str | ObjectId, result: BulkResult) -> dict[str, Any]:
    error = result.error() if result.error else None
    row = {
        "id": id_,
        "status": error.status if error else HTTPStatus.OK,
        "code": error.code if error else None,
        "version": result.version,
    }
    return row | {"message": error.message, "details": error.details} if error else row
