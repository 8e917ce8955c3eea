"""Who may do what. The migration of roles makes a group of each; more can be made by hand."""

from collections.abc import Mapping, Sequence
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

_SUPPORT = [LOOK, ARCHIVE, REVERT]

ROLES: Mapping[str, Sequence[str]] = {
    "support": _SUPPORT,
    "operator": [*_SUPPORT, TRASH, HOLD, BULK, EXPORT],
    "auditor": [LOOK, LOG],
}


def allow(request: HttpRequest, *permissions: str) -> bool:
    return cast(PermissionsMixin, request.user).has_perms(permissions)
