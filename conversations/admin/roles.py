"""The permissions of the console. Migration 0002 creates the roles."""

from typing import cast

from django.contrib.auth.models import PermissionsMixin
from django.http import HttpRequest

LOOK = "conversations.view_conversation"
ARCHIVE = "conversations.archive_conversation"
REVERT = "conversations.revert_conversation"
TRASH = "conversations.trash_conversation"
HOLD = "conversations.hold_conversation"
BULK = "conversations.bulk_conversation"
EXPORT = "conversations.export_conversation"
LOG = "admin.view_logentry"


def allow(request: HttpRequest, *permissions: str) -> bool:
    return cast(PermissionsMixin, request.user).has_perms(permissions)
