"""The console's permissions, and their words. The migrations create the roles."""

from collections.abc import Mapping
from typing import cast

from django.contrib.auth.models import Group, Permission, PermissionsMixin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from conversation_service.errors import Message

LOOK = "conversations.view_conversation"
ARCHIVE = "conversations.archive_conversation"
REVERT = "conversations.revert_conversation"
TRASH = "conversations.trash_conversation"
HOLD = "conversations.hold_conversation"
BULK = "conversations.bulk_conversation"
EXPORT = "conversations.export_conversation"
WEBHOOKS = "conversations.view_webhookendpoint"
MANAGE_WEBHOOKS = "conversations.manage_webhookendpoint"
LOG = "admin.view_logentry"
ACCOUNTS = "auth.view_user"
ROLES = "auth.view_group"

ON_CONVERSATIONS: Mapping[str, Message] = {
    LOOK: _("view conversations and their history"),
    ARCHIVE: _("archive and restore"),
    REVERT: _("revert to a version"),
    TRASH: _("move to the trash"),
    HOLD: _("place and release legal holds"),
    BULK: _("act on many conversations"),
    EXPORT: _("export"),
}
ON_WEBHOOKS: Mapping[str, Message] = {
    WEBHOOKS: _("view webhooks and their deliveries"),
    MANAGE_WEBHOOKS: _("manage webhooks"),
}
ON_STAFF: Mapping[str, Message] = {
    LOG: _("view the action log"),
    ACCOUNTS: _("view accounts"),
    ROLES: _("view roles"),
}
# The permissions that a role's page offers. Only a superuser changes accounts and roles: with
# Django's permission for this, an account could make itself a superuser.
OFFERED: Mapping[Message, Mapping[str, Message]] = {
    _("Conversations"): ON_CONVERSATIONS,
    _("Webhooks"): ON_WEBHOOKS,
    _("Staff"): ON_STAFF,
}
WORDS: Mapping[str, Message] = {**ON_CONVERSATIONS, **ON_WEBHOOKS, **ON_STAFF}


def require(request: HttpRequest, *permissions: str) -> None:
    """Raise PermissionDenied if the account lacks a permission."""
    if not allow(request, *permissions):
        raise PermissionDenied


def allow(request: HttpRequest, *permissions: str) -> bool:
    return cast(PermissionsMixin, request.user).has_perms(permissions)


def name_of(permission: Permission) -> str:
    return f"{permission.content_type.app_label}.{permission.codename}"


def in_words(role: Group) -> str:
    """Return a role's permissions: in words, or by Django's names if they are not offered."""
    permissions = role.permissions.select_related("content_type")
    granted = {name_of(permission): permission.name for permission in permissions}
    offered = [str(words) for name, words in WORDS.items() if name in granted]
    others = [text for name, text in granted.items() if name not in WORDS]
    return ", ".join([*offered, *others])
