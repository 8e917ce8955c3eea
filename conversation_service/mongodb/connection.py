"""The door from Django to PyMongo: the same client and pool that the ORM uses."""

from functools import lru_cache
from typing import Any, cast

from django.db import DEFAULT_DB_ALIAS, connections
from django_mongodb_backend.base import DatabaseWrapper
from pymongo.collection import Collection
from pymongo.database import Database

Document = dict[str, Any]


def database() -> Database[Document]:
    """Return the service's database.

    Errors from it are pymongo.errors.PyMongoError: unlike the ORM's, nobody has wrapped them in
    django.db.DatabaseError. Times read through it are naive UTC.
    """
    wrapper = cast(DatabaseWrapper, connections[DEFAULT_DB_ALIAS])
    return cast(Database[Document], wrapper.database)


def collection(name: str) -> Collection[Document]:
    return _collection(database(), name)


@lru_cache(maxsize=64)
def _collection(database: Database[Document], name: str) -> Collection[Document]:
    return database[name]
