"""The staff's action log, read-only."""

from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from unfold.admin import ModelAdmin

from conversations.admin import actions
from conversations.admin.changelist import ReadOnlyPage, time_cell
from conversations.admin.timeline import EMPTY
from conversations.models import Conversation


@admin.register(LogEntry)
class LogAdmin(ReadOnlyPage, ModelAdmin):  # type: ignore[misc]  # unfold has no types
    list_title = _("Action log")
    list_display = ["at", "staff", "action", "target"]
    list_display_links = None
    search_fields = ["object_id"]
    search_help_text = _("The id of an object, or a user name")

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        # Not select_related(): the join would precede the limit and read the whole log.
        found: QuerySet = super().get_queryset(request)
        return found.prefetch_related("user", "content_type")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet, search_term: str
    ) -> tuple[QuerySet, bool]:
        """Filter by the staff user, or else by the target's id; both have an index."""
        term = search_term.strip()
        if not term:
            return queryset, False
        user = User.objects.filter(username=term).first()
        return queryset.filter(user=user) if user else queryset.filter(object_id=term), False

    @admin.display(description=_("time (UTC)"))
    def at(self, entry: LogEntry) -> SafeString:
        return time_cell(entry.action_time, "seconds")

    @admin.display(description=_("actor"))
    def staff(self, entry: LogEntry) -> str:
        return entry.user.get_username()

    @admin.display(description=_("action"))
    def action(self, entry: LogEntry) -> str:
        return actions.in_words(entry.get_change_message())

    @admin.display(description=_("object"))
    def target(self, entry: LogEntry) -> SafeString | str:
        kind = entry.content_type and entry.content_type.model_class()
        if not kind or not entry.object_id:
            return EMPTY
        name = f"admin:{kind._meta.app_label}_{kind._meta.model_name}"
        if kind is Conversation and entry.object_id != entry.object_repr:  # runs.record_user
            url = reverse(f"{name}_changelist", query={"user": entry.object_id})
        else:
            url = reverse(f"{name}_change", args=[entry.object_id])
        return format_html('<a class="c-link" href="{}">{}</a>', url, entry.object_repr)
