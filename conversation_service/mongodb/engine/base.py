from typing import Any

from django_mongodb_backend import base
from pymongo import MongoClient

from conversation_service.mongodb.engine.introspection import DatabaseIntrospection
from conversation_service.mongodb.engine.operations import DatabaseOperations
from conversation_service.mongodb.engine.schema import DatabaseSchemaEditor
from conversation_service.mongodb.monitor import LISTENERS, watch


class DatabaseWrapper(base.DatabaseWrapper):
    SchemaEditorClass = DatabaseSchemaEditor
    introspection_class = DatabaseIntrospection
    ops_class = DatabaseOperations

    def get_connection_params(self) -> dict[str, Any]:
        params = super().get_connection_params()  # type: ignore[no-untyped-call]
        return {"event_listeners": LISTENERS, **params}

    def get_new_connection(self, conn_params: dict[str, Any]) -> MongoClient[Any]:
        """Return the client of this process, which each thread and greenlet asks for anew."""
        is_first = self.alias not in self._connection_pools
        client: MongoClient[Any] = super().get_new_connection(conn_params)  # type: ignore[no-untyped-call]
        if is_first:
            watch(client)
        return client
