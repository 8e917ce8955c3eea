"""Query plans of the server."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.db.models import QuerySet


@dataclass(frozen=True)
class Plan:
    stages: set[str]
    documents_examined: int


def plan(queryset: QuerySet) -> Plan:
    explained = json.loads(queryset.explain(verbosity="executionStats"))
    # The part before the first stage that the query planner cannot run.
    cursor = explained["stages"][0]["$cursor"] if "stages" in explained else explained
    later = {name.strip("$").upper() for stage in explained.get("stages", ()) for name in stage}
    return Plan(
        stages=set(_stages(cursor["queryPlanner"]["winningPlan"])) | later,
        documents_examined=cursor["executionStats"]["totalDocsExamined"],
    )


def _stages(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for child in node:
            yield from _stages(child)
    if isinstance(node, dict):
        if "stage" in node:
            yield node["stage"]
        for child in node.values():
            yield from _stages(child)
