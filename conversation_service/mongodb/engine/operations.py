import re

from django_mongodb_backend import operations


class DatabaseOperations(operations.DatabaseOperations):
    """Escapes the operand of `iexact`, and uses our compiler.

    django-mongodb-backend escapes operands in other text lookups, but sends that of `iexact` as a
    regular expression: `username__iexact=".*"` matches every user. Delete the method when the
    backend overrides prep_for_iexact_query. Not covered: another column as operand, as in
    `iexact=F("title")`.
    """

    compiler_module = "conversation_service.mongodb.engine.compiler"

    def prep_for_iexact_query(self, x: object) -> str:
        return re.escape(str(x))
