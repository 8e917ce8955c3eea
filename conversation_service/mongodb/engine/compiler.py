from typing import Any, cast

from django.db.models.expressions import Col, OrderBy, Ref
from django_mongodb_backend import compiler
from django_mongodb_backend.compiler import (
    SQLAggregateCompiler,
    SQLDeleteCompiler,
    SQLInsertCompiler,
    SQLUpdateCompiler,
)
from django_mongodb_backend.query import MongoQuery

Stage = dict[str, Any]

# Django imports the compilers for the other statements from this module.
__all__ = [
    "SQLAggregateCompiler",
    "SQLCompiler",
    "SQLDeleteCompiler",
    "SQLInsertCompiler",
    "SQLUpdateCompiler",
]


class EarlySortQuery(MongoQuery):
    """Sorts and slices right after $match, where an index can do both.

    django-mongodb-backend puts $project or $addFields before $sort, even if it is {"n": "$n"}. The
    server then fetches and sorts all matching documents: 7,500 for a page with 20. Delete this
    class when the backend emits $match, $sort, $limit for a query that sorts by plain columns.

    Only queries with filter, order, slice and columns are changed.
    """

    def get_pipeline(self) -> list[Stage]:
        if not self.order_needs_no_stage():
            return cast(list[Stage], super().get_pipeline())  # type: ignore[no-untyped-call]
        stages: list[Stage] = []
        if self.match_mql:
            stages.append({"$match": self.match_mql})
        if self.ordering:
            stages.append({"$sort": self.ordering})
        if self.query.low_mark:
            stages.append({"$skip": self.query.low_mark})
        if self.query.high_mark is not None:
            stages.append({"$limit": self.query.high_mark - self.query.low_mark})
        if self.project_fields:
            stages.append({"$project": self.project_fields})
        return stages

    def order_needs_no_stage(self) -> bool:
        """Return True if each sort key is a stored field, and no stage must run before $sort.

        Called late: the backend can turn a query into a subquery after building it.
        """
        other_stages = (
            self.search_pipeline
            or self.lookup_pipeline
            or self.subqueries
            or self.aggregation_pipeline
            or self.combinator_pipeline
            or self.subquery_lookup
        )
        return not other_stages and all(map(_is_stored, self.compiler.order_by_objs or ()))


def _is_stored(order: OrderBy) -> bool:
    if order.nulls_first or order.nulls_last:
        return False
    key = order.expression
    if isinstance(key, Ref):  # a column that values() selects: only under its own name
        name, source = key.refs, key.source  # type: ignore[attr-defined]  # not in the stubs
        return isinstance(source, Col) and name == source.target.column
    return isinstance(key, Col)


class SQLCompiler(compiler.SQLCompiler):
    query_class = EarlySortQuery
