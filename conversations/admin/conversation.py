"""The console's pages for conversations."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial, wraps
from types import SimpleNamespace
from typing import Any, cast

from bson import ObjectId
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.exceptions import DisallowedModelAdminLookup
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.views.main import ORDER_VAR
from django.core import signing
from django.core.exceptions import BadRequest, PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.http.response import HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.functional import cached_property
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.admin import ModelAdmin

from conversation_service.errors import Message, ServiceError
from conversation_service.http.cursors import ListCursor
from conversation_service.mongodb.connection import Document
from conversations import documents, history, states
from conversations.admin import actions, export, roles, runs, timeline, undo
from conversations.admin.actions import ACTIONS, Action
from conversations.admin.changelist import CURSOR, ReadOnlyPage, UncountedChangeList, time_cell
from conversations.admin.filters import FilterForm, ids_in, with_user, without_blanks
from conversations.admin.runs import Run
from conversations.declaration import Declaration
from conversations.exceptions import ConversationNotFound, RevisionExpired, RevisionNotFound
from conversations.models import Conversation, Hold
from conversations.queries import lookup, staff
from conversations.querysets import ConversationQuerySet

_URL = "conversations_conversation"
_LIST = f"admin:{_URL}_changelist"
TOO_SLOW = "The search was stopped because it took too long."
SAMPLE = 10  # conversations that a confirmation names
EXPORTS: dict[str, tuple[Message, Callable[[Iterable[Conversation]], HttpResponseBase]]] = {
    "export_csv": (_("Export as CSV"), export.as_csv),
    "export_ndjson": (_("Export as NDJSON"), export.as_ndjson),
}
# As an Action in the confirmation.
EXPORT_ALL = SimpleNamespace(
    label=_("Export everything"),
    question=_("Export all conversations of this user with their histories, as the API does?"),
    variant="default",
)


def _within_budget(view: Any) -> Any:
    """Redirect to the list with a message if a query takes too long."""

    @wraps(view)
    def bounded(self: Any, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        try:
            return view(self, request, *args, **kwargs)
        except staff.QueryTooSlow:
            self.message_user(request, gettext(TOO_SLOW), messages.ERROR)
            return HttpResponseRedirect(f"{reverse(_LIST)}?{request.GET.urlencode()}")

    return bounded


class ConversationChangeList(UncountedChangeList):
    """Reads its page by queries/staff.py. The queryset only loads the rows, by their ids."""

    took_too_long = False

    def get_filters(self, request: HttpRequest) -> Any:
        self.form = FilterForm(request.GET)
        self.form.is_valid()
        unknown = self.get_filters_params().keys() - self.form.fields.keys() - {CURSOR}
        if unknown:
            raise DisallowedModelAdminLookup(f"Filtering by {min(unknown)} not allowed")
        self.filter_params.pop(CURSOR, None)
        return [], False, {}, False, bool(self.form.changed_data)

    @cached_property
    def searched(self) -> dict[str, Any]:
        return self.form.filters() if self.form.is_valid() else {}

    @cached_property
    def not_found(self) -> list[tuple[str, timeline.Tombstone | None]]:
        """The ids in the search box that no row has, with their tombstones."""
        found = {str(row.pk) for row in self.result_list}
        ids = [id_ for id_ in ids_in(self.form.data.get("q", "")) if id_ not in found]
        if not ids or (found and "ids" not in self.searched):
            return []
        purged = staff.tombstones_by_id(ids)
        tombstones = {id_: timeline.tombstone(row) for id_, row in purged.items()}
        return [(id_, tombstones.get(id_)) for id_ in ids]

    @property
    def purged(self) -> list[timeline.Tombstone]:
        """The filtered user's tombstones, on the first page only."""
        if "user_id" not in self.searched or self.first_page:
            return []
        return [*map(timeline.tombstone, staff.tombstones(self.searched["user_id"]))]

    def get_queryset(self, request: HttpRequest, *excluded: Any) -> ConversationQuerySet:
        self.filter_specs, self.has_filters, *_others = self.get_filters(request)
        return cast(ConversationQuerySet, self.root_queryset).for_list()

    @property
    def sort(self) -> staff.Sort:
        """`?o=` if an index has this order, or else the newest first."""
        order = self.params.get(ORDER_VAR, "")
        if order.removeprefix("-") in staff.sorts(self.searched):
            return staff.Sort(order.removeprefix("-"), ascending=not order.startswith("-"))
        if "title" in self.searched:
            return staff.Sort("title", ascending=True)
        return staff.Sort("created_at", ascending=False)

    def get_ordering_field_columns(self) -> dict[int, str]:
        columns = [self.get_ordering_field(column) for column in self.list_display]
        name, ascending = self.sort
        return {columns.index(name): "asc" if ascending else "desc"} if name in columns else {}

    def get_query_string(
        self, new_params: dict[str, Any] | None = None, remove: list[str] | None = None
    ) -> str:
        """Put the column's name in `o`: its number is higher for roles with checkboxes."""
        new_params = {**(new_params or {})}
        if ORDER_VAR in new_params:
            first, *_others = new_params[ORDER_VAR].split(".")
            sign = "-" if first.startswith("-") else ""
            column = first.removeprefix("-")
            name = self.get_ordering_field(self.list_display[int(column)]) if column else None
            new_params[ORDER_VAR] = f"{sign}{name}" if name else None
        text: str = super().get_query_string(new_params, remove)
        return text

    def read_page(
        self, cursor: ListCursor | None
    ) -> tuple[list[Any], ListCursor | None, ListCursor | None]:
        if not self.form.is_valid():
            return [], None, None
        try:
            ids, previous, following = staff.page(
                self.searched, self.sort, cursor, limit=self.list_per_page
            )
        except staff.QueryTooSlow:
            self.took_too_long = True
            return [], None, None
        rows = self.queryset.in_bulk(ids)
        return [rows[id_] for id_ in ids if id_ in rows], previous, following


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
    list_before_template = "console/find.html"
    list_after_template = "console/purged.html"
    list_fullwidth = True

    # The list

    def get_sortable_by(self, request: HttpRequest) -> list[str]:
        """Last activity has an index order only within one user."""
        return ["named", "created", *(["last_active"] if request.GET.get("user") else [])]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        request.GET = with_user(request.GET)  # type: ignore[assignment]
        if request.method == "GET" and (kept := without_blanks(request.GET)) != request.GET:
            return HttpResponseRedirect(f"?{kept.urlencode()}")
        context = {
            "offered_for_all": [
                action
                for action in ACTIONS.values()
                if roles.allow(request, roles.BULK, action.permission)
            ],
            "may_export": roles.allow(request, roles.EXPORT),
            "selection_note_all": _("All matching conversations are selected"),
            "action_limit": timeline.shown(actions.LIMIT),
        }
        return super().changelist_view(request, context | (extra_context or {}))

    @admin.display(description=_("title"), ordering="title")
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

    @admin.display(description=_("last activity (UTC)"), ordering="last_activity")
    def last_active(self, row: Any) -> SafeString:
        return time_cell(row.last_activity)

    @admin.display(description=_("created (UTC)"), ordering="created_at")
    def created(self, row: Any) -> SafeString:
        return time_cell(row.created_at)

    # One conversation

    def get_urls(self) -> list[URLPattern]:
        staff_only = self.admin_site.admin_view
        act, revert = staff_only(self.act_view), staff_only(self.revert_view)
        return [
            path("all/export/", staff_only(self.export_user_view), name=f"{_URL}_export_user"),
            path("all/<slug:name>/", staff_only(self.all_view), name=f"{_URL}_all"),
            path("undo/", staff_only(self.undo_view), name=f"{_URL}_undo"),
            path("run/", staff_only(self.run_view), name=f"{_URL}_run"),
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
            return self._gone(request, object_id)
        actions.record(request, [conversation], actions.VIEWED)
        metadata = document["metadata"]
        hold = conversation.hold
        times = [name for name in documents.PUBLIC_TIMES if not (hold and name == "purge_at")]
        hold_fields = Hold._meta.concrete_fields if hold else []
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
                (field.verbose_name, timeline.shown(getattr(hold, field.name)))
                for field in hold_fields
                if not field.primary_key
            ],
            plain=_rows(documents.FIELDS, document, documents.PLAIN_FIELDS),
            counters=_rows(documents.METADATA, metadata, documents.COUNTERS),
            times=[
                *_rows(documents.METADATA, metadata, documents.METADATA_TIMES),
                *_rows(documents.FIELDS, document, times),
            ],
            entries=timeline.history_entries(document),
            staff_actions=actions.staff_actions(str(conversation.pk)),
            character_status=timeline.in_words("character_status", conversation.character_status),
            character_note=timeline.CHARACTER_NOTES.get(conversation.character_status, ""),
            oldest=history.oldest_version(document),
            oldest_at=timeline.oldest_at(document),
            may_revert=conversation.status in states.EDITABLE
            and roles.allow(request, roles.REVERT),
            may_read_log=roles.allow(request, roles.LOG),
            offered=[
                action
                for action in ACTIONS.values()
                if action.is_offered(conversation) and roles.allow(request, action.permission)
            ],
        )

    def _gone(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Show a purged conversation's tombstone with status 410, or 404 without a tombstone."""
        tombstone = staff.tombstones_by_id([object_id]).get(object_id.lower())
        if tombstone:
            actions.record(request, [Conversation(pk=tombstone["_id"])], actions.VIEWED)
        context = {
            "title": gettext("Purged conversation") if tombstone else gettext("No conversation"),
            "sought_id": object_id,
            "is_id": ObjectId.is_valid(object_id),
            "tombstone": tombstone and timeline.tombstone(tombstone),
            "kept_days": settings.TOMBSTONE_DAYS,
            "staff_actions": actions.staff_actions(object_id),
        }
        response = self._page(request, "console/gone.html", Conversation(), **context)
        response.status_code = 410 if tombstone else 404
        return response

    def act_view(self, request: HttpRequest, object_id: str, name: str) -> HttpResponse:
        """Confirm an action, then perform it."""
        if name not in ACTIONS:
            raise Http404
        action = ACTIONS[name]
        roles.require(request, roles.LOOK, action.permission)
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
        roles.require(request, roles.LOOK, roles.REVERT)
        conversation, document = self._read(request, object_id)
        try:
            then = history.as_of(document, version)
        except (RevisionNotFound, RevisionExpired) as refused:
            self.message_user(request, str(refused.message), messages.ERROR)
            return HttpResponseRedirect(reverse(f"admin:{_URL}_change", args=[object_id]))
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
        roles.require(request, roles.LOOK, roles.LOG)
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

    @_within_budget
    def response_action(
        self, request: HttpRequest, queryset: QuerySet, *location: Any
    ) -> HttpResponse | None:
        """Act on the selected conversations that the list still has, or on all that it has."""
        selected = request.POST.getlist(ACTION_CHECKBOX_NAME)
        action = request.POST.get("action", "")
        form = FilterForm(request.GET)
        if not form.is_valid() or not all(map(ObjectId.is_valid, selected)):
            raise BadRequest("A selected id or a filter is invalid.")
        if request.POST.get("select_across") == "1":
            if action in ACTIONS and form.cleaned_data["user"] and "confirmed" not in request.POST:
                query = request.GET.urlencode()
                return HttpResponseRedirect(
                    f"{reverse(f'admin:{_URL}_all', args=[action])}?{query}"
                )
            newest_first = staff.Sort("created_at", ascending=False)
            ids, *_ = staff.page(form.filters(), newest_first, None, limit=export.LIMIT)
        else:
            ids = staff.matching_ids(form.filters(), [*map(ObjectId, selected)])
        chosen = queryset.filter(pk__in=ids).order_by("-pk")
        response: HttpResponse | None = super().response_action(request, chosen, *location)
        return response

    @_within_budget
    def all_view(self, request: HttpRequest, name: str) -> HttpResponse:
        """Confirm an action on all a user's conversations in a list, then start its run."""
        if name not in ACTIONS:
            raise Http404
        action = ACTIONS[name]
        roles.require(request, roles.LOOK, roles.BULK, action.permission)
        filters = runs.targets(action, _filters_with_user(request))
        count = staff.count(filters)
        reason = _reason(request)
        if request.method != "POST" or (action.needs_reason and not reason):
            return self._confirm_all(request, action, filters, count)
        run = Run(str(request.user.pk), name, request.GET.urlencode(), reason, total=count)
        return HttpResponseRedirect(reverse(f"admin:{_URL}_run", query={"run": run.encode()}))

    @_within_budget
    def export_user_view(self, request: HttpRequest) -> HttpResponseBase:
        """Confirm a user's export, then send it."""
        roles.require(request, roles.LOOK, roles.EXPORT)
        user_id = _filters_with_user(request)["user_id"]
        count = staff.count({"user_id": user_id})
        if request.method != "POST":
            return self._confirm_all(request, EXPORT_ALL, {"user_id": user_id}, count)
        try:
            response = export.whole_user(user_id)
        except ServiceError as refused:
            self.message_user(request, str(refused.message), messages.ERROR)
            return HttpResponseRedirect(f"{reverse(_LIST)}?{request.GET.urlencode()}")
        actions.record_user(request, user_id, actions.EXPORTED_ALL, n=count)
        return response

    def _confirm_all(
        self,
        request: HttpRequest,
        action: Action | SimpleNamespace,
        filters: dict[str, Any],
        count: int,
    ) -> HttpResponse:
        newest_first = staff.Sort("created_at", ascending=False)
        ids, *_cursors = staff.page(filters, newest_first, None, limit=SAMPLE)
        return self._page(
            request,
            "console/confirm_all.html",
            Conversation(),
            title=action.label,
            action=action,
            count=count,
            states=[states.LABELS[state] for state in filters.get("states", [])],
            sample=Conversation.objects.filter(pk__in=ids).for_list().order_by("-pk"),
            user_id=filters["user_id"],
            obstacle=undo.obstacle(action, count) if isinstance(action, Action) else "",
            back=f"{reverse(_LIST)}?{request.GET.urlencode()}",
            reason_missing=request.method == "POST",
            reason_length=actions.REASON_LENGTH,
        )

    def run_view(self, request: HttpRequest) -> HttpResponse:
        """Show a run's progress; a POST performs its next step."""
        try:
            run = Run.decode(request)
        except signing.BadSignature:
            refusal = gettext(
                "This run belongs to another account, is too old, or was started by another "
                "release. Repeat the action: it continues where the run ended."
            )
            self.message_user(request, refusal, messages.WARNING)
            return HttpResponseRedirect(reverse(_LIST))
        roles.require(request, roles.LOOK, roles.BULK, ACTIONS[run.action].permission)
        back = f"{reverse(_LIST)}?{run.query}"
        if request.method != "POST":
            return self._page(
                request,
                "console/run.html",
                Conversation(),
                title=ACTIONS[run.action].label,
                action=ACTIONS[run.action],
                run=run,
                back=back,
            )
        if run.step(request):
            return HttpResponseRedirect(reverse(f"admin:{_URL}_run", query={"run": run.encode()}))
        level = messages.WARNING if run.unchanged else messages.SUCCESS
        said = format_html("{}{}", str(run.summary), undo.button(request, run.id, run.changed))
        self.message_user(request, said, level)
        return HttpResponseRedirect(back)

    def act_on_all(
        self, request: HttpRequest, chosen: QuerySet, *, action: Action
    ) -> HttpResponse | None:
        """Confirm an action on the selection, then perform it."""
        rows = list(chosen[: actions.LIMIT + 1])
        if len(rows) > actions.LIMIT:
            refusal = gettext(
                "More than %(limit)s conversations match, too many for one action. Nothing was "
                "changed: narrow the list, or filter it by a user, which has no such limit."
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
                sample=rows[:SAMPLE],
                obstacle=undo.obstacle(action, len(rows)),
                back=request.get_full_path(),
                selected=request.POST.getlist(ACTION_CHECKBOX_NAME),
                select_across=request.POST.get("select_across", "0"),
                reason_missing=confirmed,
                reason_length=actions.REASON_LENGTH,
            )
        vanished = 0
        if request.POST.get("select_across") != "1":
            vanished = len(set(request.POST.getlist(ACTION_CHECKBOX_NAME))) - len(rows)
        summary, changed = actions.perform_all(request, action, rows, reason, vanished=vanished)
        token = str(ObjectId())
        undo.remember(request, action, changed, request.GET.urlencode(), token=token)
        level = messages.WARNING if summary.unchanged else messages.SUCCESS
        said = format_html("{}{}", str(summary), undo.button(request, token, summary.changed))
        self.message_user(request, said, level)
        return None

    def undo_view(self, request: HttpRequest) -> HttpResponse:
        """Undo the last action on many conversations, by a POST from its message."""
        if request.method != "POST":
            raise Http404
        roles.require(request, roles.LOOK, roles.BULK)
        summary, query = undo.undo(request)
        if summary is None:
            self.message_user(request, gettext("This can no longer be undone."), messages.WARNING)
        else:
            level = messages.WARNING if summary.unchanged else messages.SUCCESS
            self.message_user(request, str(summary), level)
        return HttpResponseRedirect(f"{reverse(_LIST)}?{query}")

    def export_all(self, request: HttpRequest, chosen: QuerySet, *, name: str) -> HttpResponseBase:
        """Export the selection. It is read first: a slow client could exceed the time limit."""
        _label, write = EXPORTS[name]
        rows = list(chosen[: export.LIMIT])
        query = request.META.get("QUERY_STRING") or actions.NO_FILTER
        kind = name.removeprefix("export_").upper()
        message = actions.in_english(actions.EXPORTED, n=len(rows), kind=kind, query=query)
        actions.record(request, [Conversation()], message)
        return write(rows)


def _filters_with_user(request: HttpRequest) -> dict[str, Any]:
    form = FilterForm(request.GET)
    if not form.is_valid() or "user_id" not in (filters := form.filters()):
        raise BadRequest("An action on all conversations needs a valid list of one user.")
    return filters


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
