"""A validator that rejects updates of some conversations."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def rejecting_updates(mongo: Any, **fields: Any) -> Iterator[None]:
    """Let MongoDB reject a second version of the conversations with these fields."""
    [collection] = mongo.list_collections(filter={"name": "conversations"})
    names = ("validator", "validationLevel", "validationAction")
    usual = {name: collection["options"][name] for name in names}
    mongo.command("collMod", "conversations", validator={"$nor": [{**fields, "version": 2}]})
    try:
        yield
    finally:
        mongo.command("collMod", "conversations", **usual)
