"""Lists without counts: counting ten million rows takes too long."""

from typing import Any

from django.contrib.admin.options import IncorrectLookupParameters
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.db.models.expressions import Combinable
from django.http import HttpRequest
from unfold.views import ChangeList

# Each page also reads the rows before it. Later rows are found by a search.
PAGES = 100


class PlainChangeList(ChangeList):  # type: ignore[misc]  # unfold has no types
    """Shows its filters with console/filters.html, which needs no script and shows them all."""

    def get_filters(self, request: HttpRequest) -> Any:
        specs, _has_filters, *rest = super().get_filters(request)
        return specs, False, *rest

    @property
    def filters(self) -> list[tuple[Any, list[dict[str, Any]]]]:
        return [(spec.title, list(spec.choices(self))) for spec in self.filter_specs]


class UncountedChangeList(PlainChangeList):
    """Reads a row more than the page shows, to know whether another page follows."""

    page_num: int
    result_list: list[Any]

    def get_ordering(self, request: HttpRequest, queryset: QuerySet) -> list[str | Combinable]:
        """Use only the index order: `?o=` in the URL would sort all rows in memory."""
        return ["-pk"]

    def get_results(self, request: HttpRequest) -> None:
        if not 1 <= self.page_num <= PAGES:
            raise IncorrectLookupParameters
        start = (self.page_num - 1) * self.list_per_page
        rows = list(self.queryset[start : start + self.list_per_page + 1])
        if start and not rows:  # an action removed all rows from the last page
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
