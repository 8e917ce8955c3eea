"""The console: look up, and act through store.change as the API does. Nothing is edited here."""

from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, cast

from bson import ObjectId
from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME, ActionForm
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import BadRequest
from django.core.paginator import Paginator
from django.db.models import Field, QuerySet
from django.db.models.expressions import Combinable
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from conversation_service.errors import Message, ServiceError
from conversation_service.origin import of_staff
from conversations import changes, store
from conversations.changes import Change
from conversations.models import Conversation, Hold, Metadata
from conversations.querysets import ConversationQuerySet

# A page costs the rows before it, so a search is the way to what is further down.
PAGES = 100
# What one action may change: each conversation is two writes, and the browser waits.
ACTION_LIMIT = 1_000
REASON_LENGTH = 500
EMPTY = "-"

COUNTERS = ("message_count", "total_tokens", "total_input_tokens", "total_output_tokens")
CLOCKS = ("created_at", "updated_at", "last_activity", "first_message_at", "last_message_at")
STATE_CLOCKS = ("pinned_at", "archived_at", "deleted_at", "purge_at")


class UncountedChangeList(ChangeList):
    """Tells by one row more than it shows whether others follow, and counts nothing."""

    result_list: list[Conversation]

    def get_ordering(self, request: HttpRequest, queryset: QuerySet) -> list[str | Combinable]:
        """Keep to the order of the indexes: `?o=` in an address would sort a million rows."""
        return ["-pk"]

    def get_queryset(self, request: HttpRequest, *excluded: Any) -> ConversationQuerySet:
        return cast(ConversationQuerySet, super().get_queryset(request, *excluded)).for_list()

    def get_results(self, request: HttpRequest) -> None:
        if not 1 <= self.page_num <= PAGES:
            raise IncorrectLookupParameters
        start = (self.page_num - 1) * self.list_per_page
        rows = list(self.queryset[start : start + self.list_per_page + 1])
        if start and not rows:  # an action has emptied the last page
            self.page_num = 1
            self.get_results(request)
            return

        self.result_list = rows[: self.list_per_page]
        self.first, self.last = start + 1, start + len(self.result_list)
        self.more_follow = len(rows) > self.list_per_page
        self.is_last_page = self.page_num == PAGES
        known = self.last if self.is_last_page else start + len(rows)
        self.paginator = Paginator(range(known), self.list_per_page)
        self.multi_page = self.paginator.num_pages > 1
        self.result_count = self.full_result_count = known
        self.show_full_result_count = self.can_show_all = False
        self.show_admin_actions = bool(rows)


class ReasonedActionForm(ActionForm):
    reason = forms.CharField(label=_("Reason (of a hold or a release)"), required=False)
    reason.widget.attrs["maxlength"] = REASON_LENGTH


@admin.register(Conversation)
class ConversationAdmin(admin.ModelAdmin):
    """Look conversations up, and archive, restore or trash them as their owners could.

    A legal hold is the one thing that owners neither do nor see: it keeps a conversation from
    being purged. Who did it and why is on record here, in the history of the console.

    Nothing is added, edited or deleted here: that would bypass the rules in changes.py.
    """

    list_display = [
        "title",
        "user_id",
        "character_id",
        "status",
        "messages_sent",
        "last_active",
        "created",
    ]
    list_filter = ["status"]
    list_per_page = 50
    sortable_by = ()
    show_facets = admin.ShowFacets.NEVER
    show_full_result_count = False
    # get_search_results decides; Django shows the search box for it.
    search_fields = ["user_id"]
    search_help_text = _("A conversation id, a user id, or how the title begins")
    actions = ["archive", "restore", "trash", "hold", "release"]
    action_form = ReasonedActionForm
    fieldsets = [
        (
            None,
            {
                "fields": [
                    "id",
                    "title",
                    "user_id",
                    "character_id",
                    "character_status",
                    "status",
                    "version",
                ]
            },
        ),
        (_("Content"), {"fields": ["llm_settings", "tag_list", "custom_entries"]}),
        (_("Numbers"), {"fields": ["counters"]}),
        (_("Times"), {"fields": ["clocks"]}),
        (_("Legal hold"), {"fields": ["legal_hold"]}),
    ]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Conversation | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Conversation | None = None) -> bool:
        """Allow actions on the list, but show each conversation read-only."""
        return obj is None and super().has_change_permission(request)

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Refuse whatever else an address may filter by: it has no index."""
        return lookup == "status__exact"

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return UncountedChangeList

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet, search_term: str
    ) -> tuple[QuerySet, bool]:
        """Match what an index serves; Django's own search scans with a regular expression."""
        term = search_term.strip()
        found = cast(ConversationQuerySet, queryset).found_by(term) if term else queryset
        return found, False

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        context = {
            "title": _("Conversations"),
            "selection_note_all": _("All that match are selected"),
            "action_limit": ACTION_LIMIT,
        }
        return super().changelist_view(request, context | (extra_context or {}))

    def response_action(
        self, request: HttpRequest, queryset: QuerySet, *location: Any
    ) -> HttpResponse | None:
        if not all(map(ObjectId.is_valid, request.POST.getlist(ACTION_CHECKBOX_NAME))):
            raise BadRequest("A selected id is not an id.")
        return super().response_action(request, queryset, *location)

    @admin.action(description=_("Archive"), permissions=["change"])
    def archive(self, request: HttpRequest, queryset: QuerySet) -> None:
        self._change_all(request, queryset, changes.ARCHIVE, _("Archived"))

    @admin.action(description=_("Restore"), permissions=["change"])
    def restore(self, request: HttpRequest, queryset: QuerySet) -> None:
        self._change_all(request, queryset, changes.RESTORE, _("Restored"))

    @admin.action(description=_("Move to the trash"), permissions=["change"])
    def trash(self, request: HttpRequest, queryset: QuerySet) -> None:
        self._change_all(request, queryset, changes.trash(), _("Moved to the trash"))

    @admin.action(description=_("Hold: keep from being purged"), permissions=["change"])
    def hold(self, request: HttpRequest, queryset: QuerySet) -> None:
        if reason := self._reason(request):
            by = request.user.get_username()
            self._act_on_all(
                request,
                queryset,
                lambda row: store.hold(row.user_id, str(row.pk), by=by, reason=reason),
                _("Held"),
                reason,
            )

    @admin.action(description=_("Release from a hold"), permissions=["change"])
    def release(self, request: HttpRequest, queryset: QuerySet) -> None:
        if reason := self._reason(request):
            self._act_on_all(
                request,
                queryset,
                lambda row: store.release(row.user_id, str(row.pk)),
                _("Released"),
                reason,
            )

    def _reason(self, request: HttpRequest) -> str:
        """Return the reason that was given, or say that there must be one."""
        reason = request.POST.get("reason", "").strip()[:REASON_LENGTH]
        if not reason:
            refusal = gettext("Give the reason, beside the action. Nothing was changed.")
            self.message_user(request, refusal, messages.ERROR)
        return reason

    def _change_all(
        self, request: HttpRequest, chosen: QuerySet, wanted: Change, done: Message
    ) -> None:
        origin = of_staff(request.user.get_username())

        def change(row: Conversation) -> bool:
            after = store.change(row.user_id, str(row.pk), wanted, origin=origin).document
            return bool(after["version"] != row.version)

        self._act_on_all(request, chosen, change, done)

    def _act_on_all(
        self,
        request: HttpRequest,
        chosen: QuerySet,
        act: Callable[[Conversation], bool],
        done: Message,
        reason: str = "",
    ) -> None:
        """Act on one after the other, each as the API would, and report on all of them.

        `act` returns whether there was anything to do.
        """
        rows = list(chosen[: ACTION_LIMIT + 1])
        if len(rows) > ACTION_LIMIT:
            refusal = gettext(
                "More than %(limit)s conversations match, too many for one action. Nothing was "
                "changed: narrow the list by a search or a filter."
            )
            self.message_user(request, refusal % {"limit": f"{ACTION_LIMIT:,}"}, messages.ERROR)
            return

        changed = 0
        left_alone = Counter({gettext("no longer in this list"): _vanished(request, rows)})
        for row in rows:
            try:
                acted = act(row)
            except ServiceError as refused:
                left_alone[str(refused.message)] += 1
                continue
            if not acted:
                left_alone[gettext("there was nothing to change")] += 1
                continue
            changed += 1
            self.log_change(request, row, f"{done}: {reason}" if reason else f"{done}.")
        self._report(request, done, changed, +left_alone)

    def _report(
        self, request: HttpRequest, done: Message, changed: int, left_alone: Counter[str]
    ) -> None:
        text = ngettext("%(done)s: %(n)s conversation.", "%(done)s: %(n)s conversations.", changed)
        parts = [text % {"done": done, "n": changed}]
        parts += [
            gettext("Left alone: %(n)s (%(why)s).") % {"n": n, "why": why}
            for why, n in left_alone.items()
        ]
        level = messages.WARNING if left_alone else messages.SUCCESS
        self.message_user(request, " ".join(parts), level)

    @admin.display(description=_("messages"))
    def messages_sent(self, row: Any) -> str:
        return f"{row.message_count:,}"

    @admin.display(description=_("last activity (UTC)"))
    def last_active(self, row: Any) -> SafeString:
        return _minute(row.last_activity)

    @admin.display(description=_("created (UTC)"))
    def created(self, row: Any) -> SafeString:
        return _minute(row.created_at)

    @admin.display(description=_("LLM settings"))
    def llm_settings(self, conversation: Conversation) -> SafeString | str:
        return _lines(conversation.settings.items())

    @admin.display(description=_("tags"))
    def tag_list(self, conversation: Conversation) -> str:
        return ", ".join(conversation.tags) or EMPTY

    @admin.display(description=_("custom"))
    def custom_entries(self, conversation: Conversation) -> SafeString | str:
        return _lines(conversation.custom.items())

    @admin.display(description=_("legal hold"))
    def legal_hold(self, conversation: Conversation) -> SafeString | str:
        if (hold := conversation.hold) is None:
            return EMPTY
        values = {"by": hold.by, "reason": hold.reason, "at": _moment(hold.at)}
        return _lines((_label(hold, name), value) for name, value in values.items())

    @admin.display(description=_("counters"))
    def counters(self, conversation: Conversation) -> SafeString | str:
        metadata = conversation.metadata
        return _lines((_label(metadata, name), f"{getattr(metadata, name):,}") for name in COUNTERS)

    @admin.display(description=_("UTC"))
    def clocks(self, conversation: Conversation) -> SafeString | str:
        owners = [(conversation.metadata, CLOCKS), (conversation, STATE_CLOCKS)]
        return _lines(
            (_label(owner, name), _moment(getattr(owner, name)))
            for owner, names in owners
            for name in names
        )


def _vanished(request: HttpRequest, rows: list[Conversation]) -> int:
    """Count the selected ones that have left the list since it was shown."""
    if request.POST.get("select_across") == "1":
        return 0
    return len(set(request.POST.getlist(ACTION_CHECKBOX_NAME))) - len(rows)


def _label(owner: Conversation | Hold | Metadata, name: str) -> str:
    field = cast(Field, owner._meta.get_field(name))
    return str(field.verbose_name)


def _moment(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}" if moment else EMPTY


def _minute(moment: datetime) -> SafeString:
    return format_html('<span style="white-space: nowrap">{}</span>', f"{moment:%Y-%m-%d %H:%M}")


def _lines(items: Iterable[tuple[str, Any]]) -> SafeString | str:
    """Return a line for each item, with the values below each other."""
    rows = format_html_join(
        "", '<tr><th scope="row">{}</th><td>{}</td></tr>', ((k, _shown(v)) for k, v in items)
    )
    return format_html("<table>{}</table>", rows) if rows else EMPTY


def _shown(value: Any) -> str:
    return ", ".join(map(repr, value)) or EMPTY if isinstance(value, list) else str(value)
