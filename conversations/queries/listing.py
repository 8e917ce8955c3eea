"""A page of somebody's conversations: from the query string to the statement and back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

import pymongo
from django.utils.translation import gettext_lazy as _
from rest_framework import serializers

from conversation_service.errors import PageTooDeep
from conversation_service.http import fields, pagination
from conversation_service.http.pagination import Position
from conversation_service.mongodb.connection import Document, first_batch
from conversations import limits, states
from conversations.collection import conversations
from conversations.documents import FILTER_KEYS, PUBLIC, RESOURCE_FIELDS, SORT_KEYS
from conversations.queries.search import (
    NOTHING,
    Condition,
    Search,
    SearchField,
    any_of,
    begins,
    each_of,
    tagged,
    unindexed,
)
from conversations.serializers.conversations import ExternalId, Tag

# No date, rather than null: that an index has for other values too, so MongoDB looks at each.
_PINNED = {"true": {"$ne": None}, "false": {"$not": {"$gte": datetime.min.replace(tzinfo=UTC)}}}
BY_CHARACTER = "user_characters"
_KEYS_BY_CHARACTER = {"character_id", "metadata.last_activity", "tag_line"}
_BINDS_NOTHING = {"limit", "cursor", "page", "per_page", "fields", "include_total"}


class _CommaSeparated(fields.List):
    """A list as `a,b` in one parameter, or in several."""

    def to_internal_value(self, data: Any) -> Any:
        parts = [data] if isinstance(data, str) else data
        return super().to_internal_value([item for part in parts for item in part.split(",")])


class ListParameters(fields.Parameters):
    """The query string of the list."""

    limit = serializers.IntegerField(
        min_value=1, required=False, help_text="Rows a page; above 100 is 100. Default 20."
    )
    cursor = fields.Text(
        max_length=limits.CURSOR_LENGTH,
        required=False,
        help_text="`next_cursor` or `prev_cursor` of a page.",
    )
    page = serializers.IntegerField(
        min_value=1,
        required=False,
        help_text="By number instead of by cursor, to a depth of 10,000 rows.",
    )
    per_page = serializers.IntegerField(
        min_value=1,
        required=False,
        help_text="By number instead of by cursor, to a depth of 10,000 rows.",
    )
    status = fields.Choice(
        [*states.LISTS], default=states.ACTIVE, help_text="`all` leaves out the trash."
    )
    character_id = ExternalId(required=False)
    tags = _CommaSeparated(
        child=Tag(),
        max_length=limits.TAGS,
        required=False,
        help_text="`a,b`, or the parameter repeated.",
    )
    tags_match = fields.Choice(
        ["all", "any"], default="all", help_text="Whether every tag must be there, or one."
    )
    pinned = fields.Choice(["true", "false"], required=False)
    search = SearchField(
        required=False,
        help_text="Every word must begin a word of the title or of a tag: `caf` finds *Café con "
        "Luna*, as case, accents and width do not matter. Where a script has no spaces, a word "
        "begins at each character. At most 8 words; without one it filters nothing. Among the "
        'words may be: `tag:x` or `tag:"role play"` (that very tag), `character:id`, '
        "`is:pinned`, `is:archived` (whatever `status` says), `before:2026-01-31` and "
        "`after:2026-01-31T15:00:00Z` for the last activity; a date alone is its midnight in "
        "UTC. A last quotation mark may be missing; what looks like another operator is words.",
    )
    created_after = fields.Moment(
        required=False, help_text="Later than this; cut to milliseconds, as all four."
    )
    created_before = fields.Moment(required=False)
    activity_after = fields.Moment(required=False)
    activity_before = fields.Moment(required=False)
    sort = fields.Choice(list(SORT_KEYS), default="last_activity")
    order = fields.Choice(["desc", "asc"], default="desc")
    fields_ = _CommaSeparated(
        child=fields.Choice(RESOURCE_FIELDS),
        max_length=len(RESOURCE_FIELDS),
        required=False,
        help_text="Only these fields of each conversation, and its id.",
    )
    include_total = fields.Choice(
        ["true", "false"],
        default="false",
        help_text="Count all that match, at the cost of a second statement.",
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        ways = [{"limit", "cursor"} & attrs.keys(), {"page", "per_page"} & attrs.keys()]
        if all(ways):
            raise serializers.ValidationError(
                _("Use either limit and cursor, or page and per_page.")
            )
        return attrs


list_parameters = ListParameters()


@dataclass(frozen=True)
class Listing:
    """One page of one user's conversations, ready to be asked for."""

    user_id: str
    statuses: Sequence[str]
    filters: Mapping[str, Any]
    words: Sequence[Condition]
    implied: Sequence[Condition]
    sort: str
    ascending: bool
    limit: int
    skip: int
    position: Position | None
    binding: str
    include_total: bool
    fields: Sequence[str] | None

    @classmethod
    def of(cls, user_id: str, wanted: Mapping[str, Any]) -> "Listing":
        """Return what ListParameters ask for. Raises InvalidCursor or PageTooDeep."""
        size = min(
            wanted.get("per_page") or wanted.get("limit") or limits.PAGE_SIZE, limits.MAX_PAGE_SIZE
        )
        skip = (wanted.get("page", 1) - 1) * size
        if skip > limits.MAX_SKIPPED_ROWS:
            raise PageTooDeep
        bound = {name: value for name, value in wanted.items() if name not in _BINDS_NOTHING}
        binding = repr((user_id, sorted(bound.items())))
        cursor = wanted.get("cursor")
        search = wanted.get("search", NOTHING)
        return cls(
            user_id=user_id,
            statuses=_statuses(wanted, search),
            filters=_filters(wanted, search),
            words=[*map(begins, search.words)],
            implied=_implied_by_tags(wanted, search),
            sort=wanted["sort"],
            ascending=wanted["order"] == "asc",
            limit=size,
            skip=skip,
            position=pagination.decode(cursor, binding=binding) if cursor else None,
            binding=binding,
            include_total=wanted["include_total"] == "true",
            fields=wanted.get("fields"),
        )

    def matching(self) -> dict[str, Any]:
        """Return the filter for the whole list."""
        return _matching(self.user_id, self.statuses, self.filters, self.words)

    @property
    def by_words(self) -> Sequence[Condition]:
        """What the index of words can answer: whatever is in the list meets all of it."""
        return [*self.words, *self.implied]

    def matching_by(self, word: Condition) -> dict[str, Any]:
        """Return the filter for the whole list, of which the index is to find one word.

        MongoDB would always take the one that it happens to come upon first.
        """
        mine = {"user_id": self.user_id, "status": {"$in": self.statuses}, **self.filters, **word}
        return {"$and": [mine, *(unindexed(other) for other in self.words if other != word)]}

    def where_by(self, word: Condition) -> dict[str, Any]:
        """Return the filter for this page, of which the index is to find one word."""
        if self.position is None:
            return self.matching_by(word)
        sides = self.position.conditions(self.sort_key, ascending=self.ascending)
        return {"$and": [*self.matching_by(word)["$and"], {"$or": sides}]}

    def where(self) -> dict[str, Any]:
        """Return the filter for this page.

        The way to a row is spelt out for each state and each side of a tie, with nothing around
        the $or: then MongoDB plans every branch by itself, as a range of the sort's index, and
        merges them in order without reading a row too much.
        """
        if self.position is None:
            return self.matching()
        sides = self.position.conditions(self.sort_key, ascending=self.ascending)
        branches = [
            {"$and": [{**self.matching(), "status": status}, side]}
            for status in self.statuses
            for side in sides
        ]
        return {"$or": branches}

    def order(self) -> dict[str, int]:
        direction = 1 if self.ascending != self.backwards else -1
        return {self.sort_key: direction, "_id": direction}

    @property
    def sort_key(self) -> str:
        return SORT_KEYS[self.sort]

    @property
    def index(self) -> str:
        """The index that has the whole list in its order."""
        by_activity = self.sort == "last_activity"
        return BY_CHARACTER if by_activity and self.by_character else f"list_{self.sort}"

    @property
    def judged(self) -> bool:
        """Whether that index alone tells which rows the list has, so that no other is read."""
        return not self.words and self._filtered_by <= {self.sort_key, *FILTER_KEYS}

    @property
    def by_character(self) -> bool:
        """Whether the index of characters tells so too, and has the list closest together."""
        return "character_id" in self._filtered_by <= _KEYS_BY_CHARACTER

    @property
    def _filtered_by(self) -> set[str]:
        conditions = [self.filters, *self.filters.get("$and", ())]
        return {path for condition in conditions for path in condition} - {"$and"}

    @property
    def backwards(self) -> bool:
        return self.position is not None and self.position.backwards

    @property
    def projection(self) -> dict[str, int]:
        return PUBLIC | {"title_key": 1} if self.sort_key == "title_key" else PUBLIC


def chosen(user_id: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return the filter for those of a user's that validated parameters of the list choose."""
    search = wanted.get("search", NOTHING)
    words = [*map(begins, search.words)]
    return _matching(user_id, _statuses(wanted, search), _filters(wanted, search), words)


@dataclass(frozen=True)
class Page:
    """The rows of a page, in the order of the list, and where it continues on either side."""

    rows: list[Document]
    next: Position | None
    previous: Position | None

    @classmethod
    def of(cls, listing: Listing, found: list[Document]) -> "Page":
        """Make the page from up to limit + 1 rows in the order in which they were read."""
        more, rows = len(found) > listing.limit, found[: listing.limit]
        came_from = listing.position
        if not rows:
            back = came_from and _turned(came_from)
            return cls([], *((back, None) if listing.backwards else (None, back)))

        if listing.backwards:
            rows.reverse()
        first, last = (_position(listing, row) for row in (rows[0], rows[-1]))
        has_next = more or listing.backwards
        has_previous = more if listing.backwards else bool(came_from or listing.skip)
        return cls(
            rows,
            Position("after", *last) if has_next else None,
            Position("before", *first) if has_previous else None,
        )

    def total(self, listing: Listing) -> int | None:
        """Return how many the list has if this page shows it, without asking the database."""
        if listing.position or self.next or (listing.skip and not self.rows):
            return None
        return listing.skip + len(self.rows)


def _matching(
    user_id: str, statuses: Sequence[str], filters: Mapping[str, Any], words: Sequence[Condition]
) -> dict[str, Any]:
    conditions = [*filters.get("$and", ()), *words]
    also = {"$and": conditions} if conditions else {}
    return {"user_id": user_id, "status": {"$in": statuses}, **filters, **also}


def _statuses(wanted: Mapping[str, Any], search: Search) -> Sequence[str]:
    return states.LISTS[states.ARCHIVED if search.archived else wanted["status"]]


def _filters(wanted: Mapping[str, Any], search: Search) -> dict[str, Any]:
    filters: dict[str, Any] = {}
    if "character_id" in wanted:
        filters["character_id"] = wanted["character_id"]
    if "pinned" in wanted:
        filters["pinned_at"] = _PINNED[wanted["pinned"]]
    for path, name in (("metadata.created_at", "created"), ("metadata.last_activity", "activity")):
        span = {"$gt": wanted.get(f"{name}_after"), "$lt": wanted.get(f"{name}_before")}
        if given := {operator: moment for operator, moment in span.items() if moment}:
            filters[path] = given
    if conditions := [*_tagged(wanted), *search.beyond_words()]:
        filters["$and"] = conditions
    return filters


def _tagged(wanted: Mapping[str, Any]) -> list[Condition]:
    if "tags" not in wanted:
        return []
    tags = wanted["tags"]
    # A bulk action may name no tag: on all of none, it would be one on everything.
    one_is_enough = wanted["tags_match"] == "any" or not tags
    return [tagged(*tags)] if one_is_enough else [*map(tagged, tags)]


def _implied_by_tags(wanted: Mapping[str, Any], search: Search) -> list[Condition]:
    """Return what the words of tags must be, which lets the index of words answer for tags."""
    implied = any_of if wanted["tags_match"] == "any" else each_of
    return [*implied(wanted.get("tags", [])), *each_of(search.tags)]


def _position(listing: Listing, row: Document) -> tuple[str | datetime | None, Any]:
    """Return the sort key as it is stored, since the index knows no default."""
    value: Any = row
    for step in listing.sort_key.split("."):
        value = value.get(step) if value else None
    return cast(str | datetime | None, value), row["_id"]


def _turned(position: Position) -> Position:
    """Where a page with nothing on it leads back to: the row it began at, and beyond."""
    return Position("from" if position.backwards else "upto", position.value, position.id)


_WORDS = "user_words"
# So many that words find are sorted in memory; a search that takes longer is given up.
FEW = 1_000
SEARCH_BUDGET_S = 2.0


def page(listing: Listing) -> list[Document]:
    """Read a page and one row more, by the index that has the list in its order."""
    if listing.judged:
        # MongoDB left alone would try each index of the user for each branch of the filter.
        return _page(listing, listing.where(), hint=listing.index)
    if listing.by_words:
        return _found(listing)
    return _page(listing, listing.where())


def _found(listing: Listing) -> list[Document]:
    """Read a page of what words or tags find, in one of two ways, whichever reads less.

    If the index of words leads to few, they are sorted in memory; of many, the list's own index
    meets enough for a page soon. Raises pymongo.errors.PyMongoError with `timeout` set past
    SEARCH_BUDGET_S.
    """
    with pymongo.timeout(SEARCH_BUDGET_S):
        word = _rare_word(listing)
        found = _counted(listing.matching_by(word), limit=FEW)
        if found < FEW:
            return _page(listing, listing.where_by(word), hint=_WORDS) if found else []
        return _page(listing, listing.where(), hint=listing.index)


def _page(listing: Listing, where: dict[str, Any], **hint: Any) -> list[Document]:
    return first_batch(
        "conversations",
        where,
        projection=listing.projection,
        sort=listing.order(),
        skip=listing.skip,
        limit=listing.limit + 1,
        **hint,
    )


def count(listing: Listing) -> int:
    if listing.judged:
        index = BY_CHARACTER if listing.by_character else listing.index
        return conversations().count_documents(listing.matching(), hint=index)
    if not listing.by_words:
        return conversations().count_documents(listing.matching())
    with pymongo.timeout(SEARCH_BUDGET_S):
        return _counted(listing.matching_by(_rare_word(listing)))


def _rare_word(listing: Listing) -> Condition:
    """Return a word of which the user has few, if there is one, reading FEW at most for each."""
    first, *others = listing.by_words
    if others:
        for word in listing.by_words:
            if _counted({"user_id": listing.user_id, **word}, limit=FEW) < FEW:
                return word
    return first


def _counted(where: dict[str, Any], **options: Any) -> int:
    return conversations().count_documents(where, hint=_WORDS, **options)
