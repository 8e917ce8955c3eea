"""The staff's action log, read-only."""

from typing import Any

from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from unfold.admin import ModelAdmin

from conversations.admin.changelist import UncountedChangeList
from conversations.admin.timeline import EMPTY


class LogChangeList(UncountedChangeList):
    def get_queryset(self, request: HttpRequest, *excluded: Any) -> QuerySet:
        # Not select_related(): the join would precede the limit and read the whole log.
        found: QuerySet = super().get_queryset(request, *excluded)
        return found.prefetch_related("user", "content_type")


@admin.register(LogEntry)
class LogAdmin(ModelAdmin):  # type: ignore[misc]  # unfold has no types
    list_display = ["at", "staff", "action", "target"]
    list_display_links = None
    list_per_page = 50
    list_select_related = False
    sortable_by = ()
    show_full_result_count = False
    search_fields = ["object_id"]
    search_help_text = _("The id of a conversation or an account, or a user name")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: LogEntry | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: LogEntry | None = None) -> bool:
        return False

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        return False

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return LogChangeList

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet, search_term: str
    ) -> tuple[QuerySet, bool]:
        """Filter by the staff user, or else by the target's id; both have an index."""
        term = search_term.strip()
        if not term:
            return queryset, False
        user = User.objects.filter(username=term).first()
        return queryset.filter(user=user) if user else queryset.filter(object_id=term), False

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        titled = {"title": _("Action log")} | (extra_context or {})
        response: HttpResponse = super().changelist_view(request, titled)
        return response

    @admin.display(description=_("time (UTC)"))
    def at(self, entry: LogEntry) -> SafeString:
        return format_html(
            '<time class="c-time">{}</time>', f"{entry.action_time:%Y-%m-%d %H:%M:%S}"
        )

    @admin.display(description=_("actor"))
    def staff(self, entry: LogEntry) -> str:
        return entry.user.get_username()

    @admin.display(description=_("action"))
    def action(self, entry: LogEntry) -> str:
        return entry.get_change_message()

    @admin.display(description=_("object"))
    def target(self, entry: LogEntry) -> SafeString | str:
        kind = entry.content_type and entry.content_type.model_class()
        if not kind or not entry.object_id:
            return EMPTY
        name = f"admin:{kind._meta.app_label}_{kind._meta.model_name}_change"
        url = reverse(name, args=[entry.object_id])
        return format_html('<a class="c-link" href="{}">{}</a>', url, entry.object_repr)
