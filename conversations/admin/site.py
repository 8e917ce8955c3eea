"""The console's site: its title, its URLs and its menu."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, URLResolver, reverse
from django.utils.translation import gettext_lazy as _
from unfold.sites import UnfoldAdminSite

from conversations.admin import dashboard, roles

# Unfold's search needs indexes that the models do not have, and Django's view_on_site leads to
# pages that do not exist.
_NOT_SERVED = {"search", "view_on_site"}


class ConsoleSite(UnfoldAdminSite):  # type: ignore[misc]  # unfold has no types
    index_title = _("Overview")
    index_template = "console/dashboard.html"

    def get_urls(self) -> list[URLPattern | URLResolver]:
        return [url for url in super().get_urls() if getattr(url, "name", "") not in _NOT_SERVED]

    def index(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        shown = dashboard.context() if roles.allow(request, roles.LOOK) else {}
        response: HttpResponse = super().index(request, shown | (extra_context or {}))
        return response


def navigation(request: HttpRequest) -> list[dict[str, Any]]:
    """Return the menu entries that the user has the permission for."""
    webhooks = "admin:conversations_webhookendpoint_changelist"
    items = [
        (_("Overview"), "dashboard", "admin:index", None),
        (_("Conversations"), "forum", "admin:conversations_conversation_changelist", roles.LOOK),
        (_("Webhooks"), "webhook", webhooks, roles.WEBHOOKS),
        (_("Action log"), "history", "admin:admin_logentry_changelist", roles.LOG),
        (_("Accounts"), "person", "admin:auth_user_changelist", roles.ACCOUNTS),
        (_("Roles"), "badge", "admin:auth_group_changelist", roles.ROLES),
    ]
    links = [
        {"title": title, "icon": icon, "link": reverse(name)}
        for title, icon, name, permission in items
        if permission is None or roles.allow(request, permission)
    ]
    return [{"items": links}]
