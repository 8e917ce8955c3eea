from django_mongodb_backend import base

from conversation_service.mongodb.engine.introspection import DatabaseIntrospection
from conversation_service.mongodb.engine.operations import DatabaseOperations
from conversation_service.mongodb.engine.schema import DatabaseSchemaEditor


class DatabaseWrapper(base.DatabaseWrapper):
    SchemaEditorClass = DatabaseSchemaEditor
    introspection_class = DatabaseIntrospection
    ops_class = DatabaseOperations
