"""The permissions of the console. Migration 0002 creates the roles."""

from typing import cast

from django.contrib.auth.models import PermissionsMixin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest

LOOK = "conversations.view_conversation"
ARCHIVE = "conversations.archive_conversation"
REVERT = "conversations.revert_conversation"
TRASH = "conversations.trash_conversation"
HOLD = "conversations.hold_conversation"
BULK = "conversations.bulk_conversation"
EXPORT = "conversations.export_conversation"
LOG = "admin.view_logentry"


def require(request: HttpRequest, *permissions: str) -> None:
    """Raise PermissionDenied if the account lacks a permission."""
    if not allow(request, *permissions):
        raise PermissionDenied


def allow(request: HttpRequest, *permissions: str) -> bool:
    return cast(PermissionsMixin, request.user).has_perms(permissions)
