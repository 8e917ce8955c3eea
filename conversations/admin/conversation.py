"""The console's pages for conversations."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import partial
from typing import Any, cast

from bson import ObjectId
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import BadRequest, PermissionDenied
from django.db.models import Field, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.http.response import HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.admin import ModelAdmin

from conversation_service.errors import Message, ServiceError
from conversation_service.http.actor import Actor
from conversation_service.mongodb.connection import Document
from conversations import documents, history, states
from conversations.admin import actions, export, roles, timeline
from conversations.admin.actions import ACTIONS, Action
from conversations.admin.changelist import UncountedChangeList
from conversations.declaration import Declaration
from conversations.exceptions import ConversationNotFound, RevisionExpired, RevisionNotFound
from conversations.models import Conversation, Hold
from conversations.queries import lookup
from conversations.querysets import ConversationQuerySet
from conversations.writes import edits
from conversations.writes.writer import apply_to_one

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
class ConversationAdmin(ModelAdmin):  # type: ignore[misc]  # unfold has no types
    """Find conversations, and act on them as their users can.

    Only staff can place and see a legal hold, which prevents a purge. The log records each action
    and each view.
    """

    list_display = [
        "named",
        "user",
        "character",
        "state",
        "messages_sent",
        "last_active",
        "created",
    ]
    list_filter = ["status", HoldFilter]
    list_before_template = "console/filters.html"
    list_fullwidth = True
    list_per_page = 50
    sortable_by = ()
    show_facets = admin.ShowFacets.NEVER
    show_full_result_count = False
    # Django shows the search box; get_search_results searches.
    search_fields = ["user_id"]
    search_help_text = _("A conversation id, a user id, or the start of a title")

    # The list

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Conversation | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Conversation | None = None) -> bool:
        return False

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Reject other filters in an address: they have no index."""
        return lookup in {"status__exact", HoldFilter.parameter_name}

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return ConversationChangeList

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
            "title": _("Conversations"),
            "selection_note_all": _("All matching conversations are selected"),
            "action_limit": timeline.shown(actions.LIMIT),
        }
        response: HttpResponse = super().changelist_view(request, context | (extra_context or {}))
        return response

    @admin.display(description=_("title"))
    def named(self, row: Conversation) -> SafeString:
        return format_html('<span class="c-title">{}</span>', row.title)

    @admin.display(description=_("user id"))
    def user(self, row: Conversation) -> SafeString:
        return _cut(row.user_id)

    @admin.display(description=_("character id"))
    def character(self, row: Conversation) -> SafeString:
        return _cut(row.character_id)

    @admin.display(description=_("state"))
    def state(self, row: Any) -> SafeString:
        held = row.hold is not None
        mark = (
            format_html(' <span class="c-badge c-held">{}</span>', _("Legal hold")) if held else ""
        )
        return format_html(
            '<span class="c-badge c-{}">{}</span>{}', row.status, row.get_status_display(), mark
        )

    @admin.display(description=_("messages"))
    def messages_sent(self, row: Any) -> SafeString:
        return format_html(
            '<span class="c-number">{}</span>', timeline.shown(row.message_count or 0)
        )

    @admin.display(description=_("last activity (UTC)"))
    def last_active(self, row: Any) -> SafeString:
        return _minute(row.last_activity)

    @admin.display(description=_("created (UTC)"))
    def created(self, row: Any) -> SafeString:
        return _minute(row.created_at)

    # One conversation

    def get_urls(self) -> list[URLPattern]:
        own = [
            path(
                "<path:object_id>/act/<slug:name>/",
                self.admin_site.admin_view(self.act_view),
                name="conversations_conversation_act",
            ),
            path(
                "<path:object_id>/revert/<int:version>/",
                self.admin_site.admin_view(self.revert_view),
                name="conversations_conversation_revert",
            ),
        ]
        return [*own, *super().get_urls()]

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
        conversation, document = self._read(object_id)
        if document is None:
            response: HttpResponse = self._get_obj_does_not_exist_redirect(
                request, self.opts, object_id
            )
            return response
        actions.record(request, [conversation], "Viewed.")
        entries = timeline.history_entries(document)
        hold = []
        if conversation.hold:
            for field in Hold._meta.get_fields():
                value = timeline.shown(getattr(conversation.hold, field.name))
                hold.append((str(cast(Field, field).verbose_name), value))
        may_revert = roles.allow(request, roles.REVERT) and conversation.status in states.EDITABLE
        return self._page(
            request,
            "console/conversation.html",
            conversation,
            title=conversation.title,
            status=conversation.get_status_display(),
            settings=_lines(document["settings"]),
            custom=_lines(document["custom"]),
            hold=hold,
            plain=_rows(documents.FIELDS, document, documents.PLAIN_FIELDS),
            counters=_rows(documents.METADATA, document["metadata"], documents.COUNTERS),
            times=[
                *_rows(documents.METADATA, document["metadata"], documents.METADATA_TIMES),
                *_rows(documents.FIELDS, document, documents.PUBLIC_TIMES),
            ],
            entries=entries,
            oldest=history.oldest_version(document),
            may_revert=may_revert,
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
        conversation, document = self._read(object_id)
        if document is None:
            raise Http404
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
        return self._done(
            request,
            conversation,
            action.done,
            lambda: actions.perform(request, action, conversation, reason),
        )

    def revert_view(self, request: HttpRequest, object_id: str, version: int) -> HttpResponse:
        """Show a revert's changes, then revert as the API does."""
        _require(request, roles.LOOK, roles.REVERT)
        conversation, document = self._read(object_id)
        if document is None:
            raise Http404
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

        def revert() -> bool:
            result = apply_to_one(
                conversation.user_id,
                str(conversation.pk),
                edits.revert(then, documents.REVERTIBLE_FIELDS),
                actor=Actor.staff(request.user.get_username()),
            )
            if result.written:
                actions.record(request, [conversation], f"Reverted to version {version}.")
            return result.written

        return self._done(request, conversation, _("Reverted"), revert)

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Redirect to this conversation's log."""
        _require(request, roles.LOOK, roles.LOG)
        query = urlencode({"q": object_id})
        return HttpResponseRedirect(f"{reverse('admin:admin_logentry_changelist')}?{query}")

    def _read(self, object_id: str) -> tuple[Conversation, Document | None]:
        """Return a conversation from the ORM, and its document with history or None."""
        found = ObjectId.is_valid(object_id) and self.model.objects.filter(pk=object_id).first()
        if not found:
            return self.model(), None
        try:
            return found, lookup.with_history(found.user_id, str(found.pk))
        except ConversationNotFound:  # purged between the two reads
            return found, None

    def _page(
        self, request: HttpRequest, template: str, conversation: Conversation, **context: Any
    ) -> TemplateResponse:
        request.current_app = self.admin_site.name
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "conversation": conversation,
            "list_url": reverse("admin:conversations_conversation_changelist"),
            "one_url": _url_of(conversation),
            **context,
        }
        return TemplateResponse(request, template, context)

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
        return HttpResponseRedirect(_url_of(conversation))

    # Many at once

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        """Return the bulk actions that the roles allow, without Django's own."""
        offered: dict[str, Any] = {}
        if roles.allow(request, roles.BULK):
            offered |= {
                action.name: (
                    partial(ConversationAdmin.act_on_all, action=action),
                    action.name,
                    action.label,
                )
                for action in ACTIONS.values()
                if roles.allow(request, action.permission)
            }
        if roles.allow(request, roles.EXPORT):
            offered |= {
                name: (partial(ConversationAdmin.export_all, name=name), name, label)
                for name, (label, _write) in EXPORTS.items()
            }
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


def _url_of(conversation: Conversation) -> str:
    return reverse("admin:conversations_conversation_change", args=[conversation.pk])


def _rows(
    fields: Mapping[str, Declaration], values: dict[str, Any], names: Iterable[str]
) -> list[tuple[str, str]]:
    return [(str(fields[n].field.verbose_name), timeline.shown(values[n])) for n in names]


def _lines(values: dict[str, Any]) -> list[tuple[str, str]]:
    return [(name, timeline.shown(value)) for name, value in values.items()]


def _cut(external_id: str) -> SafeString:
    return format_html('<span class="c-id" title="{0}">{0}</span>', external_id)


def _minute(moment: datetime | None) -> SafeString:
    if moment is None:
        return format_html("{}", timeline.EMPTY)
    return format_html('<time class="c-time">{}</time>', f"{moment:%Y-%m-%d %H:%M}")
