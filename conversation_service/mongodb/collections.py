"""Declarations of collections, which setup_indexes applies to the database."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.apps import apps
from pymongo import IndexModel


@dataclass(frozen=True)
class CollectionSchema:
    """A collection with its indexes and its validator.

    An app declares its collections in `AppConfig.collections`. Every index has an explicit name, by
    which a changed definition is recognised. `validator` includes the operator:
    {"$jsonSchema": {...}}. `migrated` is True if Django's migrations also create indexes in the
    collection, so that undeclared indexes are not extra. `shard_key` is the key for a sharded
    cluster: each unique index must start with it.
    """

    name: str
    indexes: Sequence[IndexModel] = ()
    validator: dict[str, Any] | None = None
    migrated: bool = False
    shard_key: Mapping[str, int] | None = None


def nullable(bson_type: str) -> dict[str, Any]:
    """Return the rule in a $jsonSchema for a field with this type or null."""
    return {"bsonType": [bson_type, "null"]}


def declared() -> Iterator[CollectionSchema]:
    for config in apps.get_app_configs():
        yield from getattr(config, "collections", ())
