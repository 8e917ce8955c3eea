"""The console's pages for conversations."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, cast

from bson import ObjectId
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.exceptions import BadRequest, PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.http.response import HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.admin import ModelAdmin

from conversation_service.errors import Message, ServiceError
from conversation_service.mongodb.connection import Document
from conversations import documents, history, states
from conversations.admin import actions, export, roles, timeline
from conversations.admin.actions import ACTIONS, Action
from conversations.admin.changelist import ReadOnlyPage, UncountedChangeList, time_cell
from conversations.declaration import Declaration
from conversations.exceptions import ConversationNotFound, RevisionExpired, RevisionNotFound
from conversations.models import Conversation, Hold
from conversations.queries import lookup
from conversations.querysets import ConversationQuerySet

_URL = "conversations_conversation"
EXPORTS: dict[str, tuple[Message, Callable[[Iterable[Conversation]], HttpResponseBase]]] = {
    "export_csv": (_("Export as CSV"), export.as_csv),
    "export_ndjson": (_("Export as NDJSON"), export.as_ndjson),
}


class ConversationChangeList(UncountedChangeList):
    def get_queryset(self, request: HttpRequest, *excluded: Any) -> ConversationQuerySet:
        return cast(ConversationQuerySet, super().get_queryset(request, *excluded)).for_list()


class HoldFilter(admin.SimpleListFilter):
    title = _("legal hold")
    parameter_name = "held"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("yes", _("Legal hold"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        if self.value() != "yes":
            return queryset
        return cast(ConversationQuerySet, queryset).held()


@admin.register(Conversation)
class ConversationAdmin(ReadOnlyPage, ModelAdmin):  # type: ignore[misc]  # unfold has no types
    """Find conversations, and act on them as their users can.

    Only staff can place and see a legal hold, which prevents a purge. The log records each action
    and each view.
    """

    list_title = _("Conversations")
    change_list = ConversationChangeList
    list_display = [
        *("named", "user", "character", "state"),
        *("messages_sent", "last_active", "created"),
    ]
    list_filter = ["status", HoldFilter]
    list_fullwidth = True
    show_facets = admin.ShowFacets.NEVER
    # Django shows the search box; get_search_results searches.
    search_fields = ["user_id"]
    search_help_text = _("A conversation id, a user id, or the start of a title")

    # The list

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet, search_term: str
    ) -> tuple[QuerySet, bool]:
        """Search by index. Django's own search scans with a regular expression."""
        term = search_term.strip()
        found = cast(ConversationQuerySet, queryset).found_by(term) if term else queryset
        return found, False

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        context = {
            "selection_note_all": _("All matching conversations are selected"),
            "action_limit": timeline.shown(actions.LIMIT),
        }
        return super().changelist_view(request, context | (extra_context or {}))

    @admin.display(description=_("title"))
    def named(self, row: Conversation) -> SafeString:
        return format_html('<span class="c-title" title="{0}">{0}</span>', row.title)

    @admin.display(description=_("user id"))
    def user(self, row: Conversation) -> SafeString:
        return _cut(row.user_id)

    @admin.display(description=_("character id"))
    def character(self, row: Conversation) -> SafeString:
        return _cut(row.character_id)

    @admin.display(description=_("state"))
    def state(self, row: Any) -> SafeString:
        badge = '<span class="c-badge c-{}">{}</span>'
        state = format_html(badge, row.status, row.get_status_display())
        if row.hold is None:
            return state
        return format_html("{} {}", state, format_html(badge, "held", _("Legal hold")))

    @admin.display(description=_("messages"))
    def messages_sent(self, row: Any) -> SafeString:
        count = timeline.shown(row.message_count or 0)
        return format_html('<span class="c-number">{}</span>', count)

    @admin.display(description=_("last activity (UTC)"))
    def last_active(self, row: Any) -> SafeString:
        return time_cell(row.last_activity)

    @admin.display(description=_("created (UTC)"))
    def created(self, row: Any) -> SafeString:
        return time_cell(row.created_at)

    # One conversation

    def get_urls(self) -> list[URLPattern]:
        act = self.admin_site.admin_view(self.act_view)
        revert = self.admin_site.admin_view(self.revert_view)
        return [
            path("<path:object_id>/act/<slug:name>/", act, name=f"{_URL}_act"),
            path("<path:object_id>/revert/<int:version>/", revert, name=f"{_URL}_revert"),
            *super().get_urls(),
        ]

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show a conversation and record the view."""
        if object_id is None or request.method == "POST" or not self.has_view_permission(request):
            raise PermissionDenied
        try:
            conversation, document = self._read(request, object_id)
        except Http404:
            response: HttpResponse = self._get_obj_does_not_exist_redirect(
                request, self.opts, object_id
            )
            return response
        actions.record(request, [conversation], "Viewed.")
        metadata = document["metadata"]
        hold_fields = Hold._meta.concrete_fields if conversation.hold else []
        return self._page(
            request,
            "console/conversation.html",
            conversation,
            title=conversation.title,
            settings=[
                *_lines(document["settings"]),
                *_rows(documents.FIELDS, document, ["settings_given"]),
            ],
            custom=_lines(document["custom"]),
            hold=[
                (field.verbose_name, timeline.shown(getattr(conversation.hold, field.name)))
                for field in hold_fields
            ],
            plain=_rows(documents.FIELDS, document, documents.PLAIN_FIELDS),
            counters=_rows(documents.METADATA, metadata, documents.COUNTERS),
            times=[
                *_rows(documents.METADATA, metadata, documents.METADATA_TIMES),
                *_rows(documents.FIELDS, document, documents.PUBLIC_TIMES),
            ],
            entries=timeline.history_entries(document),
            oldest=history.oldest_version(document),
            may_revert=conversation.status in states.EDITABLE
            and roles.allow(request, roles.REVERT),
            may_read_log=roles.allow(request, roles.LOG),
            offered=[
                action
                for action in ACTIONS.values()
                if action.is_offered(conversation) and roles.allow(request, action.permission)
            ],
        )

    def act_view(self, request: HttpRequest, object_id: str, name: str) -> HttpResponse:
        """Confirm an action, then perform it."""
        if name not in ACTIONS:
            raise Http404
        action = ACTIONS[name]
        _require(request, roles.LOOK, action.permission)
        conversation, _document = self._read(request, object_id)
        reason = _reason(request)
        if request.method != "POST" or (action.needs_reason and not reason):
            return self._page(
                request,
                "console/confirm.html",
                conversation,
                title=action.label,
                action=action,
                reason_missing=request.method == "POST",
                reason_length=actions.REASON_LENGTH,
            )
        act = partial(actions.perform, request, action, conversation, reason)
        return self._done(request, conversation, action.done, act)

    def revert_view(self, request: HttpRequest, object_id: str, version: int) -> HttpResponse:
        """Show a revert's changes, then revert as the API does."""
        _require(request, roles.LOOK, roles.REVERT)
        conversation, document = self._read(request, object_id)
        try:
            then = history.as_of(document, version)
        except (RevisionNotFound, RevisionExpired) as refused:
            raise Http404(refused.message) from None
        if request.method != "POST":
            return self._page(
                request,
                "console/revert.html",
                conversation,
                title=gettext("Revert to version %(n)s") % {"n": version},
                version=version,
                differences=timeline.reverting(document, then),
            )

        revert = partial(actions.revert, request, conversation, then)
        return self._done(request, conversation, _("Reverted"), revert)

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Redirect to this conversation's log."""
        _require(request, roles.LOOK, roles.LOG)
        url = reverse("admin:admin_logentry_changelist", query={"q": object_id})
        return HttpResponseRedirect(url)

    def _read(self, request: HttpRequest, object_id: str) -> tuple[Conversation, Document]:
        """Return a conversation from the ORM, and its document with history. Raises Http404."""
        conversation = self.get_object(request, object_id)
        if conversation is None:
            raise Http404
        try:
            return conversation, lookup.with_history(conversation.user_id, str(conversation.pk))
        except ConversationNotFound:  # purged between the two reads
            raise Http404 from None

    def _page(
        self, request: HttpRequest, template: str, conversation: Conversation, **context: Any
    ) -> TemplateResponse:
        request.current_app = self.admin_site.name
        context |= {"opts": self.opts, "conversation": conversation}
        return TemplateResponse(request, template, self.admin_site.each_context(request) | context)

    def _done(
        self,
        request: HttpRequest,
        conversation: Conversation,
        done: Message,
        act: Callable[[], bool],
    ) -> HttpResponse:
        try:
            acted = act()
        except ServiceError as refused:
            self.message_user(request, str(refused.message), messages.ERROR)
        else:
            said = f"{done}." if acted else gettext("There was nothing to change.")
            self.message_user(request, said, messages.SUCCESS if acted else messages.INFO)
        return HttpResponseRedirect(reverse(f"admin:{_URL}_change", args=[conversation.pk]))

    # Many at once

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        """Return the bulk actions that the roles allow, without Django's own."""
        offered: dict[str, Any] = {}
        for name, action in ACTIONS.items():
            if roles.allow(request, roles.BULK, action.permission):
                act = partial(ConversationAdmin.act_on_all, action=action)
                offered[name] = (act, name, action.label)
        if roles.allow(request, roles.EXPORT):
            for name, (label, _write) in EXPORTS.items():
                offered[name] = (partial(ConversationAdmin.export_all, name=name), name, label)
        return offered

    def response_action(
        self, request: HttpRequest, queryset: QuerySet, *location: Any
    ) -> HttpResponse | None:
        if not all(map(ObjectId.is_valid, request.POST.getlist(ACTION_CHECKBOX_NAME))):
            raise BadRequest("A selected id is not an id.")
        response: HttpResponse | None = super().response_action(request, queryset, *location)
        return response

    def act_on_all(
        self, request: HttpRequest, chosen: QuerySet, *, action: Action
    ) -> HttpResponse | None:
        """Confirm an action on the selection, then perform it."""
        rows = list(chosen[: actions.LIMIT + 1])
        if len(rows) > actions.LIMIT:
            refusal = gettext(
                "More than %(limit)s conversations match, too many for one action. Nothing was "
                "changed: narrow the list by a search or a filter."
            )
            limit = timeline.shown(actions.LIMIT)
            self.message_user(request, refusal % {"limit": limit}, messages.ERROR)
            return None

        reason = _reason(request)
        confirmed = "confirmed" in request.POST
        if not confirmed or (action.needs_reason and not reason):
            return self._page(
                request,
                "console/confirm_all.html",
                Conversation(),
                title=action.label,
                action=action,
                count=len(rows),
                sample=rows[:10],
                selected=request.POST.getlist(ACTION_CHECKBOX_NAME),
                select_across=request.POST.get("select_across", "0"),
                reason_missing=confirmed,
                reason_length=actions.REASON_LENGTH,
            )
        vanished = 0
        if request.POST.get("select_across") != "1":
            vanished = len(set(request.POST.getlist(ACTION_CHECKBOX_NAME))) - len(rows)
        summary = actions.perform_all(request, action, rows, reason, vanished)
        level = messages.WARNING if summary.unchanged else messages.SUCCESS
        self.message_user(request, str(summary), level)
        return None

    def export_all(self, request: HttpRequest, chosen: QuerySet, *, name: str) -> HttpResponseBase:
        """Export the selection. It is read first: a slow client could exceed the time limit."""
        _label, write = EXPORTS[name]
        rows = list(chosen[: export.LIMIT])
        query = request.META.get("QUERY_STRING") or "no filter"
        kind = name.removeprefix("export_").upper()
        actions.record(request, [Conversation()], f"Exported {len(rows)} as {kind} ({query}).")
        return write(rows)


def _require(request: HttpRequest, *permissions: str) -> None:
    if not roles.allow(request, *permissions):
        raise PermissionDenied


def _reason(request: HttpRequest) -> str:
    return request.POST.get("reason", "").strip()[: actions.REASON_LENGTH]


def _rows(
    fields: Mapping[str, Declaration], values: dict[str, Any], names: Iterable[str]
) -> list[tuple[str, str]]:
    return [(str(fields[n].field.verbose_name), timeline.shown(values[n])) for n in names]


def _lines(values: dict[str, Any]) -> list[tuple[str, str]]:
    return [(name, timeline.shown(value)) for name, value in values.items()]


def _cut(external_id: str) -> SafeString:
    return format_html('<span class="c-id" title="{0}">{0}</span>', external_id)
