"""Django's cache in MongoDB, for shared values that must outlive a failure of Redis."""

from datetime import datetime, timedelta
from typing import Any

from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache
from pymongo import ReturnDocument
from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError

from conversation_service import clock
from conversation_service.mongodb.connection import Document, collection


class MongoCache(BaseCache):
    """Stores BSON values with their key as `_id`. A TTL index deletes expired values."""

    def __init__(self, location: str, params: dict[str, Any]) -> None:
        super().__init__(params)
        self._name = location

    def get(self, key: str, default: Any = None, version: int | None = None) -> Any:
        where = {"_id": self.make_and_validate_key(key, version), **_live()}
        found = self._values().find_one(where)
        return default if found is None else found["value"]

    def set(
        self,
        key: str,
        value: Any,
        timeout: float | None = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> None:
        named = {"_id": self.make_and_validate_key(key, version)}
        row = {"value": value, "expires_at": self._end(timeout)}
        try:
            self._values().replace_one(named, row, upsert=True)
        except DuplicateKeyError:  # a concurrent call inserted this key
            self._values().replace_one(named, row, upsert=True)

    def add(
        self,
        key: str,
        value: Any,
        timeout: float | None = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> bool:
        """Set a value if the key has no live value. Only one of two concurrent calls succeeds."""
        gone = {
            "_id": self.make_and_validate_key(key, version),
            "expires_at": {"$lte": clock.now()},
        }
        row = {"value": value, "expires_at": self._end(timeout)}
        try:
            self._values().replace_one(gone, row, upsert=True)
        except DuplicateKeyError:
            return False
        return True

    def incr(self, key: str, delta: int = 1, version: int | None = None) -> int:
        raised = self._values().find_one_and_update(
            {"_id": self.make_and_validate_key(key, version), **_live()},
            {"$inc": {"value": delta}},
            return_document=ReturnDocument.AFTER,
        )
        if raised is None:
            raise ValueError(f"The cache has no key {key}.")
        return raised["value"]  # type: ignore[no-any-return]

    def touch(
        self, key: str, timeout: float | None = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        where = {"_id": self.make_and_validate_key(key, version), **_live()}
        touched = self._values().update_one(where, {"$set": {"expires_at": self._end(timeout)}})
        return bool(touched.matched_count)

    def delete(self, key: str, version: int | None = None) -> bool:
        where = {"_id": self.make_and_validate_key(key, version)}
        return bool(self._values().delete_one(where).deleted_count)

    def clear(self) -> None:
        self._values().delete_many({})

    def _values(self) -> Collection[Document]:
        return collection(self._name)

    def _end(self, timeout: float | None) -> datetime | None:
        seconds = self.default_timeout if timeout is DEFAULT_TIMEOUT else timeout
        return None if seconds is None else clock.now() + timedelta(seconds=seconds)


def _live() -> dict[str, Any]:
    """Exclude expired values: the TTL index deletes them only once a minute."""
    return {"$or": [{"expires_at": None}, {"expires_at": {"$gt": clock.now()}}]}
