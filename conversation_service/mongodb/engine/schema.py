from datetime import datetime
from typing import Any

from bson import ObjectId
from django.db.models import Field, Index, Model
from django_mongodb_backend import schema
from pymongo import IndexModel

# The least value of each BSON type. A comparison matches only its own type, so `$gte` with the
# least value tests the type, in a form that the planner can use.
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
    """Creates unique indexes that queries can use.

    django-mongodb-backend restricts each index to documents in which the field has its type, such
    as {"$type": "string"}, so that several documents can lack it. No equality implies that filter,
    so the look-up of a user by name scans the collection. Here a NOT NULL field has no filter, and
    a nullable field has a range that equality implies. Delete with django-mongodb-backend 6.0.4 or
    later (INTPYTHON-855); its indexes can stay.
    """

    def add_index(
        self, model: type[Model], index: Index, *, unique: bool = False, **options: Any
    ) -> None:
        super().add_index(model, _LookupIndex(index) if unique else index, unique=unique, **options)


class _LookupIndex:
    """An index with filters that equality implies."""

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
        # Without the fields in embedded documents: an absent document lacks them.
        required = {field.column for field in model._meta.local_fields if not field.null}
        usable = {}
        for column, condition in built.document.pop("partialFilterExpression", {}).items():
            if not isinstance(condition, dict) or condition.keys() != {"$type"}:
                usable[column] = condition  # from the constraint's own condition
            elif column not in required:
                bson_type = condition["$type"]
                usable[column] = {"$gte": LEAST[bson_type]} if bson_type in LEAST else condition
        if usable:
            built.document["partialFilterExpression"] = usable
        return built
