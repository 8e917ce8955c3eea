"""What a collection must look like in the database: declared here, applied by setup_indexes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.apps import apps
from pymongo import IndexModel


@dataclass(frozen=True)
class CollectionSchema:
    """One collection with its indexes and its validator.

    An app declares its own as `collections` of its AppConfig. Every index has an explicit name,
    by which a later change of its definition is recognised. `validator` is a whole
    one: {"$jsonSchema": {...}}. `migrated` says that Django's migrations make indexes
    here too, so that one not declared is theirs and not a stray.
    """

    name: str
    indexes: Sequence[IndexModel] = ()
    validator: dict[str, Any] | None = None
    migrated: bool = False


def declared() -> Iterator[CollectionSchema]:
    for config in apps.get_app_configs():
        yield from getattr(config, "collections", ())
