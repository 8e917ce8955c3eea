from datetime import datetime
from typing import Any

from bson import ObjectId
from django.db.models import Field, Index, Model
from django_mongodb_backend import schema
from pymongo import IndexModel

# The least value of each BSON type. Comparisons stay within a type, so that "at least this" is
# "of this type" in words that the planner understands.
LEAST: dict[str, Any] = {
    "string": "",
    "objectId": ObjectId("0" * 24),
    "int": float("-inf"),
    "long": float("-inf"),
    "double": float("-inf"),
    "bool": False,
    "date": datetime.min,  # noqa: DTZ901  (BSON dates carry no zone)
}


class DatabaseSchemaEditor(schema.DatabaseSchemaEditor):
    """Makes unique indexes that also serve lookups.

    Upstream restricts each to documents where the field has its type, {"$type": "string"}, so
    that many may lack it. No equality implies that filter: looking a user up by name, or a
    session by its key, scans the collection. Here a field that is NOT NULL needs no filter, and
    a nullable one gets a range that equality does imply. Delete with django-mongodb-backend
    6.0.4 or later (INTPYTHON-855); indexes made by this one may stay.
    """

    def add_index(
        self, model: type[Model], index: Index, *, unique: bool = False, **options: Any
    ) -> None:
        super().add_index(model, _LookupIndex(index) if unique else index, unique=unique, **options)


class _LookupIndex:
    """An Index whose filters, added by upstream for uniqueness, do not hide it from lookups."""

    def __init__(self, index: Any) -> None:
        self.index = index

    def get_pymongo_index_model(
        self,
        model: type[Model],
        schema_editor: DatabaseSchemaEditor,
        field: Field | None = None,
        unique: bool = False,
        column_prefix: str = "",
    ) -> IndexModel | None:
        built: IndexModel | None = self.index.get_pymongo_index_model(
            model, schema_editor, field=field, unique=unique, column_prefix=column_prefix
        )
        if built is None:
            return None
        # Not the fields of embedded documents: they are absent wherever their document is.
        required = {field.column for field in model._meta.local_fields if not field.null}
        filters = built.document.pop("partialFilterExpression", {})
        if usable := _usable(filters, required):
            built.document["partialFilterExpression"] = usable
        return built


def _usable(filters: dict[str, Any], required: set[str | None]) -> dict[str, Any]:
    kept = {}
    for column, condition in filters.items():
        if not isinstance(condition, dict) or condition.keys() != {"$type"}:
            kept[column] = condition  # from the constraint's own condition
        elif column not in required:
            bson_type = condition["$type"]
            kept[column] = {"$gte": LEAST[bson_type]} if bson_type in LEAST else condition
    return kept
