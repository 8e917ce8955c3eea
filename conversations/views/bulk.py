"""The endpoint for one action on many conversations."""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from bson import ObjectId
from django.http import HttpResponse

from conversation_service.http import idempotency, pagination
from conversation_service.http.authentication import CallerRequest
from conversation_service.http.endpoint import Endpoint
from conversation_service.http.origin import of_user
from conversation_service.http.rendering import JSONResponse
from conversations.queries import listing
from conversations.serializers.bulk import bulk_input
from conversations.serializers.conversations import no_parameters
from conversations.views.openapi import bulk as openapi
from conversations.writes import bulk as run
from conversations.writes.bulk import ABSENT, Action, Boundary, Result

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class BulkView(Endpoint):
    # A bulk run counts as one update: the body bounds the number of its conversations.
    rate_limits = {"post": "patch"}

    @openapi.bulk
    def post(self, request: CallerRequest) -> HttpResponse:
        no_parameters.parse(request)
        wanted = bulk_input.run_validation(request.data)
        idempotency.sent_with(request)  # checked only: bulk runs are idempotent without it
        action = Action.of(wanted["action"], wanted.get("tags", ()))
        if "ids" in wanted:
            return self._by_ids(action, wanted["ids"], dry_run=wanted["dry_run"])
        chosen = listing.chosen(request.user.id, wanted["filter"])
        if wanted["dry_run"]:
            ids = run.sample(chosen)
            results = _listed(ids, run.rehearse(request.user.id, ids, action))
            return _answer(results, run.counts(chosen, action))
        return self._by_filter(action, chosen, wanted)

    def _by_ids(self, action: Action, ids: list[str], *, dry_run: bool) -> HttpResponse:
        valid = [ObjectId(id_) for id_ in ids if ObjectId.is_valid(id_)]
        user_id = self.request.user.id
        if dry_run:
            found = run.rehearse(user_id, valid, action)
        else:
            found = run.apply(user_id, valid, action, origin=of_user(self.request))
        return _answer(_listed(ids, found))

    def _by_filter(
        self, action: Action, chosen: dict[str, Any], wanted: Mapping[str, Any]
    ) -> HttpResponse:
        user_id = self.request.user.id
        binding = repr(("bulk", user_id, action.name, wanted.get("tags"), sorted(chosen.items())))
        cursor = wanted.get("cursor")
        within = _unsealed(cursor, binding) if cursor else run.boundary(chosen)
        if within is None:
            return _answer([])
        ids = run.step(chosen, within)
        only = {**chosen, **within.conditions()}
        found = run.apply(user_id, ids, action, origin=of_user(self.request), only=only)
        is_last = len(ids) < run.STEP or ids[-1] == within.last
        next_cursor = None if is_last else _sealed(within, ids[-1], binding)
        return _answer(_listed(ids, found), next_cursor=next_cursor)


def _sealed(within: Boundary, after: ObjectId, binding: str) -> str:
    began = pagination.milliseconds(within.began)
    return pagination.seal([str(after), str(within.last), began], binding=binding)


def _unsealed(cursor: str, binding: str) -> Boundary:
    after, last, began = pagination.unseal(cursor, binding=binding)
    return Boundary(ObjectId(after), ObjectId(last), _EPOCH + timedelta(milliseconds=began))


def _listed(
    ids: Iterable[str | ObjectId], found: Mapping[ObjectId, Result]
) -> list[tuple[str | ObjectId, Result]]:
    """Return a result for each id, in order. A repeated id is skipped."""
    listed = []
    done: set[str] = set()
    for id_ in ids:
        result = found.get(ObjectId(id_), ABSENT) if ObjectId.is_valid(id_) else ABSENT
        if result.outcome == "ok" and str(id_).lower() in done:
            result = Result(result.status, result.code, result.version, "skipped")
        done.add(str(id_).lower())
        listed.append((id_, result))
    return listed


def _answer(
    results: list[tuple[str | ObjectId, Result]],
    counted: Mapping[str, int] | None = None,
    next_cursor: str | None = None,
) -> HttpResponse:
    outcomes = Counter(result.outcome for _, result in results)
    summary = counted or {
        "matched": sum(result != ABSENT for _, result in results),
        **{outcome: outcomes[outcome] for outcome in ("ok", "skipped", "failed")},
    }
    rows = [
        {"id": id_, "status": result.status, "code": result.code, "version": result.version}
        for id_, result in results
    ]
    return JSONResponse({"summary": summary, "results": rows, "next_cursor": next_cursor})
