"""Permissions by scope."""

from typing import Any

from rest_framework.permissions import BasePermission

from conversation_service.errors import InsufficientPermissions
from conversation_service.http.authentication import CallerRequest

# The scopes that views require; complete after the import of the URLs.
scopes: set[str] = set()


def HasScope(scope: str) -> type[BasePermission]:  # noqa: N802  (it makes a class)
    """Return a permission that requires this scope in the token."""
    scopes.add(scope)
    challenge = f'Bearer realm="api", error="insufficient_scope", scope="{scope}"'

    class Scoped(BasePermission):
        def has_permission(self, request: CallerRequest, view: Any) -> bool:  # type: ignore[override]
            if scope not in request.user.scopes:
                raise InsufficientPermissions(headers={"WWW-Authenticate": challenge}, scope=scope)
            return True

    return Scoped
