"""List pages, without counts: counting ten million rows takes too long."""

from datetime import datetime
from typing import Any

from django.contrib import messages
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ERROR_FLAG, PAGE_VAR
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.db.models.expressions import Combinable
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from unfold.views import ChangeList

from conversation_service.errors import InvalidCursor, Message
from conversation_service.http.cursors import ListCursor
from conversations.admin.timeline import EMPTY
from conversations.queries.listing import split_page

CURSOR = "cursor"


class PlainChangeList(ChangeList):  # type: ignore[misc]  # unfold has no types
    """Shows its filters with console/filters.html, which needs no script and shows them all."""

    def get_filters(self, request: HttpRequest) -> Any:
        specs, _has_filters, *rest = super().get_filters(request)
        return specs, False, *rest

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        page = request.GET.get(PAGE_VAR, "1")
        if page != str(self.page_num) or self.page_num > self.paginator.num_pages:
            raise IncorrectLookupParameters

    @property
    def filters(self) -> list[tuple[Any, list[dict[str, Any]]]]:
        return [(spec.title, list(spec.choices(self))) for spec in self.filter_specs]


class UncountedChangeList(PlainChangeList):
    """Pages with a cursor, so that each page reads only its own rows.

    The cursor is in the address. If an action removes the cursor's row, the page begins at the next
    row.
    """

    result_list: list[Any]

    def get_ordering(self, request: HttpRequest, queryset: QuerySet) -> list[str | Combinable]:
        """Use only the index order: `?o=` in the URL would sort all rows in memory."""
        return ["-pk"]

    def get_filters(self, request: HttpRequest) -> Any:
        self.filter_params.pop(CURSOR, None)
        return super().get_filters(request)

    def get_results(self, request: HttpRequest) -> None:
        cursor = None
        if PAGE_VAR in request.GET:  # the pages have no numbers
            raise IncorrectLookupParameters
        self.binding = repr(sorted(self.filter_params.items()))
        if text := request.GET.get(CURSOR):
            try:
                cursor = ListCursor.decode(text, binding=self.binding)
            except InvalidCursor as invalid:
                raise IncorrectLookupParameters from invalid
        self.result_list, previous, following = self.read_page(cursor)
        self.previous, self.following = map(self._link, (previous, following))
        self.first_page = self.get_query_string() if cursor else ""
        self.result_count = self.full_result_count = len(self.result_list)
        self.paginator = Paginator(self.result_list, self.list_per_page)
        self.multi_page = bool(previous or following)
        self.show_full_result_count = self.can_show_all = False
        self.show_admin_actions = bool(self.result_list)

    def read_page(
        self, cursor: ListCursor | None
    ) -> tuple[list[Any], ListCursor | None, ListCursor | None]:
        """Return the rows and the cursors to the pages before and after them."""
        rows = self.queryset
        if cursor:
            operator = "gt" if cursor.backwards else "lt"
            operator += "e" if cursor.side in {"from", "upto"} else ""
            rows = rows.filter(**{f"pk__{operator}": cursor.id})
            rows = rows.reverse() if cursor.backwards else rows
        found = list(rows[: self.list_per_page + 1])
        return split_page(found, lambda row: (None, row.pk), cursor, limit=self.list_per_page)

    def _link(self, cursor: ListCursor | None) -> str:
        if cursor is None:
            return ""
        text: str = self.get_query_string({CURSOR: cursor.encode(binding=self.binding)})
        return text


class ListPage:
    """A list page with the menu's word as its title, and only the filters that it offers.

    Django's titles use "user" and "group", which have another meaning in this service. Any other
    filter in an address has no index, or could be a regular expression; an invalid one is an
    error 500.
    """

    list_title: Message
    change_list: type[ChangeList] = PlainChangeList
    list_before_template = "console/filters.html"
    get_list_filter: Any

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return self.change_list

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        offered = self.get_list_filter(request)
        return lookup in {getattr(each, "parameter_name", f"{each}__exact") for each in offered}

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if ERROR_FLAG in request.GET:  # Django redirects here from an invalid address
            note = _(
                "The address has a page or filter that does not exist. This is the whole list."
            )
            messages.warning(request, note)
        context = {"title": self.list_title} | (extra_context or {})
        response: HttpResponse = super().changelist_view(request, context)  # type: ignore[misc]
        return response


class ReadOnlyPage(ListPage):
    """A list page without a count, for rows that Django's forms cannot change."""

    change_list = UncountedChangeList
    list_per_page = 50
    sortable_by = ()
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


def time_cell(moment: datetime | None, precision: str = "minutes") -> SafeString:
    if moment is None:
        return format_html("{}", EMPTY)
    text = moment.replace(tzinfo=None).isoformat(" ", precision)
    return format_html('<time class="c-time">{}</time>', text)
